"""Seeded views: which flips and which turn each copy gets, and the one bilinear warp that makes it.

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

AUGMENTATION = ("horizontal flip p=0.5", "vertical flip p=0.5", "rotation uniform in +-180 degrees")
FILL = "reflect"


def view_rng(seed: int, image_id: str, view: int) -> np.random.Generator:
    """Return the source of randomness of one view of one image.

    Parameters
    ----------
    seed : int
        The run's seed.
    image_id : str
        The image.
    view : int
        1 or more; view 0 is the image itself and draws nothing.

    Returns
    -------
    numpy Generator (Philox)
        Keyed with blake2b-128 of the three: the same on every machine.
    """
    text = f"{seed}\x00{view}\x00{image_id}".encode()
    key = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), "<u8")
    return np.random.Generator(np.random.Philox(key=key))


def view_matrix(seed: int, image_id: str, view: int) -> NDArray[np.float32]:
    """Draw the map from a view's coordinates to the image's.

    Flips come first, then the turn by an angle ``a``: ``x_image = F R(a) x_view`` in coordinates from -1 to 1.

    Parameters
    ----------
    seed, image_id, view
        As :func:`view_rng`.

    Returns
    -------
    float32 array, shape (2, 3)
        The affine matrix that ``torch.nn.functional.affine_grid`` takes. The identity for view 0.

    Examples
    --------
    >>> view_matrix(0, "a", 0).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if view == 0:
        return np.eye(2, 3, dtype=np.float32)
    flip_x, flip_y, angle = drawn(seed, image_id, view)
    sign_x, sign_y = (-1.0 if flip else 1.0 for flip in (flip_x, flip_y))
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[sign_x * cos, -sign_x * sin, 0], [sign_y * sin, sign_y * cos, 0]], np.float32)


def drawn(seed: int, image_id: str, view: int) -> tuple[bool, bool, float]:
    """Draw a view's horizontal flip, vertical flip, and angle in radians, counted from x to y (clockwise on a screen)."""
    rng = view_rng(seed, image_id, view)
    return bool(rng.random() < 0.5), bool(rng.random() < 0.5), float(rng.uniform(-math.pi, math.pi))


def warp(images: Tensor, matrices: Tensor, is_identity: Sequence[bool]) -> Tensor:
    """Make one view of each image by a single bilinear resampling.

    Parameters
    ----------
    images : float32 tensor, shape (views, 3, side, side)
        One source a view.
    matrices : float32 tensor, shape (views, 2, 3)
        From :func:`view_matrix`.
    is_identity : sequence of bool, length views
        Which views are the image itself; they are not resampled.

    Returns
    -------
    float32 tensor, shape (views, 3, side, side)
        Beyond the border the image is mirrored, the border pixel included.
    """
    turned = [index for index, same in enumerate(is_identity) if not same]
    if not turned:
        return images
    chosen = torch.tensor(turned, device=images.device)
    grid = torch.nn.functional.affine_grid(matrices[chosen], [len(turned), *images.shape[1:]], align_corners=False)
    views = images.clone()
    views[chosen] = torch.nn.functional.grid_sample(
        images[chosen], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return views
