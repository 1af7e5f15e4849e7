"""`cli views` and [augmentation]: the sheet shows what networks get, and one file steers both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import QUICK, picture
from PIL import Image

from features_cache.reader import FeatureCache
from featurize.engine import Engine
from featurize.sheet import corner
from featurize.views.augmentation import FLIPS_AND_TURNS

Run = Callable[..., tuple[int, str, str]]
SIDE_PX = 64
MANY_TERMS = """
[augmentation]
flip = "both"
rotate = "quarter"
zoom = [0.8, 1.25]
shift = 0.1
skew = 10
brightness = 0.2
contrast = 0.2
blur = [0.0, 1.5]
noise = [0.0, 0.05]
"""


def cell(sheet: Path, row: int, view: int, side: int = SIDE_PX) -> np.ndarray:
    left, top = corner(row, view, side)
    with Image.open(sheet) as image:
        return np.asarray(image.convert("RGB").crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("section", ["", MANY_TERMS], ids=["default", "many terms"])
def test_the_sheet_shows_the_very_pixels_that_networks_get(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    seen: dict[tuple[str, int], np.ndarray] = {}
    make_views = Engine.make_views

    def remembered(engine: Engine, images: torch.Tensor, ids: list[str], views: list[int]) -> torch.Tensor:
        made = make_views(engine, images, ids, views)
        seen.update(zip(zip(ids, views, strict=True), made.numpy().copy(), strict=True))
        return made

    monkeypatch.setattr(Engine, "make_views", remembered)
    Path("permafeat.toml").write_text(f"[featurize]\nsize = {SIDE_PX}\naugment = 3\ntta = 1\nseed = 5\n{section}")
    assert run_cli("featurize", *QUICK)[0] == 0
    assert len(seen) == 6 * 4 + 3 * 2
    code, out, err = run_cli("views", "train3", "test1", "train0")
    assert (code, out, err) == (0, "sheet.png: 10 views of 3 images\n", "")
    for row, (image_id, n_views) in enumerate((("train3", 4), ("test1", 2), ("train0", 4))):
        for view in range(n_views):
            expected = np.rint(seen[image_id, view].transpose(1, 2, 0) * 255)
            np.testing.assert_array_equal(cell(Path("sheet.png"), row, view), expected, f"{image_id}, view {view}")
    assert (cell(Path("sheet.png"), 0, 1) != cell(Path("sheet.png"), 0, 0)).any()


def test_what_featurize_s_section_and_variables_say_holds_here_too_but_for_its_out(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("permafeat.toml").write_text('[featurize]\nsize = 32\naugment = 2\nout = "caches"\nweights = "random"\n')

    def shape(*words: str) -> tuple[int, int]:
        code, out, err = run_cli("views", "train0", "--json", *words)
        assert code == 0, err
        told = json.loads(out)
        with Image.open(told["path"]) as image:
            side = next(side for side in (16, 24, 32, 48) if image.height == corner(1, 0, side)[1] - 28)
        return told["rows"][0]["n_views"], side

    assert shape() == (3, 32)
    assert not Path("caches").exists()
    monkeypatch.setenv("PERMAFEAT_FEATURIZE_AUGMENT", "4")
    assert shape() == (5, 32)
    monkeypatch.setenv("PERMAFEAT_VIEWS_AUGMENT", "5")
    assert shape() == (6, 32)
    assert shape("--augment", "1", "--size", "16") == (2, 16)
    Path("permafeat.toml").write_text('[featurize]\nsize = 32\n[views]\nsize = 48\nout = "wide.png"\n')
    assert shape() == (6, 48)
    assert Path("wide.png").is_file()
    Path("permafeat.toml").write_text("[views]\nszie = 48\n")
    assert "[views] has no key 'szie'; did you mean 'size'?" in run_cli("views", "train0")[2]


def test_an_unknown_id_is_told_with_the_nearest(project: Path, run_cli: Run) -> None:
    code, out, err = run_cli("views", "train0", "trian3")
    assert (code, out) == (2, "")
    assert "no image 'trian3' among 6 in data/train and 3 in data/test; did you mean 'train3'?" in err
    assert not Path("sheet.png").exists()


def test_an_id_of_both_splits_has_a_row_each(project: Path, run_cli: Run) -> None:
    picture(1).save("data/test/train0.png")
    Path("data/sample_submission.csv").write_text("id,label\ntrain0,a\n")
    code, out, _ = run_cli("views", "train0", "--size", "32", "--json")
    assert code == 0
    assert [(row["id"], row["split"]) for row in json.loads(out)["rows"]] == [("train0", "train"), ("train0", "test")]
    assert (cell(Path("sheet.png"), 0, 0, 32) != cell(Path("sheet.png"), 1, 0, 32)).any()


def test_an_image_that_cannot_be_used_is_told_with_its_reason(project: Path, run_cli: Run) -> None:
    Path("data/train/train1.png").write_bytes(Path("data/train/train1.png").read_bytes()[:200])
    code, out, err = run_cli("views", "train1", "train2", "--augment", "1", "--json")
    assert code == 4
    assert "warning: train1 would be quarantined: truncated (truncated or damaged PNG" in err
    told = json.loads(out)
    assert [row["id"] for row in told["rows"]] == ["train2"] and list(told["quarantined"]) == ["train1"]
    Path("sheet.png").unlink()
    code, _, err = run_cli("views", "train1")
    assert code == 2
    assert "nothing to draw, and sheet.png was not written: train1 is truncated (" in err
    assert not Path("sheet.png").exists()


def test_an_earlier_sheet_gives_way_and_another_file_does_not(project: Path, run_cli: Run) -> None:
    for size in ("32", "48"):
        code, _, err = run_cli("views", "train0", "--size", size)
        assert code == 0, err
    assert "no augmented copies are asked for; --augment 6 draws six" in err
    first = Path("sheet.png").read_bytes()
    assert run_cli("views", "train0", "--size", "48")[0] == 0
    assert Path("sheet.png").read_bytes() == first, "the same work gives the same bytes"
    for content in (Path("data/train/train0.png").read_bytes(), b"my thesis", b""):
        Path("mine.png").write_bytes(content)
        code, _, err = run_cli("views", "train0", "--out", "mine.png")
        assert code == 2
        assert (
            "mine.png: stands there already and is no sheet of views; choose another --out, or add --overwrite" in err
        )
        assert Path("mine.png").read_bytes() == content
    assert run_cli("views", "train0", "--out", "mine.png", "--overwrite")[0] == 0
    Path("folder.png").mkdir()
    for words in ((), ("--overwrite",)):
        code, _, err = run_cli("views", "train0", "--out", "folder.png", *words)
        assert code == 2
        assert "folder.png: a folder stands there; choose another --out" in err
    code, _, err = run_cli("views", "train0", "--out", "sheet.jpg")
    assert code == 2
    assert "--out is 'sheet.jpg'; expected a name that ends in .png" in err
    assert not [path.name for path in project.iterdir() if path.name.startswith(".")]


def test_channel_files_are_stacked_as_featurize_stacks_them(project: Path, run_cli: Run) -> None:
    shutil.rmtree("data/test")
    folder = Path("channels")
    folder.mkdir()
    planes = [np.asarray(picture(number, SIDE_PX).convert("L")) for number in range(3)]
    for name, plane in zip(("er", "mt", "dna"), planes, strict=True):
        Image.fromarray(plane).save(folder / f"çell—{'x' * 90}_{name}.png")
    words = ("--train-images", folder, "--pattern", "{id}_{channel}.png", "--channels", "dna,er,mt", "--size", SIDE_PX)
    code, _, err = run_cli("views", f"çell—{'x' * 90}", *words)
    assert code == 0, err
    np.testing.assert_array_equal(cell(Path("sheet.png"), 0, 0), np.stack([planes[2], planes[0], planes[1]], axis=2))


def test_a_name_that_no_font_has_is_drawn_by_its_codes(project: Path, run_cli: Run) -> None:
    shutil.rmtree("data/test")
    names = ["a\nb.png", "細胞.png"]
    for name in names:
        (folder := Path("odd")).mkdir(exist_ok=True)
        picture(1).save(folder / name)
    code, out, err = run_cli("views", *names, "--train-images", "odd", "--size", "32", "--augment", "1", "--json")
    assert code == 0, err
    assert [row["id"] for row in json.loads(out)["rows"]] == names


def test_a_section_makes_another_recipe_and_its_absence_the_one_of_earlier_caches(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.blocks[0].recipe.augmentation == FLIPS_AND_TURNS.terms
    Path("permafeat.toml").write_text('[augmentation]\nflip = "both"\nrotate = 180\n')
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert code == 0 and "complete, nothing to compute" in err
    Path("permafeat.toml").write_text("[augmentation]\nblur = [1.0, 2.0]\n")
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert code == 2
    assert "blur sigma uniform in 1 to 2 px" in err and "asked for" in err
    assert run_cli("featurize", *QUICK, "--augment", "1", "--out", "blurred")[0] == 0
    with FeatureCache(Path("features/train.h5")) as turned, FeatureCache(Path("blurred/train.h5")) as blurred:
        assert blurred.blocks[0].recipe.augmentation == ("blur sigma uniform in 1 to 2 px",)
        np.testing.assert_array_equal(turned.load(views=slice(1)), blurred.load(views=slice(1)))
        assert (turned.load(views=slice(1, 2)) != blurred.load(views=slice(1, 2))).any(axis=(1, 2)).all()


@pytest.mark.parametrize("command", [("featurize", *QUICK, "--augment", "1"), ("views", "train0", "--augment", "1")])
def test_a_wrong_section_stops_either_command(project: Path, run_cli: Run, command: tuple[str, ...]) -> None:
    for content, complaint in (
        ("[augmentation]\nbluer = [0, 1]\n", "permafeat.toml: [augmentation] has no key 'bluer'; did you mean 'blur'?"),
        (
            "[augmentation]\nblur = [2, 1]\n",
            "permafeat.toml: [augmentation] blur is [2, 1]; expected two numbers from 0 to 16",
        ),
        ("[augmentation]\n", "[augmentation] names no term that does anything"),
        ("[augmentations]\nblur = [0, 1]\n", "no section [augmentations]"),
    ):
        Path("permafeat.toml").write_text(content)
        code, _, err = run_cli(*command)
        assert code == 2
        assert complaint in err
    assert not Path("sheet.png").exists() and not list(Path().glob("features/*.h5"))
