"""Which class frequencies probabilities speak of: those of the training images, or all classes alike."""

from __future__ import annotations

from typing import Literal

import numpy as np

from heads.arrays import Float64, Indices
from heads.parents import shares
from heads.problem import TrainingData

Prior = Literal["balanced", "train"]


def prior_shift(
    data: TrainingData, prior: Prior, held_out: Indices | None = None, *, weighs_members: bool = True
) -> Float64:
    """Return what is added to outputs, after the temperature, so that probabilities speak of a prior.

    A head that learned from weighted images speaks of the frequencies that the weights make. By Bayes' rule the log-odds under
    another prior differ by a constant a class (Saerens et al., 2002).

    Parameters
    ----------
    data : TrainingData
    prior : {"balanced", "train"}
        All classes alike (of many labels: members and others of each class alike), or as the training images have them.
    held_out : int64 array, optional
        Places of scored images that were not learned from.
    weighs_members : bool
        Of the head; see :class:`heads.estimators.head.Head`.

    Returns
    -------
    float64 array, shape (n_classes,)
        Where images have one label the largest is 0. 0 for what no image is of.
    """
    is_learned = np.ones(len(data.targets), dtype=bool)
    if held_out is not None:
        is_learned[held_out] = False
    scored = np.flatnonzero(is_learned[: data.n_scored])
    each = np.ones(len(scored)) if data.parents is None else shares(data.parents[scored])
    counts, n_images = each @ data.targets.take(scored).members, each.sum()
    weights = data.weights * is_learned
    learned = weights @ data.targets.members
    seen = (counts > 0) & (learned > 0)
    shift = np.zeros(len(counts))
    if data.targets.is_many:
        others = np.maximum(weights.sum() - learned, 1e-300)
        member = data.positive_weights if weighs_members else np.ones(len(counts))
        shift[seen] = -np.log(member[seen] * learned[seen] / others[seen])
        if prior == "train":
            shift[seen] += np.log(counts[seen]) - np.log(np.maximum(n_images - counts[seen], 1))
        return shift
    wanted = np.ones(len(counts)) if prior == "balanced" else counts
    shift[seen] = np.log(wanted[seen]) - np.log(learned[seen])
    return np.asarray(shift - shift[seen].max(initial=0.0))
