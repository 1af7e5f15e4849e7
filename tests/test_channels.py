"""Channels of any microscope: files, pages and samples; blends, each channel alone, grey."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import QUICK, picture, quarantine
from PIL import Image

from features_cache.errors import ImagesMissing, OptionError
from features_cache.reader import FeatureCache
from features_cache.sources import SourceFile, sign_of_file
from featurize.images.bad_image import BadImage
from featurize.images.blends import COLOURS, parse_blends
from featurize.images.channel_files import compile_pattern
from featurize.images.channels import load_image
from featurize.images.decode import decode
from featurize.images.local_folder import LocalFolder
from featurize.images.manifest import list_images
from featurize.images.reading import Reading
from featurize.images.scale import Scale
from featurize.run import featurize
from featurize.settings import FeaturizeSettings

Run = Callable[..., tuple[int, str, str]]
TRAIN = Path("data/train")
BY_TYPE = Scale.parse("dtype")


def grey(seed: int, side_px: int = 30) -> np.ndarray:
    return np.asarray(picture(seed, side_px).convert("L"))


def source(path: Path) -> SourceFile:
    state = path.stat()
    return SourceFile(path=path.name, n_bytes=state.st_size, sign=sign_of_file(state))


def save_set(folder: Path, name: str, channels: Sequence[str], seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, channel in enumerate(channels):
        Image.fromarray(grey(seed + index)).save(folder / f"{name}_{channel}.png")


@pytest.fixture
def four_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four training and two test images of four channel files each."""
    for split, count in (("train", 4), ("test", 2)):
        for index in range(count):
            save_set(tmp_path / "data" / split, f"{split}{index}", ("red", "green", "blue", "yellow"), seed=10 * index)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = ("--pattern", "{id}_{channel}.png")


def load(name: str = "train", folder: str = "features") -> tuple[dict[str, np.ndarray], FeatureCache]:
    with FeatureCache(Path(folder) / f"{name}.h5") as cache:
        features = cache.load()
        return {block.name: features[:, :, block.start : block.stop] for block in cache.blocks}, cache


