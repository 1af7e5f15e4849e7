"""`cli cells` as typed: crops and tables of every kind of image, label images, rules, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_data import QUICK
from cells_data import n_found
from cells_project import (
    BY_CHANNEL,
    CHANNELS,
    SIDE_PX,
    all_bytes,
    drawn,
    eight_bits,
    rows_of,
    save,
    write_channels,
    write_deep,
    write_grey,
    write_pages,
    write_rgb,
    write_split,
)
from PIL import Image

from featurize.cells.masks import decode_mask
from featurize.cells.tables import CELL_COLUMNS, IMAGE_COLUMNS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def labels_of(table: str, parent: str) -> np.ndarray:
    """Put the masks of an image's cells together again."""
    labels = np.zeros((SIDE_PX, SIDE_PX), np.int32)
    for number, row in enumerate((row for row in rows_of(table) if row["parent"] == parent), 1):
        mask = decode_mask(row["mask"], int(row["image_height"]), int(row["image_width"]))
        assert not labels[mask].any(), "cells overlap"
        labels[mask] = number
    return labels


@pytest.mark.parametrize(
    ("write", "words", "mode", "names"),
    [
        (write_rgb, ("--cell", "red,green"), "RGB", ["001.png"]),
        (write_grey, (), "L", ["001.png"]),
        (write_deep, (), "I;16", ["001.png"]),
        (write_channels, (*BY_CHANNEL, "--cell", "tubules,er"), "L", [f"001_{name}.png" for name in CHANNELS]),
        (
            write_pages,
            ("--planes", "nucleus,tubules,er", "--cell", "tubules,er"),
            "L",
            ["001_nucleus.png", "001_tubules.png", "001_er.png"],
        ),
    ],
    ids=["RGB", "grey", "16 bits", "a file a channel", "pages of a TIFF"],
)
def test_each_kind_of_image_becomes_crops_of_its_kind_and_a_table(
    place: Path, run_cli: Run, write: Callable[..., None], words: tuple[str, ...], mode: str, names: list[str]
) -> None:
    write_split("train", [1, 2], write)
    write_split("test", [3], write)
    code, out, err = run_cli("cells", *words)
    assert (code, out) == (0, ""), err
    assert "cells/train.csv: 8 cells of 2 images; 2 images cut in" in err
    rows = rows_of("cells/train.csv")
    assert tuple(rows[0]) == CELL_COLUMNS
    parent = {write_pages: "train0.tif", write_channels: "train0"}.get(write, "train0.png")
    assert [row["parent"] for row in rows][:4] == [parent] * 4
    assert [row["id"] for row in rows][:4] == [f"train0/{number:03d}" for number in range(1, 5)]
    assert {path.name for path in Path("cells/train/train0").glob("001*")} == set(names)
    with Image.open(f"cells/train/train0/{names[0]}") as crop:
        assert crop.mode == mode
    picture = drawn(1)
    true = picture.nuclei if write in {write_grey, write_deep} else picture.cells
    assert n_found(labels_of("cells/train.csv", parent), true) == 4
    images = rows_of("cells/train_images.csv")
    assert tuple(images[0]) == IMAGE_COLUMNS
    assert [tuple(row.values())[1:] for row in images] == [(str(SIDE_PX), str(SIDE_PX), "4", "")] * 2


def test_a_crop_is_a_padded_square_of_the_image_s_own_pixels(place: Path, run_cli: Run) -> None:
    write_split("train", [1], write_rgb)
    whole = np.pad(pixels("data/train/train0.png"), [(SIDE_PX, SIDE_PX), (SIDE_PX, SIDE_PX), (0, 0)])
    for background, margin in (("keep", 0.25), ("zero", 0.0)):
        assert run_cli("cells", "--out", background, "--background", background, "--margin", margin)[0] == 0
        for row in rows_of(f"{background}/train.csv"):
            x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
            crop = pixels(f"{background}/train/{row['id']}.png")
            longer = max(width, height)
            side = longer + 2 * int(np.ceil(margin * longer))
            top, left = SIDE_PX + y - (side - height) // 2, SIDE_PX + x - (side - width) // 2
            expected = whole[top : top + side, left : left + side].copy()
            mask = np.pad(decode_mask(row["mask"], SIDE_PX, SIDE_PX), SIDE_PX)
            assert mask.any(axis=1).nonzero()[0][[0, -1]].tolist() == [SIDE_PX + y, SIDE_PX + y + height - 1]
            assert mask.any(axis=0).nonzero()[0][[0, -1]].tolist() == [SIDE_PX + x, SIDE_PX + x + width - 1]
            if background == "zero":
                expected[~mask[top : top + side, left : left + side]] = 0
            np.testing.assert_array_equal(crop, expected)


