"""Bad images and folders of them: what each gets, in words and exit code."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_data import QUICK, picture, quarantine
from inputs_data import huge_png, png_chunk
from PIL import Image

from features_cache.reader import FeatureCache
from featurize.images.bad_image import BadImage
from featurize.images.decode import decode
from featurize.images.reading import Reading
from featurize.images.scale import Scale
from featurize.images.unit_range import unit_range

Run = Callable[..., tuple[int, str, str]]
TRAIN = Path("data/train")


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
    assert found["train2"][1].endswith("to 3; expected 0 to 1 (--scale)")
    assert "train3" not in found
    assert "1 images: float pixels" in err


def test_a_12_bit_camera_in_16_bit_files_is_scaled_by_the_value_named_and_nothing_is_clipped(
    project: Path, run_cli: Run
) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (24, 24)).astype(np.uint16)
    np.testing.assert_allclose(unit_range(pixels, Scale.parse("4095")), pixels / 4095, rtol=1e-6)
    for path in sorted(TRAIN.iterdir()):
        Image.fromarray(pixels).save(path)
    pixels[2, 3] = 5000
    Image.fromarray(pixels).save(TRAIN / "train2.png")
    code, _, err = run_cli("featurize", *QUICK, "--scale", "4095")
    assert code == 4, err
    assert quarantine()["train2"][1] == f"pixels from {pixels.min()} to 5000; expected 0 to 4095 (--scale)"
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.blocks[0].recipe.scale == "4095"
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "scale" in err
    code, _, err = run_cli("featurize", *QUICK, "--scale", "auto")
    assert code == 2
    assert "--scale is 'auto'; expected dtype, the stored value that becomes 1 (4095)" in err


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
    np.testing.assert_array_equal(decoded.pixels, expected.reshape(*expected.shape[:2], -1))
    assert decoded.notes == ((note,) if note else ())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    decoded = decode(encoded(Image.fromarray(pixels), kind), suffix=f".{kind.lower()}")
    np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)
    np.testing.assert_allclose(unit_range(decoded.pixels, Scale.parse("dtype"))[..., 0], pixels / 65535, rtol=1e-6)
    assert decoded.notes == ("16 bits a channel",)


def test_without_its_reader_sixteen_bit_colour_is_refused_and_not_cut_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">6H", 0x01FF, 0x01FF, 0x01FF, 0xFFFF, 0, 0)
    raw = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(row))
        + png_chunk(b"IEND", b"")
    )
    pytest.importorskip("imagecodecs", reason="needs the extra `tiff`")
    np.testing.assert_array_equal(decode(raw).pixels, [[[0x01FF, 0x01FF, 0x01FF], [0xFFFF, 0, 0]]])
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(BadImage, match=r"16 bits a channel in one PNG of mode RGB.*pip install 'permafeat\[tiff\]'"):
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
    from featurize.images.channels import load_image
    from featurize.images.manifest import list_images

    manifest = list_images(TRAIN, ids=None)
    (TRAIN / "train0.png").unlink()
    with pytest.raises(BadImage, match=r"No such file or directory \(errno 2\)"):
        load_image(manifest.root, manifest.sources[0], Reading(scale=Scale.parse("dtype"), max_pixels=10**6))


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


@pytest.mark.parametrize("size", [(160, 40), (56, 40), (416, 8)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_ordinary_bmp_of_any_width_is_read(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    Image.new(mode, size, 7).save(tmp_path / "x.bmp")
    decoded = decode((tmp_path / "x.bmp").read_bytes(), suffix=".bmp", max_pixels=10**6)
    assert decoded.pixels.shape[:2] == size[::-1]
