"""Bad images, tables, weights and flags: what each gets, in words and exit code."""

from __future__ import annotations

import csv
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, picture
from PIL import Image

from features_cache.reader import FeatureCache
from featurize.decode import BadImage, decode, unit_range

Run = Callable[..., tuple[int, str, str]]
TRAIN = Path("data/train")


def quarantine(split: str = "train") -> dict[str, tuple[str, str]]:
    """Read the list beside a cache: id to status and reason."""
    with Path(f"features/{split}.quarantine.csv").open(newline="") as file:
        return {row["id"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png() -> bytes:
    """Declare 60,000 x 60,000 pixels in a hundred bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


BAD_FILES = {
    "empty": (lambda whole: b"", "not an image", "empty file"),
    "HTML": (lambda whole: b"<!DOCTYPE html><html>404</html>", "not an image", "looks like HTML"),
    "text": (lambda whole: b"see the other disk\n", "not an image", "looks like text"),
    "zip": (lambda whole: b"PK\x03\x04" + bytes(60), "not an image", "looks like a zip archive"),
    "PDF": (lambda whole: b"%PDF-1.7\n" + bytes(60), "not an image", "looks like PDF"),
    "half a PNG": (lambda whole: whole[: len(whole) // 2], "truncated or damaged", "PNG"),
    "a PNG's header": (lambda whole: whole[:30], "truncated or damaged", "PNG"),
    "too large": (lambda whole: huge_png(), "over --max-pixels", "60000 x 60000 pixels; at most 100000000"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_quarantined_with_a_reason_and_the_run_goes_on(project: Path, run_cli: Run, kind: str) -> None:
    spoil, status, reason = BAD_FILES[kind]
    path = TRAIN / "train2.png"
    path.write_bytes(spoil(path.read_bytes()))
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 4, err
    assert "1 quarantined (features/train.quarantine.csv)" in err
    assert quarantine()["train2"][0] == status
    assert reason in quarantine()["train2"][1]
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.good.tolist() == [True, True, False, True, True, True]
        assert not cache.load()[2].any()
        assert cache.load()[3].any()


def test_two_bad_images_of_six_are_too_many_unless_allowed(project: Path, run_cli: Run) -> None:
    for index in (1, 4):
        (TRAIN / f"train{index}.png").write_bytes(b"")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "error: data/train: 2 of the images read so far cannot be used, above --max-bad 0.01 of 6" in err
    assert "train1: not an image (empty file)" in err
    assert run_cli("featurize", *QUICK)[0] == 2, "typed again, they are still too many"
    code, _, err = run_cli("featurize", *QUICK, "--max-bad", "0.5")
    assert code == 4
    assert len(quarantine()) == 2


def test_a_mended_or_replaced_image_is_told_and_not_taken_for_the_old_one(project: Path, run_cli: Run) -> None:
    whole = (TRAIN / "train2.png").read_bytes()
    (TRAIN / "train2.png").write_bytes(b"")
    assert run_cli("featurize", *QUICK)[0] == 4
    assert run_cli("featurize", *QUICK)[0] == 4
    (TRAIN / "train2.png").write_bytes(whole)
    picture(99).save("data/test/test1.png")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "features/train.h5: 1 images are not those that it was made from ('train2')" in err
    assert "--overwrite" in err
    assert run_cli("featurize", *QUICK, "--overwrite")[0] == 0
    assert not Path("features/train.quarantine.csv").exists()


def test_a_copied_folder_with_other_times_is_still_the_same(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    for path in TRAIN.iterdir():
        os.utime(path, (1, 1))
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert err.count("complete, nothing to compute") == 2


def test_an_overwrite_stopped_on_the_way_goes_on_where_it_stopped(project: Path, run_cli: Run) -> None:
    from features_cache.parts import Parts
    from features_cache.plan import plan_in
    from features_cache.reader import FeatureCache as Cache

    assert run_cli("featurize", *QUICK)[0] == 0
    # As a kill after the training images leaves it: the test images' plan and parts wait.
    cache_bytes = Path("features/train.h5").read_bytes()
    from featurize.interrupt import StopFlag
    from featurize.run import _Job, _jobs_to_do  # the mark is private to the story
    from featurize.settings import FeaturizeSettings
    from featurize.work import plan_work

    options = FeaturizeSettings.from_options(
        backbones=("squeezenet1_1",), weights=("random",), size_px=64, device="cpu", overwrite=True
    )
    work = plan_work(options)
    jobs = [
        _Job(split, options.out / f"{split}.h5", manifest.root, work.plans[split], options, StopFlag(), lambda *_: None)
        for split, manifest in work.manifests.items()
    ]
    assert [job.split for job in _jobs_to_do(jobs)] == ["train", "test"]
    assert plan_in(Path("features/train.parts")) == jobs[0].wanted
    Parts(Path("features/train.parts"), jobs[0].wanted).remove()
    assert [job.split for job in _jobs_to_do(jobs)] == ["test"]
    code, _, err = run_cli("featurize", *QUICK, "--overwrite")
    assert code == 0
    assert "features/train.h5: 6 images x 1 views x 512 columns, 0.0 MB; complete, nothing to compute" in err
    assert "3 computed" in err
    assert Path("features/train.h5").read_bytes() == cache_bytes
    with Cache(Path("features/test.h5")) as cache:
        assert cache.n_images == 3


def test_two_ids_that_name_one_file_are_an_error(project: Path, run_cli: Run) -> None:
    with Path("data/train.csv").open("a") as file:
        file.write("train0.png,a\n")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "two ids in data/train.csv name the file 'train0.png'" in err


def test_links_that_lead_out_or_nowhere_are_refused(project: Path, run_cli: Run) -> None:
    (TRAIN / "link.png").symlink_to("nowhere.png")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 3
    assert "a link that leads nowhere or in a circle; refused" in err
    (TRAIN / "link.png").unlink()
    (TRAIN / "link.png").symlink_to("/etc/hostname")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 3
    assert "a link out of data/train; refused" in err


def test_nan_pixels_are_quarantined_and_floats_are_never_clipped(project: Path, run_cli: Run) -> None:
    pixels = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    for name, value in (("train0", np.nan), ("train1", np.inf), ("train2", 3.0), ("train3", 0.5)):
        spoilt = pixels.copy()
        spoilt[3, 3] = value
        Image.fromarray(spoilt).save(TRAIN / f"{name}.tif")
        (TRAIN / f"{name}.png").unlink()
    code, _, err = run_cli("featurize", *QUICK, "--max-bad", "0.5")
    assert code == 4, err
    found = quarantine()
    assert found["train0"] == ("NaN or infinite pixels", "1 NaN or infinite pixels")
    assert found["train1"] == ("NaN or infinite pixels", "1 NaN or infinite pixels")
    assert found["train2"][1].endswith("to 3; expected 0 to 1")
    assert "train3" not in found
    assert "1 images: float taken as it is" in err


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    from io import BytesIO

    memory = BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


RGB = picture(1, 24)
GREY = RGB.convert("L")
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("raw", "expected", "note"),
    [
        (encoded(GREY), np.asarray(GREY), None),
        (encoded(RGB), np.asarray(RGB), None),
        (encoded(RGB.convert("P")), np.asarray(RGB.convert("P").convert("RGB")), "palette turned to RGB"),
        (encoded(RGB.convert("CMYK"), "TIFF"), np.asarray(RGB.convert("CMYK").convert("RGB")), "CMYK turned to RGB"),
        (encoded(GREY.convert("1")), np.asarray(GREY.convert("1").convert("L")), "1-bit turned to 0 and 255"),
        (encoded(Image.merge("RGBA", (*RGB.split(), GREY))), np.asarray(RGB), "alpha dropped"),
        (encoded(Image.merge("LA", (GREY, GREY))), np.asarray(GREY), "alpha dropped"),
        (encoded(RGB.transpose(Image.Transpose.ROTATE_90), "TIFF", exif=TURNED),
         np.asarray(RGB), "turned by its EXIF orientation"),
    ],
    ids=["grey", "RGB", "palette", "CMYK", "1-bit", "RGBA", "LA", "EXIF"],
)  # fmt: skip
def test_every_mode_becomes_grey_or_rgb_by_the_written_rule(raw: bytes, expected: np.ndarray, note: str | None) -> None:
    decoded = decode(raw, suffix=".png" if raw[:4] == b"\x89PNG" else ".tif")
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.notes == ((note,) if note else ())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    decoded = decode(encoded(Image.fromarray(pixels), kind), suffix=f".{kind.lower()}")
    np.testing.assert_array_equal(decoded.pixels, pixels)
    np.testing.assert_allclose(unit_range(decoded.pixels), pixels / 65535, rtol=1e-6)
    assert decoded.notes == ("16-bit divided by 65,535",)


def test_sixteen_bit_colour_is_refused_and_not_cut_to_eight() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">6H", 0x01FF, 0x01FF, 0x01FF, 0xFFFF, 0, 0)
    raw = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(row))
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(BadImage, match="16 bits a channel in one PNG of mode RGB"):
        decode(raw)


def test_32_bit_integers_and_several_pages_are_refused_with_a_reason() -> None:
    with pytest.raises(BadImage, match=r"mode 'I'; expected 8 or 16 bit"):
        decode(encoded(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF"))
    with pytest.raises(BadImage, match="2 frames or pages; expected one"):
        decode(encoded(GREY, "TIFF", save_all=True, append_images=[GREY]))


def test_the_content_decides_and_a_wrong_extension_is_counted() -> None:
    assert decode(encoded(RGB, "BMP"), suffix=".jpg").notes == ("extension says .jpg, content is BMP",)


def test_tiny_and_long_images_are_resized_as_any_other(project: Path, run_cli: Run) -> None:
    picture(1).resize((1, 1)).save(TRAIN / "train0.png")
    picture(2).resize((500, 2)).save(TRAIN / "train1.png")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert "2 images: smaller than 8 px or longer than 8:1" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_quarantined_with_its_errno(project: Path, run_cli: Run) -> None:
    (TRAIN / "train0.png").chmod(0)
    code, _, _ = run_cli("featurize", *QUICK)
    assert code == 4
    assert quarantine()["train0"] == ("unreadable", "Permission denied (errno 13)")


def test_a_file_that_vanishes_is_quarantined_with_its_errno(project: Path) -> None:
    from featurize.channels import load_image
    from featurize.manifest import list_images

    manifest = list_images(TRAIN, ids=None)
    (TRAIN / "train0.png").unlink()
    with pytest.raises(BadImage, match=r"No such file or directory \(errno 2\)"):
        load_image(TRAIN, manifest.sources[0], (), 10**6)


def test_strange_file_names_work(project: Path, run_cli: Run) -> None:
    names = ["a\nb.png", "=1+1.png", "brackets [x].png", 'comma,quote".png', "ü é.png"]
    Path("data/train.csv").unlink()
    for index, name in enumerate(names):
        picture(50 + index).save(TRAIN / name)
    with open(os.fsencode(TRAIN) + b"/not-\xff-utf8.png", "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(encoded(picture(9)))
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert {*names, "not-%FF-utf8.png"} < set(cache.ids)
        assert cache.good.all()


def test_the_same_bytes_twice_are_warned_about_as_leakage(project: Path, run_cli: Run) -> None:
    (TRAIN / "train5.png").write_bytes((TRAIN / "train0.png").read_bytes())
    Path("data/test/test0.png").write_bytes((TRAIN / "train0.png").read_bytes())
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert "1 groups of images are the same bytes, 1 of them in both train and test" in err
    assert "train:train0 = train:train5 = test:test0" in err


def test_an_id_that_fits_two_files_is_an_error(project: Path, run_cli: Run) -> None:
    picture(7).save(TRAIN / "train0.bmp")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "id 'train0' fits 2 files ('train0.bmp', 'train0.png')" in err


def test_an_empty_folder_names_extensions_and_the_nearest_images(project: Path, run_cli: Run) -> None:
    Path("empty").mkdir()
    code, _, err = run_cli("featurize", *QUICK, "--train-images", "empty")
    assert code == 2
    assert "empty: no images; looked for files that end in .png .jpg" in err
    assert "The nearest folder that holds images is" in err
    assert "/data/t" in err


def test_no_folder_at_all_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "neither data/train nor data/test exists in" in err
    code, _, err = run_cli("featurize", *QUICK, "--train-images", "nowhere")
    assert code == 2
    assert "nowhere: no such folder" in err


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.gz"])
def test_an_archive_is_to_be_unpacked_first(project: Path, run_cli: Run, name: str) -> None:
    Path("packed").mkdir()
    Path("packed", name).write_bytes(b"PK")
    code, _, err = run_cli("featurize", *QUICK, "--train-images", f"packed/{name}")
    assert code == 2
    assert "an archive: unpack it first" in err
    code, _, err = run_cli("featurize", *QUICK, "--train-images", "packed")
    assert code == 2
    assert "unpack them first" in err


TABLES = {
    "missing": (None, "nowhere.csv: no such file"),
    "empty": ("", "labels.csv: empty; expected a header row"),
    "header only": ("id,label\n", "labels.csv: only a header (id, label)"),
    "semicolons": ("id;label\ntrain0;a\n", "labels.csv:1: the columns are separated by semicolons; expected commas"),
    "tabs": ("id\tlabel\ntrain0\ta\n", "labels.csv:1: the columns are separated by tabs"),
    "ragged": ("id,label\ntrain0,a\ntrain1,b,c\n", "labels.csv:3: 3 cells; expected 2"),
    "unclosed quote": ('id,label\ntrain0,"a\ntrain1,b\n', "labels.csv:2: malformed CSV"),
    "NUL": ("id,label\ntrain0,a\ntrain\x001,b\n", "labels.csv:3: a NUL byte"),
    "not UTF-8": (b"id,label\ntrain0,\xe4\n", "labels.csv:2: byte 0xe4 is not UTF-8"),
    "blank id": ("id,label\n,a\n", "labels.csv: 1 rows without an id (lines 2)"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_cannot_be_read_is_told_by_file_and_row(project: Path, run_cli: Run, kind: str) -> None:
    content, complaint = TABLES[kind]
    name = "nowhere.csv" if content is None else "labels.csv"
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = run_cli("featurize", *QUICK, "--labels", name)
    assert code == 2
    assert complaint in err


def test_a_wrong_column_is_told_with_those_found(project: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *QUICK, "--id-column", "labels")
    assert code == 2
    assert "data/train.csv:1: no column 'labels'; found columns id, label; did you mean 'label'?" in err


def test_a_byte_order_mark_is_accepted_and_ids_stay_text(project: Path, run_cli: Run) -> None:
    rows = "id,label\n" + "".join(f"{name},a\n" for name in ("007", "1e5", "7"))
    for path in TRAIN.iterdir():
        path.unlink()
    for index, name in enumerate(("007", "1e5", "7")):
        picture(index).save(TRAIN / f"{name}.png")
    Path("data/train.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.ids == ("007", "1e5", "7")


def test_ids_and_images_must_meet_both_ways(project: Path, run_cli: Run) -> None:
    (TRAIN / "train0.png").unlink()
    picture(8).save(TRAIN / "extra.png")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "1 of 6 ids in data/train.csv have no image ('train0')" in err
    assert "1 images have no row in data/train.csv ('extra.png')" in err
    assert "--ignore-unlabelled" in err
    code, _, err = run_cli("featurize", *QUICK, "--ignore-unlabelled")
    assert code == 0
    assert "left out" in err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.ids == ("train1", "train2", "train3", "train4", "train5")


def test_a_repeated_id_is_one_image_and_a_warning(project: Path, run_cli: Run) -> None:
    with Path("data/train.csv").open("a") as file:
        file.write("train0,a\n")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert "1 rows repeat an id (first: 'train0', line 8)" in err


def channel_files(
    folder: Path, name: str, channels: tuple[str, ...] = ("er", "mt", "nucleus"), side_px: int = 30
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, channel in enumerate(channels):
        picture(hash_of(name) + index, side_px).convert("L").save(folder / f"{name}_{channel}.png")


def hash_of(name: str) -> int:
    return zlib.crc32(name.encode()) % 1000


CHANNELS = ("--pattern", "{id}_{channel}.png", "--channels", "nucleus,mt,er")


def test_channel_files_are_stacked_in_the_order_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    channel_files(TRAIN, "cell_1")
    stacked = np.stack(
        [np.asarray(Image.open(TRAIN / f"cell_1_{name}.png")) for name in ("nucleus", "mt", "er")], axis=2
    )
    Path("rgb").mkdir()
    Image.fromarray(stacked).save("rgb/cell_1.png")
    assert run_cli("featurize", *QUICK, *CHANNELS)[0] == 0
    # The random network's statistics are those of the first run's images: the same numbers, here.
    assert run_cli("featurize", *QUICK, "--train-images", "rgb", "--out", "other")[0] == 0
    with FeatureCache(Path("features/train.h5")) as one, FeatureCache(Path("other/train.h5")) as other:
        assert one.ids == ("cell_1",)
        assert one.blocks[0].recipe.channels == ("nucleus", "mt", "er")
        np.testing.assert_array_equal(one.load(), other.load())


def test_a_missing_or_unequal_channel_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("whole", "missing", "unequal"):
        channel_files(TRAIN, name)
    (TRAIN / "missing_mt.png").unlink()
    picture(1, 31).convert("L").save(TRAIN / "unequal_er.png")
    code, _, _ = run_cli("featurize", *QUICK, *CHANNELS, "--max-bad", "0.9")
    assert code == 4
    assert {name: reason for name, (_, reason) in quarantine().items()} == {
        "missing": "channel mt has no file",
        "unequal": "channel er is 31 x 31; channel nucleus is 30 x 30",
    }


class Evil:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def test_weights_that_carry_code_are_refused_and_nothing_runs(project: Path, run_cli: Run) -> None:
    torch.save({"x": Evil()}, "squeezenet1_1.pth")
    code, _, err = run_cli("featurize", "--backbone", "squeezenet1_1", "--weights", ".")
    assert code == 3
    assert "holds code beside tensors" in err
    assert "torch.save(model.state_dict(), FILE)" in err
    assert not Path("evil-was-here").exists()


def test_weights_of_another_network_or_damaged_are_told(project: Path, run_cli: Run) -> None:
    from torchvision import models

    state = models.mobilenet_v2(weights=None).state_dict()
    torch.save(state, "squeezenet1_1.pth")
    arguments = (
        "featurize",
        "--backbone",
        "squeezenet1_1",
        "--weights",
        "squeezenet1_1=squeezenet1_1.pth",
        "--size",
        "64",
    )
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert "squeezenet1_1.pth: the weights are not those of squeezenet1_1" in err
    Path("squeezenet1_1.pth").write_bytes(Path("squeezenet1_1.pth").read_bytes()[:1000])
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert "cannot be read as weights" in err
    code, _, err = run_cli("featurize", "--backbone", "resnet18", "--weights", ".")
    assert code == 2
    assert "neither resnet18.safetensors nor resnet18.pth; it holds squeezenet1_1.pth" in err


def test_a_hub_file_without_the_hash_in_its_name_is_told(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project / "hub"))
    folder = project / "hub" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"not those bytes")
    code, _, err = run_cli("featurize", "--backbone", "squeezenet1_1")
    assert code == 2
    assert "its bytes do not have the hash in its name" in err


def test_missing_weights_name_the_file_its_size_its_place_and_two_other_choices(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    code, _, err = run_cli("featurize", "--backbone", "resnet18")
    assert code == 2
    assert "put resnet18-f37072fd.pth (45 MB" in err
    assert str(project / "hub" / "hub" / "checkpoints") in err
    assert "--weights DIR" in err
    assert "--weights random" in err


FLAGS = {
    "unknown flag": (("--augmnt", "6"), "--augment"),
    "unknown backbone": (("--backbone", "resnet81", "--weights", "random"), "no backbone 'resnet81'; `cli backbones` lists them; did you mean"),
    "negative batch": (("--batch-size", "-1"), "--batch-size is -1; expected 1 or more"),
    "batch in words": (("--batch-size", "many"), "--batch-size is 'many'; expected auto or a number"),
    "negative copies": (("--augment", "-1"), "--augment is -1; expected 0 or more"),
    "bad share": (("--max-bad", "5"), "--max-bad is 5.0; expected a share from 0 to 1"),
    "unknown device": (("--device", "cdua"), "--device is 'cdua'; expected one of auto, cpu, cuda, mps; did you mean 'cuda'?"),
    "unknown dtype": (("--dtype", "int8"), "--dtype is 'int8'; expected one of float16, float32"),
    "weights of another network": (("--backbone", "resnet18", "--weights", "resnet81=x.pth"), "--weights resnet81=FILE: no such network"),
    "unknown weights": (("--weights", "imagnet"), "--weights 'imagnet'; expected imagenet, random, an existing folder, or NAME=FILE"),
    "two channels": (("--pattern", "{id}_{channel}.png", "--channels", "a,b"), "--channels names 2 (a,b); the networks take three, or one"),
    "channels alone": (("--channels", "a,b,c"), "--channels needs --pattern"),
    "no placeholder": (("--pattern", "x.png", "--channels", "a,b,c"), "expected one {id}, one {channel}"),
    "a size that a network does not take": (("--backbone", "vit_b_16", "--size", "100", "--weights", "random"), "vit_b_16 takes multiples of 16 px"),
    "an unknown config file": (("--config", "x.toml"), "x.toml: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLAGS)
def test_a_wrong_flag_is_told_with_what_is_expected(project: Path, run_cli: Run, kind: str) -> None:
    words, complaint = FLAGS[kind]
    code, _, err = run_cli("featurize", *words)
    assert code == 2
    assert complaint in err.replace("│ ", "").replace(" │", "")
    assert not Path("features").exists() or not list(Path("features").glob("*.h5"))


CONFIGS = {
    "unknown key": ("[featurize]\naugmnt = 6\n", "[featurize] has no key 'augmnt'; did you mean 'augment'?"),
    "unknown section": ("[featurise]\naugment = 6\n", "no section [featurise]"),
    "no TOML": ("augment 6\n", "cannot be read as TOML"),
    "a list for one value": ("[featurize]\naugment = [6]\n", "augment is a list; expected one value"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_wrong_word_in_permafeat_toml_is_an_error(project: Path, run_cli: Run, kind: str) -> None:
    content, complaint = CONFIGS[kind]
    Path("permafeat.toml").write_text(content)
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert complaint in err


def test_an_existing_output_that_is_not_ours_stays(project: Path, run_cli: Run) -> None:
    Path("features").mkdir()
    Path("features/train.h5").write_text("my thesis")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "features/train.h5: not a permafeat file" in err
    assert "--overwrite" in err
    assert Path("features/train.h5").read_text() == "my thesis"
    assert run_cli("featurize", *QUICK, "--overwrite")[0] == 0


def test_another_recipe_or_more_work_than_the_cache_holds_is_told_not_mixed(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    before = Path("features/train.h5").read_bytes()
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1", "--dtype", "float32")
    assert code == 2
    assert "storage: float32 asked for, float16 found" in err
    assert "Type --overwrite to compute it anew, or choose another --out" in err
    code, _, err = run_cli("featurize", *QUICK, "--augment", "3")
    assert code == 2
    assert "holds 2 views an image; 4 are asked for" in err
    assert Path("features/train.h5").read_bytes() == before
