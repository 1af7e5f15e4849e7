"""What in a plane is brighter than its background, however unevenly it is lit and however noisy it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features_cache.extras import load_extra

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SURE = 4.0
"""Deviations of the noise above which a smoothed pixel counts as bright; the background's own pixels do so once in 30,000."""
_ROUNDING = 1e-5
_FITTED_SQUARES = 4096
_SQUARE_PX = 4
_FIT_ROUNDS = 30
_TILES = 6
_LOCAL_REACH = 1.5
"""Over how many diameters the background is averaged."""
_HOT = 8.0
"""How many times the mean distance from its neighbours' median makes a pixel a fault of the camera."""


@dataclasses.dataclass(frozen=True, slots=True)
class Foreground:
    """A plane above its background.

    Parameters
    ----------
    height : float32 array, shape (height, width)
        Brightness above the background around, in the plane's units.
    noise : float
        Standard deviation of the height where there is only background.
    threshold : float
        Otsu's, and above the noise.
    unevenness : float
        How far the background's brightest and darkest place lie apart.
    """

    height: Plane
    noise: float
    threshold: float
    unevenness: float


def foreground(plane: Plane, *, smooth_px: float, diameter_px: float, share_of_otsu: float) -> Foreground:
    """Take the background of a plane away, smooth it and say from where on it is bright.

    The background is a polynomial of degree 2, which a lamp's unevenness is close to, fitted to what is not bright; then what is
    left of it is averaged around every pixel over what is not bright there. The threshold is Otsu's (1979), on the square root of
    the heights: their noise then hardly depends on their brightness (Bartlett, 1936), and few very bright nuclei do not outvote
    many dim ones.

    Parameters
    ----------
    plane : float32 array, shape (height, width)
        Finite.
    smooth_px : float
        Deviation of the Gaussian that smoothes.
    diameter_px : float
        Of what is looked for; the background is not followed below this scale.
    share_of_otsu : float
        The part of Otsu's threshold that is enough.

    Returns
    -------
    Foreground
    """
    background = _even_background(plane)
    # Before it is smoothed: a filter bends a slope at the picture's border, and what is bent looks bright.
    height = ndimage.gaussian_filter(plane - background, smooth_px)
    bright = height > max(otsu(height), _SURE * noise_below(height))
    height -= _local_background(height, bright, diameter_px)
    # A picture without noise still has rounding, which must not count as light.
    noise = max(noise_below(height), _ROUNDING * float(np.ptp(plane)))
    threshold = max(share_of_otsu * otsu(height), _SURE * noise)
    return Foreground(height, noise, threshold, float(np.ptp(background)))


def in_own_unit(plane: Plane) -> Plane:
    """Divide a plane by the power of two that brings its range to between 1/2 and 1: whatever its unit, nothing under- or overflows.

    Examples
    --------
    >>> in_own_unit(np.float32([0, 3000])).tolist()
    [0.0, 0.732421875]
    """
    # A power of two changes no digit: planes that differ by one give the same cells to the pixel.
    return np.ldexp(plane, -int(np.frexp(np.ptp(plane))[1]))


def noise_below(height: Plane) -> float:
    """Return the root mean square of what lies below 0: the noise of a background at 0, whatever shines above it."""
    below = height[height <= 0]
    return float(np.sqrt(np.mean(below**2))) if below.size else 0.0


def without_hot_pixels(plane: Plane) -> Plane:
    """Replace single pixels far from the median of their neighbours by it."""
    median = ndimage.median_filter(plane, 3)
    away = np.abs(plane - median)
    return np.where(away > _HOT * away.mean(), median, plane)


