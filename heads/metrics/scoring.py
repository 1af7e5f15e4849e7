"""What is said of a head's predictions, whether images have one label or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from heads.arrays import Bool, Float, Float64, Indices
from heads.decisions import Decisions
from heads.folds import Fold
from heads.metrics.many_labels import HEADLINE_MANY, headline_many, score_many
from heads.metrics.one_label import HEADLINE, headline, score
from heads.predictions import Predictions
from heads.targets import Targets


def headline_names(*, many: bool) -> tuple[str, ...]:
    """Return the names of the figures that stand first, the most telling one before the others."""
    return HEADLINE_MANY if many else HEADLINE


def headline_of(targets: Targets, probabilities: Float, called: Bool | None) -> dict[str, float]:
    """Compute the headline figures of some images.

    Parameters
    ----------
    targets : Targets
    probabilities : float array, shape (n_images, n_classes)
    called : bool array, same shape
        What images are called, where they may have many labels; None where they have one.
    """
    if called is None:
        return headline(targets.members.argmax(axis=1), probabilities)
    return headline_many(targets.members, probabilities, called)


def mean_headline(targets: Targets, predictions: Predictions, decisions: Decisions | None) -> dict[str, float]:
    """Compute the headline figures of each repeat of the folds, and average them.

    Parameters
    ----------
    targets : Targets
    predictions : Predictions
    decisions : Decisions or None
        Where images may have many labels; None where they have one.
    """
    repeats = [
        headline_of(targets, repeat, None if decisions is None else decisions.called[place])
        for place, repeat in enumerate(predictions.averaged)
    ]
    return {key: float(np.mean([repeat[key] for repeat in repeats])) for key in headline_names(many=targets.is_many)}


def score_of(
    targets: Targets,
    probabilities: Sequence[Float],
    called: Sequence[Bool] | None,
    classes: Sequence[str],
    groups: Indices | None,
    *,
    thresholds: Float64 | None = None,
    seed: int,
) -> dict[str, Any]:
    """Gather everything that is told of one head; see :func:`heads.metrics.one_label.score`, :func:`heads.metrics.many_labels.score_many`.

    Parameters
    ----------
    targets : Targets
    probabilities : sequence of float arrays, shape (n_images, n_classes)
        One for each repeat of the folds.
    called : sequence of bool arrays, same shape
        As of :func:`headline_of`.
    classes : sequence of str
    groups : int64 array, shape (n_images,), or None
        What the bootstrap draws.
    thresholds : float64 array, shape (n_classes,), optional
        Shown beside the classes, where images may have many labels.
    seed : int
    """
    if called is None:
        return score(targets.members.argmax(axis=1), probabilities, classes, groups, seed=seed)
    return score_many(targets.members, probabilities, called, classes, groups, thresholds=thresholds, seed=seed)


def score_out_of_fold(
    targets: Targets,
    predictions: Predictions,
    decisions: Decisions | None,
    folds: Sequence[Fold],
    classes: Sequence[str],
    groups: Indices | None,
    *,
    seed: int,
) -> dict[str, Any]:
    """Gather everything that is told of one head's out-of-fold predictions.

    Parameters
    ----------
    targets : Targets
    predictions : Predictions
    decisions : Decisions
        Where images may have many labels; None where they have one.
    folds : sequence of Fold
    classes : sequence of str
    groups : int64 array, shape (n_images,), or None
    seed : int

    Returns
    -------
    dict
        As of :func:`score_of`; beside it the headline figures of ``view_0`` alone and ``by_fold``.
    """
    averaged = list(predictions.averaged)
    called = None if decisions is None else list(decisions.called)
    thresholds = None if decisions is None else decisions.thresholds.values
    figures = score_of(targets, averaged, called, classes, groups, thresholds=thresholds, seed=seed)
    names = headline_names(many=targets.is_many)
    view_0 = [
        headline_of(targets, repeat, None if decisions is None else decisions.view_0[place])
        for place, repeat in enumerate(predictions.view_0)
    ]
    figures["view_0"] = {key: float(np.mean([repeat[key] for repeat in view_0])) for key in names}
    by_fold = []
    for fold in folds:
        repeat, here = fold.repeat, fold.held_out
        own = None if called is None else called[repeat][here]
        by_fold.append(headline_of(targets.take(here), averaged[repeat][here], own))
    figures["by_fold"] = {
        key: {
            "mean": float(np.mean([fold[key] for fold in by_fold])),
            "std": float(np.std([fold[key] for fold in by_fold])),
            "folds": [fold[key] for fold in by_fold],
        }
        for key in names
    }
    return figures
