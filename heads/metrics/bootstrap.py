"""The bootstrap: how often each image stands in each resample of the images, or of their groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heads.arrays import Float64, Indices

_AT_ONCE = 50
_PERCENTILES = (2.5, 97.5)


def resampled_weights(n_images: int, groups: Indices | None, *, n_resamples: int, seed: int) -> Iterator[Indices]:
    """Draw whole images with replacement, or whole groups where there are groups (Efron and Tibshirani, 1993).

    Images of a group are alike, and drawing them singly would make an interval too narrow.

    Parameters
    ----------
    n_images : int
        At least 1.
    groups : int64 array, shape (n_images,), or None
        0 to n_groups - 1.
    n_resamples : int
    seed : int

    Yields
    ------
    int64 array, shape (at most 50, n_images)
        How often each image stands in each resample. In pieces, as all at once would need more memory than the features.

    Examples
    --------
    >>> [piece.shape for piece in resampled_weights(7, None, n_resamples=60, seed=0)]
    [(50, 7), (10, 7)]
    """
    rng = np.random.default_rng(seed)
    units = np.arange(n_images) if groups is None else groups
    n_units = int(units.max()) + 1
    for start in range(0, n_resamples, _AT_ONCE):
        drawn = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=min(_AT_ONCE, n_resamples - start))
        yield drawn if groups is None else drawn[:, units]


def interval(values: Float64) -> tuple[Float64, Float64]:
    """Find the 95 % percentile interval of a figure over resamples.

    Parameters
    ----------
    values : float64 array, shape (n_resamples, ...)

    Returns
    -------
    low, high : float64 arrays, shape (...)

    Examples
    --------
    >>> [float(edge) for edge in interval(np.arange(201.0))]
    [5.0, 195.0]
    """
    low, high = np.percentile(values, _PERCENTILES, axis=0)
    return low, high