def test_sixteen_bits_come_back_value_by_value(place: Path, run_cli: Run) -> None:
    write_split("train", [1], write_deep)
    assert "1 images: crops of 16-bit grey" in run_cli("cells", "--background", "keep", "--margin", "0")[2]
    row = rows_of("cells/train.csv")[0]
    x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
    longer = max(width, height)
    top, left = y - (longer - height) // 2, x - (longer - width) // 2
    expected = np.pad(pixels("data/train/train0.png"), SIDE_PX)[
        SIDE_PX + top : SIDE_PX + top + longer, SIDE_PX + left : SIDE_PX + left + longer
    ]
    np.testing.assert_array_equal(pixels(f"cells/train/{row['id']}.png"), expected)


def test_an_image_without_cells_is_in_the_table_of_images_alone(place: Path, run_cli: Run) -> None:
    write_split("train", [1, -2], write_rgb)
    code, out, err = run_cli("cells", "--json")
    assert code == 0
    assert "1 without cells" in err
    assert {row["parent"] for row in rows_of("cells/train.csv")} == {"train0.png"}
    assert rows_of("cells/train_images.csv")[1]["n_cells"] == "0"
    found = json.loads(out)
    assert set(found) == {"splits", "warnings"}
    assert {
        name: found["splits"][0][name] for name in ("split", "path", "n_images", "n_cells", "n_empty", "n_cut")
    } == {
        "split": "train",
        "path": "cells/train.csv",
        "n_images": 2,
        "n_cells": 4,
        "n_empty": 1,
        "n_cut": 2,
    }


def test_where_no_image_has_cells_there_is_a_warning_and_featurize_says_what_is_missing(
    place: Path, run_cli: Run
) -> None:
    write_split("train", [-1, -2], write_rgb)
    code, _, err = run_cli("cells")
    assert code == 0
    assert "warning: cells/train.csv: no cells in any image; look at --nucleus and --diameter, or give --masks" in err
    assert rows_of("cells/train.csv") == []
    code, _, err = run_cli("featurize", *QUICK, "--cells", "cells")
    assert code == 2
    assert "--cells cells: no image has a cell; expected crops. Look at --nucleus and --diameter" in err


def test_a_split_without_any_cell_is_passed_over_and_told(place: Path, run_cli: Run) -> None:
    write_split("train", [1], write_rgb)
    write_split("test", [-1], write_rgb)
    assert run_cli("cells")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--cells", "cells")
    assert code == 0
    assert "no test_cells.h5" in err
    assert Path("features/train_cells.h5").is_file()
    assert not Path("features/test_cells.h5").exists()


def test_border_drop_leaves_out_cells_whose_nucleus_is_cut(place: Path, run_cli: Run) -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[0:5, 10:15], labels[10:20, 10:20], labels[25:30, 30:40] = 1, 2, 3
    save(Path("data/train/a.png"), labels * 50)
    save(Path("masks/a.png"), labels)
    assert run_cli("cells", "--masks", "masks", "--out", "kept")[0] == 0
    assert [row["touches_border"] for row in rows_of("kept/train.csv")] == ["1", "0", "1"]
    assert run_cli("cells", "--masks", "masks", "--border", "drop", "--out", "dropped")[0] == 0
    assert [row["id"] for row in rows_of("dropped/train.csv")] == ["a/002"]


