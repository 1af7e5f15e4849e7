"""Class weights."""

from __future__ import annotations

from typing import Literal

import numpy as np

from features_cache.errors import LabelError
from heads.arrays import Float64
from heads.targets import Targets

ClassWeight = Literal["balanced", "none"]
# An image of a class of eleven among thirty thousand would otherwise outweigh thousands of others in the loss of that class.
_MOST_POSITIVE = 10.0


def balanced_class_weights(targets: Targets) -> Float64:
    """Weight each class by the inverse of its frequency.

    ``w_k = n_images / (n_classes * n_k)``, so that every class carries the same total weight (King and Zeng, 2001).

    Parameters
    ----------
    targets : Targets
        Every class must occur.

    Returns
    -------
    float64 array, shape (n_classes,)

    Raises
    ------
    LabelError
        If a class has no image.

    Examples
    --------
    >>> from heads.targets import OneLabel
    >>> balanced_class_weights(OneLabel(np.array([0, 0, 0, 1]), 2)).round(3).tolist()
    [0.667, 2.0]
    """
    counts = targets.counts
    if counts.min() == 0:
        msg = f"classes {np.flatnonzero(counts == 0).tolist()} have no image; expected at least one of each"
        raise LabelError(msg)
    return np.asarray(len(targets) / (len(counts) * counts))


def sample_weights(targets: Targets, class_weight: ClassWeight) -> Float64:
    """Give each image its class's weight; 1 without class weights, and where images have many labels.

    Parameters
    ----------
    targets : Targets
        Every class must occur.
    class_weight : {"balanced", "none"}

    Returns
    -------
    float64 array, shape (n_images,)
    """
    if class_weight == "none" or targets.is_many:
        return np.ones(len(targets))
    return np.asarray(balanced_class_weights(targets)[targets.members.argmax(axis=1)])


def positive_weights(targets: Targets, class_weight: ClassWeight) -> Float64:
    """Say what a member of a class weighs beside a non-member, where images have many labels.

    Balanced: the number of other images over that of members, 1/10 to 10; so that both sides of each class weigh the same
    unless it is rarer than one in eleven.

    Parameters
    ----------
    targets : Targets
    class_weight : {"balanced", "none"}

    Returns
    -------
    float64 array, shape (n_classes,)
        1 where images have one label.

    Examples
    --------
    >>> from heads.targets import ManyLabels
    >>> positive_weights(ManyLabels(np.array([[True, True], [True, False], [False, False]])), "balanced").tolist()
    [0.5, 2.0]
    """
    counts = targets.counts
    if class_weight == "none" or not targets.is_many:
        return np.ones(len(counts))
    odds = (len(targets) - counts) / np.maximum(counts, 1)
    return np.asarray(odds.clip(1 / _MOST_POSITIVE, _MOST_POSITIVE))
