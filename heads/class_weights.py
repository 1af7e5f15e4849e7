"""Class weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import LabelError
from heads.arrays import Indices

ClassWeight = Literal["balanced", "none"]


def balanced_class_weights(labels: Indices) -> NDArray[np.float64]:
    """Weight each class by the inverse of its frequency.

    ``w_k = n_images / (n_classes * n_k)``, so that every class carries the same total weight (King and Zeng, 2001).

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1; every class must occur.

    Returns
    -------
    float64 array, shape (n_classes,)

    Raises
    ------
    LabelError
        If a class has no image.

    Examples
    --------
    >>> balanced_class_weights(np.array([0, 0, 0, 1])).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(labels)
    if counts.min() == 0:
        msg = f"classes {np.flatnonzero(counts == 0).tolist()} have no image; expected at least one of each"
        raise LabelError(msg)
    return len(labels) / (len(counts) * counts)


def sample_weights(labels: Indices, class_weight: ClassWeight) -> NDArray[np.float64]:
    """Give each image its class's weight, or 1.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
        Class indices; classes that do not occur are passed over.
    class_weight : {"balanced", "none"}

    Returns
    -------
    float64 array, shape (n_images,)
    """
    if class_weight == "none":
        return np.ones(len(labels))
    _, dense = np.unique(labels, return_inverse=True)
    return balanced_class_weights(dense)[dense]
