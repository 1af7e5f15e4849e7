"""What an image's cells say of it together."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from features_cache.errors import OptionError, did_you_mean
from heads.arrays import Float, Float64, Indices

Pool = Literal["mean", "maximum"]
POOLS: tuple[Pool, ...] = get_args(Pool)


def pooled(probabilities: Float, parents: Indices, n_images: int, pool: Pool, *, many: bool) -> Float64:
    """Pool the probabilities of each image's cells.

    Parameters
    ----------
    probabilities : float array, shape (n_cells, n_classes)
    parents : int64 array, shape (n_cells,)
        The place of each cell's image.
    n_images : int
    pool : {"mean", "maximum"}
        Over cells, class by class. Maxima of classes of which an image has one are divided by their sum: they are probabilities of
        different cells, and add up to more than 1.
    many : bool
        Whether an image may have many labels.

    Returns
    -------
    float64 array, shape (n_images, n_classes)
        NaN for images without cells.

    Raises
    ------
    OptionError
        If there is no such pool.

    Examples
    --------
    >>> cells = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    >>> pooled(cells, np.array([0, 0, 1]), 2, "mean", many=False).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    >>> pooled(cells, np.array([0, 0, 1]), 3, "maximum", many=True).tolist()
    [[1.0, 0.5], [0.25, 0.75], [nan, nan]]
    """
    if pool not in POOLS:
        msg = f"pool {pool!r}; expected {' or '.join(POOLS)}{did_you_mean(pool, POOLS)}"
        raise OptionError(msg)
    found = np.full((n_images, probabilities.shape[1]), np.nan)
    if not len(parents):
        return found
    order = np.argsort(parents, kind="stable")
    owners, firsts, counts = np.unique(parents[order], return_index=True, return_counts=True)
    sorted_rows = probabilities[order].astype(np.float64, copy=False)
    if pool == "mean":
        found[owners] = np.add.reduceat(sorted_rows, firsts, axis=0) / counts[:, None]
        return found
    found[owners] = np.maximum.reduceat(sorted_rows, firsts, axis=0)
    return found if many else found / found.sum(axis=1, keepdims=True)
