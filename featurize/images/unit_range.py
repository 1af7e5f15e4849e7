"""Stored numbers to pixels in [0, 1], by the rule that ``--scale`` names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.scale import Scale


def unit_range(pixels: NDArray[Any], scale: Scale) -> NDArray[np.float32]:
    """Scale the pixels of one image.

    Parameters
    ----------
    pixels : uint8, uint16 or float32 array, shape (height, width, n_planes)
        As stored.
    scale : Scale

    Returns
    -------
    float32 array, same shape
        In [0, 1]. Percentiles are clipped to it, which is what they are for; where both percentiles are one value, all is 0.

    Raises
    ------
    BadImage
        If a pixel would lie outside of [0, 1] by type, or by a fixed range: nothing is clipped unasked.

    Examples
    --------
    >>> unit_range(np.array([[[0], [255]]], np.uint8), Scale.parse("dtype")).ravel().tolist()
    [0.0, 1.0]
    >>> unit_range(np.array([[[0], [1024], [4095]]], np.uint16), Scale.parse("4095")).ravel().round(3).tolist()
    [0.0, 0.25, 1.0]
    """
    if scale.kind in {"image", "channel"}:
        return _between_percentiles(pixels, scale)
    low, high = scale.low, scale.high
    if scale.kind == "dtype":
        low, high = 0.0, float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    if pixels.min() < low or pixels.max() > high:
        found = f"pixels from {pixels.min():g} to {pixels.max():g}"
        raise BadImage(Status.UNSUPPORTED, f"{found}; expected {low:g} to {high:g} (--scale)")
    values = pixels.astype(np.float32)
    if low:
        values -= np.float32(low)
    return values / np.float32(high - low)


def _between_percentiles(pixels: NDArray[Any], scale: Scale) -> NDArray[np.float32]:
    values = pixels.astype(np.float32)
    axes = (0, 1) if scale.kind == "channel" else None
    low, high = np.percentile(values, [scale.low, scale.high], axis=axes).astype(np.float32)
    is_flat = high <= low
    scaled = (values - low) / np.where(is_flat, np.float32(1), high - low)
    out: NDArray[np.float32] = np.where(is_flat, np.float32(0), scaled).clip(0, 1)
    return out