def test_each_file_is_decoded_once_however_many_blends_and_networks_see_it(
    four_channels: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def counted(raw: bytes, **how: object) -> object:
        decoded.append(len(raw))
        return decode(raw, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("featurize.images.channels.decode", counted)
    words = (*QUICK, *FILES, "--augment", "2", "--channels", "red+green+blue,yellow+blue+none,yellow")
    # The statistics of random networks take readings of their own, and are kept.
    assert run_cli("featurize", *words, "--backbone", "mnasnet0_5", "--limit", "1")[0] == 0
    decoded.clear()
    assert run_cli("featurize", *words, "--backbone", "mnasnet0_5", "--overwrite")[0] == 0
    assert len(decoded) == 4 * (4 + 2)
    assert len(load()[0]) == 6


def test_other_channel_files_than_at_first_are_told(four_channels: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, *FILES, "--channels", "red+green+blue")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, *FILES, "--channels", "yellow")
    assert code == 2
    assert "Were other channel files named then? Name the same ones again (--planes)" in err


def test_blends_are_blocks_side_by_side_and_one_may_be_left_out_at_fit_time(four_channels: Path, run_cli: Run) -> None:
    words = (*QUICK, *FILES, "--channels", "red+green+blue,yellow+blue+none,yellow")
    assert run_cli("featurize", *words)[0] == 0
    both, cache = load()
    assert list(both) == ["squeezenet1_1:red+green+blue", "squeezenet1_1:yellow+blue+none", "squeezenet1_1:yellow"]
    assert [block.recipe.channels for block in cache.blocks] == [
        ("red", "green", "blue"),
        ("yellow", "blue", "none"),
        ("yellow",),
    ]
    (four_channels / "data" / "train.csv").write_text(
        "id,label\n" + "".join(f"train{i},{'ab'[i % 2]}\n" for i in range(4))
    )
    code, _, err = run_cli("fit-heads", "--heads", "ridge", "--folds", "2", "--blocks", "squeezenet1_1:red+green+blue")
    assert code == 0, err


def test_a_blend_gives_what_an_rgb_file_of_these_channels_gives(
    four_channels: Path, real_weights: Path, run_cli: Run
) -> None:
    words = (
        "--backbone",
        "squeezenet1_1",
        "--weights",
        real_weights,
        "--size",
        "64",
        "--device",
        "cpu",
        "--augment",
        "1",
    )
    assert run_cli("featurize", *words, *FILES, "--channels", "yellow+blue+none,each")[0] == 0
    ours, _ = load()
    planes = {name: np.asarray(Image.open(TRAIN / f"train1_{name}.png")) for name in ("red", "yellow", "blue")}
    stacks = {
        "yellow+blue+none": [planes["yellow"], planes["blue"], np.zeros_like(planes["blue"])],
        "red": [planes["red"]] * 3,
    }
    for label, stack in stacks.items():
        folder = four_channels / "as" / label
        folder.mkdir(parents=True)
        Image.fromarray(np.stack(stack, axis=2)).save(folder / "train1.png")
        assert run_cli("featurize", *words, "--train-images", folder, "--test-images", folder, "--out", folder)[0] == 0
        theirs, _ = load(folder=str(folder))
        # The views' draws hang on the id, which is the file's name here.
        np.testing.assert_array_equal(ours[f"squeezenet1_1:{label}"][1, 0], theirs["squeezenet1_1"][0, 0])
    assert set(ours) == {f"squeezenet1_1:{name}" for name in ("yellow+blue+none", "blue", "green", "red", "yellow")}


def test_a_blend_added_later_is_all_that_is_computed(four_channels: Path, run_cli: Run) -> None:
    planes = ("--planes", "red,green,blue,yellow")
    first, second = "red+green+blue", "yellow+green+blue"
    assert run_cli("featurize", *QUICK, *FILES, *planes, "--channels", first)[0] == 0
    alone, _ = load()
    code, _, err = run_cli("featurize", *QUICK, *FILES, *planes, "--channels", f"{first},{second}")
    assert code == 0, err
    both, _ = load()
    np.testing.assert_array_equal(alone[f"squeezenet1_1:{first}"], both[f"squeezenet1_1:{first}"])
    assert run_cli("featurize", *QUICK, *FILES, *planes, "--channels", f"{first},{second}", "--out", "anew")[0] == 0
    anew, _ = load(folder="anew")
    np.testing.assert_array_equal(both[f"squeezenet1_1:{second}"], anew[f"squeezenet1_1:{second}"])


def test_channel_names_are_found_where_nobody_names_them(tmp_path: Path) -> None:
    for name in ("a_b [1]", "c_d"):
        save_set(tmp_path, name, ("er", "dna stain"))
    found = list_images(tmp_path, ids=None, pattern="{id}_{channel}.png")
    assert found.planes == ("dna stain", "er")
    assert list(found.ids) == ["a_b [1]", "c_d"]
    assert [file.path for file in found.sources[0]] == ["a_b [1]_dna stain.png", "a_b [1]_er.png"]
    named = list_images(tmp_path, ids=None, pattern="{id}_{channel}.png", planes=("er", "dna stain"))
    assert [file.path for file in named.sources[0]] == ["a_b [1]_er.png", "a_b [1]_dna stain.png"]


@pytest.mark.parametrize(
    ("pattern", "name", "image_id", "channel"),
    [
        ("{id}_{channel}.png", "a_b_er.png", "a_b", "er"),
        ("{channel}-{id}.tif", "w1-plate-3.tif", "plate-3", "w1"),
        ("{id}_{channel}_[*].tif", "p_C16_w1_[9AA-8C].tif", "p_C16", "w1"),
        ("{id}f00{channel}.tif", "AS_D03f00d1.tif", "AS_D03", "d1"),
        ("*/{channel}/{id}.png", "run 2/er/x.png", "x", "er"),
    ],
)
def test_a_pattern_takes_names_apart(pattern: str, name: str, image_id: str, channel: str) -> None:
    match = compile_pattern(pattern).fullmatch(name)
    assert match
    assert (match["id"], match["channel"]) == (image_id, channel)


def test_two_files_for_one_channel_are_an_error(tmp_path: Path) -> None:
    for name in ("p_w1_a.png", "p_w1_b.png", "p_w2_a.png"):
        picture(1).save(tmp_path / name)
    with pytest.raises(ImagesMissing, match=r"p_w1_a.png and p_w1_b.png are both channel w1 of 'p'"):
        list_images(tmp_path, ids=None, pattern="{id}_{channel}_*.png")


@pytest.mark.parametrize(
    ("texts", "planes", "complaint"),
    [
        (["red+gren+blue"], COLOURS, "no channel 'gren'; there are red, green, blue.*did you mean 'green'"),
        (["a", "b"], ("a", "b"), r"a\+b names 2; a network takes three \(a\+b\+none\)"),
        ([], ("a", "b", "c", "d"), "images have 4 channels .*such as a.b.c, each, or adapt"),
        (["a+b+c", "a+b+c"], ("a", "b", "c"), r"names 'a\+b\+c' twice"),
        (["none+none+none"], COLOURS, "names 3"),
        (["each"], ("a", "each"), "a channel is named 'each'"),
        (["each"], tuple("abcdefghijklm"), "13 channels .*expected 1 to 12"),
    ],
)
def test_blends_that_make_no_sense_are_told(texts: list[str], planes: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        parse_blends(texts, planes)


def encoded_pages(pages: Sequence[np.ndarray], **options: object) -> bytes:
    first, *rest = [Image.fromarray(page) for page in pages]
    out = io.BytesIO()
    first.save(out, "TIFF", save_all=True, append_images=rest, **options)
    return out.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_planes_where_they_are_named(dtype: type) -> None:
    pages = [grey(seed).astype(dtype) * (257 if dtype is np.uint16 else 1) for seed in range(5)]
    decoded = decode(encoded_pages(pages), suffix=".tif", n_planes=5)
    np.testing.assert_array_equal(decoded.pixels, np.stack(pages, axis=2))
    np.testing.assert_array_equal(decode(encoded_pages(pages), frame=3).pixels[..., 0], pages[3])
    with pytest.raises(BadImage, match=r"5 frames or pages; expected one\. --frame N takes one, --planes names them"):
        decode(encoded_pages(pages))
    with pytest.raises(BadImage, match="5 frames or pages; expected 4 planes"):
        decode(encoded_pages(pages), n_planes=4)
    with pytest.raises(BadImage, match="5 planes; expected 6"):
        decode(encoded_pages(pages), n_planes=6)
    with pytest.raises(BadImage, match="--frame 5 counts from 0"):
        decode(encoded_pages(pages), frame=5)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(("n_samples", "dtype"), [(3, "uint16"), (5, "uint8"), (4, "float32"), (12, "uint16")])
def test_samples_of_a_pixel_are_planes_too(planar: str, n_samples: int, dtype: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the extra `tiff`")
    draw = np.random.default_rng(0)
    pixels = (draw.random((20, 31, n_samples)) * (1 if dtype == "float32" else 255)).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    out = io.BytesIO()
    tifffile.imwrite(out, stored, planarconfig=planar, photometric="rgb" if n_samples == 3 else "minisblack")
    decoded = decode(out.getvalue(), suffix=".tif", n_planes=n_samples)
    np.testing.assert_array_equal(decoded.pixels, pixels)


def test_an_ome_tiff_of_four_channels_becomes_four_planes(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the extra `tiff`")
    pages = np.stack([grey(seed).astype(np.uint16) * 16 for seed in range(4)])
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(
        path, pages, metadata={"axes": "CYX", "Channel": {"Name": ["a", "b", "c", "d"]}}, compression="zlib"
    )
    reading = Reading(planes=("a", "b", "c", "d"), scale=Scale.parse("4095"), max_pixels=10**6)
    loaded = load_image(LocalFolder(tmp_path), (source(path),), reading)
    np.testing.assert_allclose(loaded.pixels, np.moveaxis(pages, 0, 2) / 4095, rtol=1e-6)


def test_a_multi_page_project_runs_end_to_end_and_a_file_of_fewer_pages_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    TRAIN.mkdir(parents=True)
    for index in range(5):
        pages = [grey(10 * index + page) for page in range(4 if index != 3 else 3)]
        (TRAIN / f"i{index}.tif").write_bytes(encoded_pages(pages))
    code, _, err = run_cli("featurize", *QUICK, "--planes", "dna,er,mt,prot", "--channels", "each,mt+prot+dna")
    assert code == 4, err
    assert quarantine()["i3.tif"][1] == "3 planes; expected 4, as --planes names"
    blocks, cache = load()
    assert list(blocks) == [f"squeezenet1_1:{name}" for name in ("dna", "er", "mt", "prot", "mt+prot+dna")]
    assert cache.blocks[-1].recipe.places == (2, 3, 0), "names of pages are the user's: their places are what counts"


def test_percentiles_of_an_image_or_of_a_channel_become_0_and_1(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    planes = {
        "a": draw.integers(100, 600, (40, 30)),
        "b": draw.integers(1000, 60000, (40, 30)),
        "c": np.full((40, 30), 7),
    }
    for name, plane in planes.items():
        Image.fromarray(plane.astype(np.uint16)).save(tmp_path / f"x_{name}.png")
    manifest = list_images(tmp_path, ids=None, pattern="{id}_{channel}.png")
    stack = np.stack([planes[name] for name in "abc"], axis=2).astype(np.float64)
    for kind, axes in (("image", None), ("channel", (0, 1))):
        reading = Reading(planes=("a", "b", "c"), by_file=True, scale=Scale.parse(f"{kind}:2:98"), max_pixels=10**6)
        low, high = np.percentile(stack, [2, 98], axis=axes)
        expected = np.clip((stack - low) / np.where(high > low, high - low, np.inf), 0, 1)
        loaded = load_image(manifest.root, manifest.sources[0], reading)
        np.testing.assert_allclose(loaded.pixels, expected, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["auto", "-5", "9:3", "image", "image:5", "image:50:20", "channel:1:101", "1:2:3", "nan", ""]
)
def test_a_scale_that_is_none_is_told_with_all_forms(text: str) -> None:
    with pytest.raises(OptionError, match=r"--scale is .*expected dtype.*4095.*200:4095.*image:1:99.*channel:1:99"):
        Scale.parse(text)


def test_the_data_set_s_statistics_are_those_of_all_training_pixels_and_test_images_do_not_move_them(
    four_channels: Path, run_cli: Run
) -> None:
    words = (*QUICK, *FILES, "--channels", "red+green+blue,each", "--normalise", "dataset")
    assert run_cli("featurize", *words)[0] == 0
    _, cache = load()
    # 30 px squares become 64 px ones; statistics are of what the networks see.
    stacks = {
        name: torch.stack(
            [
                torch.nn.functional.interpolate(
                    torch.from_numpy(np.asarray(Image.open(TRAIN / f"train{index}_{name}.png"), np.float32) / 255)[None, None],
                    size=(64, 64), mode="bilinear", antialias=True, align_corners=False,
                )
                for index in range(4)
            ]
        ).double()
        for name in ("red", "green", "blue", "yellow")
    }  # fmt: skip
    for block in cache.blocks:
        names = block.recipe.channels if len(block.recipe.channels) == 3 else block.recipe.channels * 3
        np.testing.assert_allclose(block.recipe.mean, [float(stacks[name].mean()) for name in names], rtol=1e-5)
        np.testing.assert_allclose(
            block.recipe.std, [float(stacks[name].std(correction=0)) for name in names], rtol=1e-4
        )
    recipes = [block.recipe for block in cache.blocks]
    for index in range(2):
        save_set(Path("data/test"), f"test{index}", ("red", "green", "blue", "yellow"), seed=777)
    assert run_cli("featurize", *words, "--out", "other")[0] == 0
    _, other = load(folder="other")
    _, other_test = load("test", "other")
    assert [block.recipe for block in other.blocks] == [block.recipe for block in other_test.blocks] == recipes


def test_the_data_set_s_statistics_stay_as_they_were_when_it_is_extended(four_channels: Path, run_cli: Run) -> None:
    words = (*QUICK, *FILES, "--channels", "red+green+blue", "--normalise", "dataset")
    assert run_cli("featurize", *words)[0] == 0
    _, before = load()
    save_set(TRAIN, "train9", ("red", "green", "blue", "yellow"), seed=555)
    code, _, err = run_cli("featurize", *words)
    assert code == 0, err
    _, after = load()
    assert after.ids == (*before.ids, "train9")
    assert after.blocks[0].recipe == before.blocks[0].recipe
    assert run_cli("featurize", *words, "--overwrite")[0] == 0
    _, anew = load()
    assert anew.blocks[0].recipe.mean != before.blocks[0].recipe.mean


def test_without_training_images_there_are_no_statistics_to_take(four_channels: Path, run_cli: Run) -> None:
    for path in TRAIN.iterdir():
        path.unlink()
    TRAIN.rmdir()
    code, _, err = run_cli("featurize", *QUICK, *FILES, "--channels", "red,green,blue", "--normalise", "dataset")
    assert code == 2
    assert "--normalise dataset takes the statistics of the training images; featurize these first" in err


def test_real_tiffs_and_pngs_of_16_bits_are_read_as_tifffile_and_imagecodecs_read_them(real_data: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the extra `tiff`")
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs the extra `tiff`")
    paths = [path for path in sorted((real_data / "tiff").rglob("*")) if path.suffix.lower() in {".tif", ".png"}]
    seen = set()
    for path in paths:
        raw = path.read_bytes()
        if path.suffix == ".png":
            expected = imagecodecs.png_decode(raw)
            seen.add(("PNG", str(expected.dtype)))
        else:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                expected = page.asarray()
                seen.add((file.byteorder, page.photometric.name, str(expected.dtype)))
                if page.photometric.name == "PALETTE":
                    expected = np.moveaxis(page.colormap[:, expected] >> 8, 0, -1)
        np.testing.assert_array_equal(decode(raw, suffix=path.suffix).pixels.squeeze(), expected, err_msg=path.name)
    assert len(paths) == 27
    assert seen == {
        ("PNG", "uint16"), ("<", "PALETTE", "uint8"), ("<", "MINISBLACK", "uint8"), ("<", "MINISBLACK", "uint16"), (">", "MINISBLACK", "uint16"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "pattern", "planes"),
    [
        ("ExampleHuman", "{id}f00{channel}.tif", ("d0", "d1", "d2")),
        ("ExampleFly", "{id}_{channel}.TIF", ("D", "F", "R")),
        ("ExampleStraightenWorms", "{id}_{channel}_[*].tif", ("w1", "w2", "w3")),
        ("ExampleColocalization", "{id}_{channel}.png", ("G", "R")),
    ],
)
def test_real_channel_sets_are_found_and_read(
    real_data: Path, tmp_path: Path, folder: str, pattern: str, planes: tuple[str, ...]
) -> None:
    settings = FeaturizeSettings(
        train_images=real_data / "tiff" / folder / "images", out=tmp_path, pattern=pattern, channels=("each",), backbones=("squeezenet1_1",),
        weights=("random",), size_px=64, device="cpu", scale="channel:0.1:99.9",
    )  # fmt: skip
    featurize(settings)
    with FeatureCache(tmp_path / "train.h5") as cache:
        assert [block.recipe.channels for block in cache.blocks] == [(name,) for name in planes]
        assert cache.good.all()
        features = cache.load()
    parts = [features[:, :, block.start : block.stop] for block in cache.blocks]
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(parts, 2))


def test_adapt_shows_a_network_all_channels_at_once_and_equal_ones_as_it_would_grey(
    four_channels: Path, real_weights: Path, run_cli: Run
) -> None:
    for name in ("green", "blue", "yellow"):
        (TRAIN / f"train0_{name}.png").write_bytes((TRAIN / "train0_red.png").read_bytes())
    words = (
        "--backbone",
        "squeezenet1_1,mobilenet_v2",
        "--weights",
        real_weights,
        "--size",
        "64",
        "--device",
        "cpu",
        "--precision",
        "float32",
    )
    code, _, err = run_cli("featurize", *words, *FILES, "--channels", "adapt,red", "--augment", "1")
    assert code == 0, err
    blocks, cache = load()
    assert list(blocks) == ["squeezenet1_1:adapt", "squeezenet1_1:red", "mobilenet_v2:adapt", "mobilenet_v2:red"]
    recipe = cache.blocks[0].recipe
    assert (len(recipe.mean), recipe.channels) == (4, ("blue", "green", "red", "yellow"))
    assert recipe.first_layer == "weights repeated over 4 channels, each divided by how often"
    for network in ("squeezenet1_1", "mobilenet_v2"):
        wide, alone = blocks[f"{network}:adapt"], blocks[f"{network}:red"]
        scale = np.abs(alone).max()
        # The same but for the normalisation, whose fourth channel is red's again: grey values are equal, means are by place.
        np.testing.assert_allclose(wide[0] / scale, alone[0] / scale, atol=2e-3)
        assert np.abs(wide[1] - alone[1]).max() / scale > 0.05, "where channels differ, all of them count"
