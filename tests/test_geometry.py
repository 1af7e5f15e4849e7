"""From images of any shape to the squares that networks see, against torchvision and numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import QUICK, picture
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from features_cache.reader import FeatureCache
from featurize.views.geometry import Square, as_planes, cut_crops, to_square

Run = Callable[..., tuple[int, str, str]]


def pixels(width: int, height: int, n_planes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(width * height)
    return rng.random((height, width, n_planes)).astype(np.float32)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (61, 40), (40, 97), (33, 34), (500, 20)])
@pytest.mark.parametrize("n_planes", [1, 3, 5])
def test_crop_is_torchvision_s_resize_and_centre_crop(width: int, height: int, n_planes: int) -> None:
    image = pixels(width, height, n_planes)
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())
    resized = tv.resize(planes, [32], InterpolationMode.BILINEAR, antialias=True)
    square = to_square(as_planes(image), Square("crop", 32))
    torch.testing.assert_close(square, tv.center_crop(resized, [32, 32]), atol=1e-6, rtol=0)
    (inner,) = cut_crops(square[None], 24, 1)
    torch.testing.assert_close(inner[0], tv.center_crop(resized, [24, 24]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), [(40, 31), (31, 40), (20, 20)])
def test_pad_keeps_the_aspect_and_adds_zeros_on_both_sides(width: int, height: int) -> None:
    image = pixels(width, height)
    side = max(width, height)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side, 3), np.float32)
    padded[top : top + height, left : left + width] = image
    np.testing.assert_array_equal(to_square(as_planes(image), Square("pad", side)), padded.transpose(2, 0, 1))
    torch.testing.assert_close(
        to_square(as_planes(image), Square("pad", 16)),
        to_square(as_planes(padded), Square("stretch", 16)),
        atol=1e-6,
        rtol=0,
    )


def test_five_crops_are_torchvision_s() -> None:
    views = torch.from_numpy(pixels(50, 50).transpose(2, 0, 1).copy())[None]
    top_left, top_right, bottom_left, bottom_right, middle = tv.five_crop(views, [32, 32])
    ours = cut_crops(views, 32, 5)
    for mine, theirs in zip(ours, (middle, top_left, top_right, bottom_left, bottom_right), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_features_of_five_crops_are_the_mean_of_each_crop_s(project: Path, real_weights: Path, run_cli: Run) -> None:
    words = (
        "--backbone",
        "squeezenet1_1",
        "--weights",
        real_weights,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--dtype",
        "float32",
    )
    assert run_cli("featurize", *words, "--size", "64", "--resize", "80", "--crops", "5")[0] == 0
    whole = to_square(as_planes(np.asarray(picture(2), np.float32) / 255), Square("stretch", 80))
    parts = []
    for index, crop in enumerate(cut_crops(whole[None], 64, 5)):
        folder = project / "crops" / str(index)
        folder.mkdir(parents=True)
        # As float TIFFs, a file a colour, so that no rounding to 8 bits stands between.
        for name, plane in zip("rgb", crop[0].numpy(), strict=True):
            Image.fromarray(plane.clip(0, 1)).save(folder / f"x_{name}.tif")
        asked = ("--train-images", folder, "--test-images", folder, "--out", folder, "--size", "64")
        assert run_cli("featurize", *words, *asked, "--pattern", "{id}_{channel}.tif", "--channels", "r,g,b")[0] == 0
        with FeatureCache(folder / "train.h5") as cache:
            parts.append(cache.load()[0, 0])
    with FeatureCache(Path("features/train.h5")) as cache:
        recipe, features = cache.blocks[0].recipe, cache.load()[2, 0]
    assert (recipe.size_px, recipe.resize_px, recipe.crops) == (64, 80, 5)
    np.testing.assert_allclose(features, np.mean(parts, axis=0), rtol=2e-4, atol=2e-4)


def test_what_cannot_be_cut_is_refused(project: Path, run_cli: Run) -> None:
    assert "expected at least as much as is cut from it" in run_cli("featurize", *QUICK, "--resize", "32")[2]
    assert "add --resize, such as --resize 256" in run_cli("featurize", *QUICK, "--crops", "5")[2]
    assert "--crops is '3'; expected one of 1, 5" in run_cli("featurize", *QUICK, "--crops", "3")[2]
    assert (
        "--fit is 'crp'; expected one of stretch, crop, pad; did you mean 'crop'?"
        in run_cli("featurize", *QUICK, "--fit", "crp")[2]
    )


def test_another_geometry_is_another_recipe(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    for words, field in ((("--fit", "pad"), "fit"), (("--resize", "80"), "resize_px")):
        code, _, err = run_cli("featurize", *QUICK, *words)
        assert code == 2
        assert f"{field}: " in err
