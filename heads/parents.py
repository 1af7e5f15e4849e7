"""What was cut from one image counts together as that image does, however much of it there is.

Cells of an image are alike, and share its labels: counted one by one, an image of forty would weigh as much as forty images.
"""

from __future__ import annotations

import numpy as np

from heads.arrays import Float64, Indices


def shares(parents: Indices) -> Float64:
    """Return what each row counts so that the rows of a parent count 1 together.

    Parameters
    ----------
    parents : int64 array, shape (n_rows,)
        The place of each row's parent.

    Returns
    -------
    float64 array, shape (n_rows,)

    Examples
    --------
    >>> shares(np.array([4, 1, 4])).tolist()
    [0.5, 1.0, 0.5]
    """
    counted: Float64 = 1 / np.bincount(parents)[parents]
    return counted


def mean_by_parent(values: Float64, parents: Indices | None) -> Float64:
    """Average values over the rows of each parent.

    Parameters
    ----------
    values : float64 array, shape (n_rows,)
    parents : int64 array, shape (n_rows,), or None
        None where rows stand for themselves: values as they are.

    Returns
    -------
    float64 array, shape (n_parents,)
        In the order of the parents that have rows.

    Examples
    --------
    >>> mean_by_parent(np.array([1.0, 5.0, 3.0]), np.array([4, 1, 4])).tolist()
    [5.0, 2.0]
    """
    if parents is None:
        return values
    counts = np.bincount(parents)
    sums = np.bincount(parents, weights=values)
    return sums[counts > 0] / counts[counts > 0]
