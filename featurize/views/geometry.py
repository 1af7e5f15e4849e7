"""From an image of any size to the square that networks see, and the squares that are cut from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features_cache.recipe import Recipe


class Square(NamedTuple):
    """What every image becomes before views are made of it.

    Parameters
    ----------
    fit : str
        ``stretch``: both sides resized, the aspect not kept. ``crop``: the shorter side resized, the middle of the longer one
        kept. ``pad``: zeros beside the shorter side, then resized.
    side_px : int
        Its side.
    """

    fit: str
    side_px: int


def square_of(recipe: Recipe) -> Square:
    """Return the square that a block's views are made of."""
    return Square(recipe.fit, recipe.resize_px or recipe.size_px)


def as_planes(pixels: NDArray[np.float32] | NDArray[np.uint8]) -> Tensor:
    """Turn an array of shape (height, width, n_planes) into a tensor of shape (n_planes, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_square(image: Tensor, square: Square) -> Tensor:
    """Fit an image into a square, bilinear with antialiasing.

    Parameters
    ----------
    image : float32 tensor on any device, shape (n_planes, height, width)
    square : Square

    Returns
    -------
    float32 tensor on that device, shape (n_planes, side_px, side_px)
    """
    side_px = square.side_px
    height, width = image.shape[1:]
    if square.fit == "pad" and height != width:
        more = abs(height - width)
        before, after = more // 2, more - more // 2
        image = torch.nn.functional.pad(image, (0, 0, before, after) if width > height else (before, after, 0, 0))
    if square.fit == "crop" and height != width:
        # As torchvision's Resize and CenterCrop, so that networks see what they were evaluated on.
        shorter = min(height, width)
        resized = _resized(image, side_px * height // shorter, side_px * width // shorter)
        return _cut(resized, side_px, *(round((side - side_px) / 2) for side in resized.shape[1:])).contiguous()
    return _resized(image, side_px, side_px)


def cut_crops(views: Tensor, size_px: int, n_crops: int) -> list[Tensor]:
    """Cut what a network is given from views.

    Parameters
    ----------
    views : float32 tensor, shape (n, n_planes, side, side)
    size_px : int
        Side of the crops.
    n_crops : int
        1, the middle; or 5, with the four corners (Krizhevsky et al., 2012, without the mirrored ones).

    Returns
    -------
    list of float32 tensor, shape (n, n_planes, size_px, size_px)
    """
    rest = views.shape[-1] - size_px
    if not rest and n_crops == 1:
        return [views]
    middle = round(rest / 2)
    corners = [(0, 0), (0, rest), (rest, 0), (rest, rest)] if n_crops > 1 else []
    return [_cut(views, size_px, top, left) for top, left in [(middle, middle), *corners]]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(
        image[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0]


def _cut(images: Tensor, side_px: int, top: int, left: int) -> Tensor:
    return images[..., top : top + side_px, left : left + side_px]