def test_limit_and_ids_with_folders_blanks_and_brackets(place: Path, run_cli: Run) -> None:
    for number, image_id in enumerate(["b 1/x [2]", "a/x", "a.b/ü"]):
        write_rgb(Path("data/train"), image_id, drawn(number).planes)
    assert run_cli("cells")[0] == 0
    assert {row["id"].rpartition("/")[0] for row in rows_of("cells/train.csv")} == {"b 1/x [2]", "a/x", "a.b/ü"}
    assert Path("cells/train/b 1/x [2]/001.png").is_file()
    assert run_cli("cells", "--limit", "1", "--out", "one")[0] == 0
    assert {row["parent"] for row in rows_of("one/train.csv")} == {"a.b/ü.png"}


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("a.png", "a.tif"), "the crops of 'a.png' and 'a.tif' would have one folder (a); rename one image"),
        (("a.png", "a/b.png"), "the crops of 'a/b.png' would lie among those of 'a.png' (a); rename one image"),
    ],
)
def test_images_whose_crops_would_mix_are_an_error(
    place: Path, run_cli: Run, names: tuple[str, ...], match: str
) -> None:
    for name in names:
        save(Path("data/train", name), eight_bits(drawn(1).planes[..., 0]))
    code, _, err = run_cli("cells")
    assert code == 2
    assert match in err
    assert not Path("cells").exists() or not list(Path("cells").iterdir())


