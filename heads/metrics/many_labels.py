"""Figures of merit for many labels. Macro F1 stands first, as in it a class of ten images counts as much as one of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import LabelError
from heads.arrays import Float, Float64, Indices
from heads.metrics.bootstrap import interval, resampled_weights
from heads.metrics.calibration import calibration_many
from heads.metrics.ranking import Ranking, rank_all
from heads.targets import ManyLabels

HEADLINE_MANY = ("macro_f1", "micro_f1", "mean_average_precision", "exact_match", "log_loss")
_N_RESAMPLES = 1000


def _average_precisions(rankings: Sequence[Ranking], weights: Indices) -> Float64:
    """Compute average precision of each class under many weights, NaN without images: shape (n_resamples, n_classes)."""
    found = np.full((len(weights), len(rankings)), np.nan)
    for column, ranking in enumerate(rankings):
        hits, called = ranking.counts(weights, ranking.cuts)
        if not ranking.cuts.size:
            continue
        true = hits[:, -1]
        areas = (np.diff(hits, axis=1, prepend=0) * (hits / np.maximum(called, 1))).sum(axis=1)
        np.divide(areas, true, out=found[:, column], where=true > 0)
    return found


def _mean_where(values: Float64, is_counted: NDArray[np.bool_]) -> Float64:
    """Average over classes that are counted, 0 where none is: (n_resamples, n_classes) to (n_resamples,)."""
    means: Float64 = np.where(is_counted, values, 0.0).sum(axis=1) / np.maximum(is_counted.sum(axis=1), 1)
    return means


class _Repeat:
    """What is computed once of the probabilities and calls of one repeat of the folds."""

    def __init__(self, members: NDArray[np.bool_], probabilities: Float, called: NDArray[np.bool_]) -> None:
        self.rankings = rank_all(members, probabilities)
        if called.shape != members.shape:
            msg = f"calls of shape {called.shape} for labels of shape {members.shape}; expected the same. Apply thresholds anew"
            raise LabelError(msg)
        self.columns = [array.astype(np.float64) for array in (members & called, members, called)]
        # One column each, so that one product of matrices adds up both.
        is_exact, losses = (members == called).all(axis=1), ManyLabels(members).losses(probabilities)
        self.of_images = np.column_stack([is_exact, losses])

    def figures(self, weights: Indices) -> dict[str, Float64]:
        """Compute the headline figures under many weights, shape (n_resamples, n_images): arrays, shape (n_resamples,)."""
        as_float = weights.astype(np.float64)
        hits, true, called = (as_float @ column for column in self.columns)
        both = true + called
        precisions = _average_precisions(self.rankings, weights)
        means = (as_float @ self.of_images) / np.maximum(as_float.sum(axis=1, keepdims=True), 1)
        return {
            "macro_f1": _mean_where(2 * hits / np.maximum(both, 1), both > 0),
            "micro_f1": 2 * hits.sum(axis=1) / np.maximum(both.sum(axis=1), 1),
            "mean_average_precision": _mean_where(precisions, ~np.isnan(precisions)),
            "exact_match": means[:, 0],
            "log_loss": means[:, 1],
        }


def headline_many(members: NDArray[np.bool_], probabilities: Float, called: NDArray[np.bool_]) -> dict[str, float]:
    """Compute the headline figures.

    ``macro_f1`` is the mean over classes of F1, without classes that have neither an image nor a call (scikit-learn's
    ``zero_division=np.nan``); an image without a call, or the reverse, makes 0. ``micro_f1`` is F1 of all decisions together.
    ``mean_average_precision`` is the mean over classes with images of the sum over cuts of precision times the recall
    gained there, without interpolation, equal probabilities together. ``exact_match`` is the share of images called of
    their classes and no other. ``log_loss`` is the mean over images and classes of the binary cross-entropy, in nats.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
        Which classes each image is of.
    probabilities : float array, shape (n_images, n_classes)
        0 to 1; rows need not sum to 1. Clipped at 1e-15 for the log-loss.
    called : bool array, shape (n_images, n_classes)
        Which classes each image was called of.

    Returns
    -------
    dict
        One float for each name in ``HEADLINE_MANY``; 0 where nothing could be divided by.

    Raises
    ------
    LabelError
        If shapes differ, or a probability is not in 0 to 1.

    Examples
    --------
    >>> members = np.array([[True, False], [True, True]])
    >>> figures = headline_many(members, np.array([[0.75, 0.5], [0.5, 0.75]]), members)
    >>> figures["macro_f1"], figures["mean_average_precision"], round(figures["log_loss"], 3)
    (1.0, 1.0, 0.49)
    """
    figures = _Repeat(members, probabilities, called).figures(np.ones((1, len(members)), dtype=np.int64))
    return {name: float(values[0]) for name, values in figures.items()}


def bootstrap_many(
    members: NDArray[np.bool_],
    probabilities: Sequence[Float],
    called: Sequence[NDArray[np.bool_]],
    groups: Indices | None = None,
    *,
    n_resamples: int = _N_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Find 95 % percentile intervals of the headline figures, over images, or over groups where there are groups.

    Thresholds are those that ``called`` was made by: that others would have been chosen from other images is not in it.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities, called : sequences of arrays, shape (n_images, n_classes)
        One for each repeat of the folds; a resample's figure is the mean over repeats.
    groups : int64 array, shape (n_images,), optional
        0 to n_groups - 1.
    n_resamples : int
    seed : int

    Returns
    -------
    dict
        ``(low, high)`` for each name in ``HEADLINE_MANY``.
    """
    repeats = [_Repeat(members, *given) for given in zip(probabilities, called, strict=True)]
    drawn: dict[str, list[Float64]] = {name: [] for name in HEADLINE_MANY}
    for weights in resampled_weights(len(members), groups, n_resamples=n_resamples, seed=seed):
        figures = [repeat.figures(weights) for repeat in repeats]
        for name, values in drawn.items():
            values.append(np.mean([each[name] for each in figures], axis=0))
    edges = {name: interval(np.concatenate(values)) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in edges.items()}


