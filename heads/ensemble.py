"""The ensemble: the plain average of its members' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "ensemble"


def average(probabilities: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """Average probabilities over heads (or runs), all of the same weight.

    Parameters
    ----------
    probabilities : sequence of float arrays, shape (..., n_images, n_classes)
        At least one.

    Returns
    -------
    float64 array of the same shape

    Examples
    --------
    >>> average([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])]).tolist()
    [[0.75, 0.25]]
    """
    total = np.zeros(probabilities[0].shape)
    for member in probabilities:
        total += member
    return total / len(probabilities)


def average_views(probabilities: NDArray[np.floating[Any]], n_views: int) -> NDArray[np.float64]:
    """Average probabilities over the views of each image.

    Parameters
    ----------
    probabilities : float array, shape (n_images * n_views, n_classes)
        The views of an image stand next to each other.
    n_views : int

    Returns
    -------
    float64 array, shape (n_images, n_classes)

    Examples
    --------
    >>> average_views(np.array([[1.0, 0.0], [0.5, 0.5]]), n_views=2).tolist()
    [[0.75, 0.25]]
    """
    n_classes = probabilities.shape[1]
    views: NDArray[np.float64] = probabilities.reshape(-1, n_views, n_classes).mean(axis=1, dtype=np.float64)
    return views