def test_label_images_say_what_is_a_cell_without_scikit_image(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    write_split("train", [1, 2], write_channels)
    write_split("test", [3], write_channels)
    for split, number, seed in (("train", 0, 1), ("train", 1, 2), ("test", 0, 3)):
        save(Path("masks", split, f"{split}{number}.png"), drawn(seed).cells.astype(np.uint16) * 1000)
    code, _, err = run_cli("cells", *BY_CHANNEL, "--masks", "masks")
    assert code == 0, err
    assert [row["id"] for row in rows_of("cells/train.csv")][:4] == [f"train0/{n}000" for n in range(1, 5)]
    np.testing.assert_array_equal(labels_of("cells/test.csv", "test0"), drawn(3).cells)


LABELS = {
    "a float one": (lambda labels: labels.astype(np.float32), None),
    "32 bits": (lambda labels: labels.astype(np.int32) * 100_000, None),
    "fractions": (lambda labels: labels * np.float32(0.3), "with a fraction"),
    "floats that skip numbers": (lambda labels: labels * np.float32(1e30), "as floats above 16777216"),
    "not a number": (lambda labels: np.where(labels > 0, np.float32(np.nan), 0), "with a fraction"),
    "below 0": (lambda labels: -labels.astype(np.int32), "numbers below 0"),
    "black and white": (lambda labels: (labels > 0).astype(np.uint8) * 255, "only 0 and 255, black and white"),
    "colours": (lambda labels: np.stack([labels.astype(np.uint8)] * 3, axis=2), "pixels of mode 'RGB'"),
    "another size": (lambda labels: labels[:, :-1].astype(np.uint8), "label image is 95 x 96; the image is 96 x 96"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_label_images_of_any_whole_numbers_are_taken_and_others_quarantined(
    place: Path, run_cli: Run, kind: str
) -> None:
    change, reason = LABELS[kind]
    write_split("train", [1, 2], write_grey)
    save(Path("masks/train0.png"), drawn(1).cells.astype(np.uint8))
    save(Path("masks/train1.tif"), change(drawn(2).cells))
    code, _, err = run_cli("cells", "--masks", "masks")
    assert code == (0 if reason is None else 4), err
    row = rows_of("cells/train_images.csv")[1]
    assert row["n_cells"] == ("4" if reason is None else "0")
    assert (reason or "") in row["reason"]


def test_a_palette_s_numbers_count_and_a_missing_label_image_quarantines(place: Path, run_cli: Run) -> None:
    write_split("train", [1, 2], write_grey)
    coloured = Image.fromarray(drawn(1).cells.astype(np.uint8))
    coloured.putpalette([7, 7, 7] * 256)
    Path("masks").mkdir()
    coloured.save("masks/train0.png")
    code, _, err = run_cli("cells", "--masks", "masks")
    assert code == 4
    assert "1 quarantined (cells/train_images.csv)" in err
    np.testing.assert_array_equal(labels_of("cells/train.csv", "train0.png"), drawn(1).cells)
    assert rows_of("cells/train_images.csv")[1]["reason"].endswith("no label image train1.png or .tif in masks")
    save(Path("masks/train1.png"), drawn(2).cells.astype(np.uint8))
    assert run_cli("cells", "--masks", "masks")[0] == 0
    assert rows_of("cells/train_images.csv")[1]["n_cells"] == "4"


def test_a_label_image_of_several_pages_is_quarantined_and_so_is_half_of_one(place: Path, run_cli: Run) -> None:
    write_split("train", [1, 2], write_grey)
    first, second = (Image.fromarray(drawn(seed).cells.astype(np.uint8)) for seed in (1, 2))
    Path("masks").mkdir()
    first.save("masks/train0.tif", save_all=True, append_images=[second])
    second.save("masks/train1.png")
    whole = Path("masks/train1.png").read_bytes()
    Path("masks/train1.png").write_bytes(whole[: len(whole) // 2])
    assert run_cli("cells", "--masks", "masks", "--max-bad", "1")[0] == 4
    reasons = [row["reason"] for row in rows_of("cells/train_images.csv")]
    assert "label image: 2 pages; expected one" in reasons[0]
    assert "label image: truncated or damaged PNG" in reasons[1]


def test_label_images_of_no_image_two_of_one_and_options_of_finding_are_errors(place: Path, run_cli: Run) -> None:
    write_split("train", [1], write_grey)
    save(Path("masks/other.png"), drawn(1).cells.astype(np.uint8))
    code, _, err = run_cli("cells", "--masks", "masks")
    assert code == 2
    assert "--masks masks: holds none of 1 label images looked for (first: 'train0.png'); found 'other'" in err
    for name in ("train0.png", "train0.tif"):
        save(Path("masks", name), drawn(1).cells.astype(np.uint8))
    code, _, err = run_cli("cells", "--masks", "masks")
    assert code == 2
    assert "two label images for 'train0'" in err
    code, _, err = run_cli("cells", "--masks", "masks", "--diameter", "12")
    assert code == 2
    assert "--diameter with --masks: the label images say where cells are" in err


def test_an_unreadable_image_is_quarantined_with_its_reason_and_two_are_too_many(place: Path, run_cli: Run) -> None:
    write_split("train", [1, 2, 3], write_grey)
    whole = Path("data/train/train1.png").read_bytes()
    Path("data/train/train1.png").write_bytes(whole[: len(whole) // 2])
    code, _, err = run_cli("cells")
    assert code == 4
    assert "1 quarantined (cells/train_images.csv)" in err
    row = rows_of("cells/train_images.csv")[1]
    assert (row["id"], row["width"], row["n_cells"]) == ("train1.png", "", "0")
    assert "truncated or damaged" in row["reason"]
    Path("data/train/train2.png").write_bytes(b"")
    code, _, err = run_cli("cells", "--out", "other")
    assert code == 2
    assert "2 of the images read so far cannot be used, above --max-bad 0.01 of 3" in err
    assert "train2.png: not an image (empty file)" in err
    assert run_cli("cells", "--out", "other", "--max-bad", "0.9")[0] == 4
    Path("data/train/train1.png").write_bytes(whole)
    assert run_cli("cells")[0] == 2, "train2 is another one than the one its cells were cut out of"


def test_the_number_of_workers_moves_no_byte(place: Path, run_cli: Run) -> None:
    write_split("train", range(5), write_rgb)
    for n_workers in (1, 2):
        assert run_cli("cells", "--cell", "red,green", "--workers", n_workers, "--out", f"by{n_workers}")[0] == 0
    assert all_bytes("by1") == all_bytes("by2")
