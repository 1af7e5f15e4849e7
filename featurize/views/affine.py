"""Seeded views: what each copy draws, the affine map that it makes, and the one bilinear resampling of it.

An image's views depend on (seed, image id, view) alone, never on a worker, a batch or a run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FILL = "reflect"
_SYMMETRIES = ([[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]])  # but for signs


def view_rng(seed: int, image_id: str, view: int, term: str = "") -> np.random.Generator:
    """Return the source of randomness of one term of one view of one image.

    Parameters
    ----------
    seed : int
        The run's seed.
    image_id : str
        The image.
    view : int
        1 or more; view 0 is the image itself and draws nothing.
    term : str
        What draws. Flips and the turn share the stream without a name; every other term has its own, so that no term moves
        another's numbers.

    Returns
    -------
    numpy Generator (Philox)
        Keyed with blake2b-128 of the four: the same on every machine.
    """
    text = "\x00".join([str(seed), str(view), image_id, *([term] if term else [])])
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), "<u8")
    return np.random.Generator(np.random.Philox(key=key))


def drawn(seed: int, image_id: str, view: int) -> tuple[bool, bool, float]:
    """Draw a view's horizontal flip, vertical flip, and angle in radians, counted from x to y (clockwise on a screen).

    All three are drawn whichever of them are used: the angle is the same with and without flips.
    """
    rng = view_rng(seed, image_id, view)
    return bool(rng.random() < 0.5), bool(rng.random() < 0.5), float(rng.uniform(-math.pi, math.pi))


def affine(
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    cos: float = 1.0,
    sin: float = 0.0,
    skew: float = 0.0,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """Compose the map from a view's coordinates to the image's, both from -1 to 1, x to the right and y down.

    The picture is flipped, turned, skewed, zoomed and shifted, in this order; read backwards, from the view to the image,
    ``x_image = F R K^-1 (x_view - 2 t) / zoom``, with ``F = diag(+-1, +-1)``, ``R = [[cos, -sin], [sin, cos]]``,
    ``K = [[1, skew], [0, 1]]`` and ``t`` the shift. Sampled backwards, as by Jaderberg et al. (2015).

    Parameters
    ----------
    flip_x, flip_y : bool
        Mirrored left to right, top to bottom.
    cos, sin : float
        Of the angle, counted from x to y.
    skew : float
        How far a point moves to the right for each unit that it lies below the middle: the tangent of the skew's angle.
    zoom : float
        Above 1 the picture grows.
    shift : tuple of float
        To the right and down, as shares of the side.

    Returns
    -------
    float32 array, shape (2, 3)
        The affine matrix that ``torch.nn.functional.affine_grid`` takes.

    Examples
    --------
    >>> affine(flip_x=True, zoom=2.0).tolist()
    [[-0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    sign_x, sign_y = (-1.0 if flip else 1.0 for flip in (flip_x, flip_y))
    x_x, x_y = sign_x * cos / zoom, sign_x * (-sin - cos * skew) / zoom
    y_x, y_y = sign_y * sin / zoom, sign_y * (cos - sin * skew) / zoom
    right, down = (2.0 * share for share in shift)
    # A bare minus would make -0.0 of every view without a shift.
    return np.array(
        [[x_x, x_y, 0.0 - x_x * right - x_y * down], [y_x, y_y, 0.0 - y_x * right - y_y * down]], np.float32
    )


def warp(images: Tensor, matrices: Sequence[NDArray[np.float32]]) -> Tensor:
    """Make one view of each image by a single bilinear resampling, or, where it is one of the square's symmetries, by none.

    Parameters
    ----------
    images : float32 tensor, shape (views, planes, side, side)
        One source a view. Not changed.
    matrices : sequence of float32 array, shape (2, 3), length views
        From :func:`affine`.

    Returns
    -------
    float32 tensor, shape (views, planes, side, side)
        Beyond the border the image is mirrored, the border pixel included. Flips and quarter turns alone move pixels, and
        change none.
    """
    others = [index for index, matrix in enumerate(matrices) if not _is_symmetry(matrix)]
    if len(others) == len(matrices):
        return _resampled(images, matrices)
    views = torch.empty_like(images)
    for index in sorted(set(range(len(matrices))) - set(others)):
        views[index] = _moved(images[index], matrices[index])
    if others:
        chosen = torch.tensor(others, device=images.device)
        views[chosen] = _resampled(images[chosen], [matrices[index] for index in others])
    return views


def _resampled(images: Tensor, matrices: Sequence[NDArray[np.float32]]) -> Tensor:
    maps = torch.from_numpy(np.stack(matrices)).to(images.device)
    grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _is_symmetry(matrix: NDArray[np.float32]) -> bool:
    """Whether a map only permutes and mirrors the axes."""
    return np.abs(matrix).tolist() in _SYMMETRIES


def _moved(image: Tensor, matrix: NDArray[np.float32]) -> Tensor:
    """Permute and mirror the axes of one image, shape (planes, side, side)."""
    if matrix[0, 0] == 0:
        image, matrix = image.transpose(1, 2), matrix[::-1]
    # Rows of the view are mirrored where y of the image, or after an exchange x, runs against y of the view.
    mirrored = [axis for axis, sign in ((1, matrix[1, 1]), (2, matrix[0, 0])) if sign < 0]
    return image.flip(mirrored)