def shrink(plane: Plane, factor: int) -> Plane:
    """Average squares of pixels; those at the far edges are completed by repeating the edge.

    Examples
    --------
    >>> shrink(np.float32([[0, 2, 4], [2, 4, 6]]), 2).tolist()
    [[2.0, 5.0]]
    """
    if factor == 1:
        return plane
    padded = np.pad(plane, [(0, -size % factor) for size in plane.shape], mode="edge")
    rows, columns = (size // factor for size in padded.shape)
    averaged: Plane = padded.reshape(rows, factor, columns, factor).mean((1, 3), dtype=np.float32)
    return averaged


def enlarge(field: Plane, factor: int, shape: tuple[int, ...]) -> Plane:
    """Undo :func:`shrink` by linear interpolation, and cut to the shape that was shrunk."""
    if factor == 1:
        return field
    enlarged: Plane = ndimage.zoom(field, factor, order=1, grid_mode=True, mode="nearest")
    return enlarged[: shape[0], : shape[1]]


def otsu(height: Plane) -> float:
    """Return Otsu's threshold (1979), found on the square root of the heights; see :func:`foreground`."""
    filters = load_extra("skimage.filters", "cells")
    return float(filters.threshold_otsu(np.sqrt(np.maximum(height, 0)))) ** 2


def _even_background(plane: Plane) -> Plane:
    """Fit a polynomial of degree 2 to what is not bright, found again and again by the fit itself."""
    # Means of squares: of a camera's darkest values, cut off at 0, many would be the same.
    square = _SQUARE_PX if min(plane.shape) >= 8 * _SQUARE_PX else 1
    step = max(1, int(np.sqrt(plane.size / _FITTED_SQUARES)) // square)
    seen = shrink(plane, square)[::step, ::step].astype(np.float64)
    down, across = (
        (2 * (np.arange(n_squares) * step * square + (square - 1) / 2) / size - 1)
        for n_squares, size in zip(seen.shape, plane.shape, strict=True)
    )
    terms, values = _terms(down[:, None], across[None, :]), seen.ravel()
    kept = _darkest_of_tiles(seen).ravel()
    weights: NDArray[Any] = np.zeros(terms.shape[1])
    for _ in range(_FIT_ROUNDS):
        # Six unknowns over [-1, 1]: the normal equations are sound, and a hundred times cheaper than the tall system.
        of_kept = terms * kept[:, None]
        weights = np.linalg.lstsq(of_kept.T @ terms, of_kept.T @ values, rcond=None)[0]
        left = values - terms @ weights
        below = left[left <= 0]
        # The deviation comes from below alone, where no cell shines: cells would raise it until all of them were kept.
        now = left < _ROUNDING * np.ptp(values) + (2 * np.sqrt(np.mean(below**2)) if below.size else 0)
        if (now == kept).all():
            break
        kept = now
    down, across = (2 * np.arange(size) / size - 1 for size in plane.shape)
    constant, by_row, by_column, by_row_2, by_both, by_column_2 = weights
    fitted: NDArray[np.float64] = (constant + by_row * down + by_row_2 * down**2)[:, None] + (
        by_column * across + by_column_2 * across**2
    )
    background: Plane = (fitted + by_both * down[:, None] * across).astype(np.float32)
    return background


def _darkest_of_tiles(seen: NDArray[np.float64]) -> Mask:
    """Choose the darkest fifth of each part of a picture: to begin with all of it would take dense cells for the background."""
    chosen = np.zeros(seen.shape, bool)
    for rows in np.array_split(np.arange(seen.shape[0]), _TILES):
        for columns in np.array_split(np.arange(seen.shape[1]), _TILES):
            tile = np.ix_(rows, columns)
            if rows.size and columns.size:
                chosen[tile] = seen[tile] <= np.quantile(seen[tile], 0.2)
    return chosen


def _terms(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    r, c = (values.ravel() for values in np.broadcast_arrays(rows, columns))
    return np.stack([np.ones_like(r), r, c, r**2, r * c, c**2], axis=1)


def _local_background(height: Plane, bright: Mask, diameter_px: float) -> Plane:
    """Average what is not bright around every pixel; far from all such it falls to 0, which is the polynomial's."""
    widened = ndimage.maximum_filter(bright, 2 * max(1, int(diameter_px / 6)) + 1)
    # Every quarter of a diameter is enough for a mean over one and a half, and sixteenfold cheaper or more.
    step = max(1, int(diameter_px / 4))
    free = shrink((~widened).astype(np.float32), step)
    sums = shrink(np.where(widened, np.float32(0), height), step)
    reach = _LOCAL_REACH * diameter_px / step
    free, sums = (ndimage.gaussian_filter(values, reach, truncate=3) for values in (free, sums))
    return enlarge(sums / (free + 0.02), step, height.shape)