def per_class_many(
    members: NDArray[np.bool_],
    probabilities: Sequence[Float],
    called: Sequence[NDArray[np.bool_]],
    classes: Sequence[str],
    thresholds: Float64 | None = None,
) -> list[dict[str, Any]]:
    """Compute the figures of each class, over all repeats.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities, called : sequences of arrays, shape (n_images, n_classes)
        One for each repeat of the folds: calls are added up, average precision is the mean.
    classes : sequence of str
    thresholds : float64 array, shape (n_classes,), optional
        What to show beside the figures.

    Returns
    -------
    list of dict
        ``class``, ``n_images``, ``precision``, ``recall``, ``f1``, ``average_precision``, ``threshold`` (None where not
        given); 0 where nothing could be divided by.
    """
    one = np.ones((1, len(members)), dtype=np.int64)
    ranked = [_average_precisions(rank_all(members, repeat), one)[0] for repeat in probabilities]
    precisions = np.nan_to_num(np.mean(ranked, axis=0))
    rows = []
    for column, name in enumerate(classes):
        true = int(members[:, column].sum())
        hits = sum(int((members & repeat)[:, column].sum()) for repeat in called)
        n_called = sum(int(repeat[:, column].sum()) for repeat in called)
        both = true * len(called) + n_called
        rows.append(
            {
                "class": name,
                "n_images": true,
                "precision": hits / n_called if n_called else 0.0,
                "recall": hits / (true * len(called)) if true else 0.0,
                "f1": 2 * hits / both if both else 0.0,
                "average_precision": float(precisions[column]),
                "threshold": None if thresholds is None else float(thresholds[column]),
            }
        )
    return rows


def score_many(
    members: NDArray[np.bool_],
    probabilities: Sequence[Float],
    called: Sequence[NDArray[np.bool_]],
    classes: Sequence[str],
    groups: Indices | None = None,
    *,
    thresholds: Float64 | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Gather everything that is told of one head.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities, called : sequences of arrays, shape (n_images, n_classes)
        One for each repeat of the folds; figures are means over repeats.
    classes : sequence of str
    groups : int64 array, optional
        What the bootstrap draws.
    thresholds : float64 array, shape (n_classes,), optional
        What to show beside the figures of each class.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        JSON-able: each headline figure as ``{"value", "low", "high"}``, ``per_class``, ``calibration``.
    """
    repeats = [headline_many(members, *given) for given in zip(probabilities, called, strict=True)]
    intervals = bootstrap_many(members, probabilities, called, groups, seed=seed)
    figures: dict[str, Any] = {
        name: {
            "value": float(np.mean([repeat[name] for repeat in repeats])),
            "low": intervals[name][0],
            "high": intervals[name][1],
        }
        for name in HEADLINE_MANY
    }
    figures["per_class"] = per_class_many(members, probabilities, called, classes, thresholds)
    repeated = np.concatenate([members] * len(probabilities))
    figures["calibration"] = calibration_many(repeated, np.concatenate(list(probabilities)))
    return figures
