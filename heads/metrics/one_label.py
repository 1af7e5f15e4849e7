"""Figures of merit with intervals. Balanced accuracy stands first, as it does not flatter a head that likes big classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from heads.arrays import Float, Indices
from heads.metrics.bootstrap import interval, resampled_weights
from heads.metrics.calibration import calibration
from heads.targets import OneLabel

HEADLINE = ("balanced_accuracy", "accuracy", "macro_f1", "weighted_f1", "log_loss")
_N_RESAMPLES = 1000


def confusion_matrix(labels: Indices, predicted: Indices, n_classes: int) -> Indices:
    """Count images by true class (rows) and predicted class (columns).

    Parameters
    ----------
    labels, predicted : int64 arrays, shape (n_images,)
    n_classes : int

    Returns
    -------
    int64 array, shape (n_classes, n_classes)

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    flat = np.bincount(labels * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def _weighted_counts(weights: NDArray[np.float32], classes: Indices, n_classes: int) -> NDArray[np.float64]:
    """Add up each resample's weights by class: (n_resamples, n_images) to (n_resamples, n_classes)."""
    member = csr_matrix((np.ones(len(classes)), (np.arange(len(classes)), classes)), shape=(len(classes), n_classes))
    counts: NDArray[np.float64] = (member.T @ weights.T.astype(np.float64)).T
    return counts


def scores_of_counts(hits: NDArray[Any], true: NDArray[Any], called: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Compute scores from counts by class, many at a time.

    Classes without an image are left out of balanced accuracy; classes without an image or a prediction are left out of
    macro F1 (both as scikit-learn does).

    Parameters
    ----------
    hits, true, called : arrays, shape (..., n_classes)
        Images of the class that were predicted so, images of the class, images predicted so.

    Returns
    -------
    dict
        ``balanced_accuracy``, ``accuracy``, ``macro_f1``, ``weighted_f1``: float64 arrays, shape (...).
    """
    hits, true, called = (np.asarray(counts, dtype=np.float64) for counts in (hits, true, called))
    n_images = np.maximum(true.sum(-1), 1)
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
    f1 = np.divide(2 * hits, true + called, out=np.zeros_like(hits), where=true + called > 0)
    return {
        "balanced_accuracy": recall.sum(-1) / np.maximum((true > 0).sum(-1), 1),
        "accuracy": hits.sum(-1) / n_images,
        "macro_f1": f1.sum(-1) / np.maximum((true + called > 0).sum(-1), 1),
        "weighted_f1": (f1 * true).sum(-1) / n_images,
    }


def _losses(labels: Indices, probabilities: Float) -> NDArray[np.float64]:
    return OneLabel(labels, probabilities.shape[1]).losses(probabilities)


def headline(labels: Indices, probabilities: Float) -> dict[str, float]:
    """Compute the headline figures.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
    probabilities : float array, shape (n_images, n_classes)
        Rows sum to 1.

    Returns
    -------
    dict
        One float for each name in ``HEADLINE``.
    """
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    scores = scores_of_counts(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0))
    figures = {name: float(value) for name, value in scores.items()}
    return figures | {"log_loss": float(_losses(labels, probabilities).mean())}


def bootstrap_intervals(
    labels: Indices,
    probabilities: Sequence[Float],
    groups: Indices | None = None,
    *,
    n_resamples: int = _N_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Find 95 % percentile intervals of the headline figures (Efron and Tibshirani, 1993, chapter 13).

    Whole images are drawn with replacement, or whole groups where there are groups: images of a group are alike, and
    drawing them singly would make the interval too narrow.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
    probabilities : sequence of float arrays, shape (n_images, n_classes)
        One for each repeat of the folds; a resample's figure is the mean over repeats.
    groups : int64 array, shape (n_images,), optional
        0 to n_groups - 1.
    n_resamples : int
    seed : int

    Returns
    -------
    dict
        ``(low, high)`` for each name in ``HEADLINE``.
    """
    n_images, n_classes = probabilities[0].shape
    losses = [_losses(labels, repeat) for repeat in probabilities]
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in HEADLINE}
    for piece in resampled_weights(n_images, groups, n_resamples=n_resamples, seed=seed):
        weights = piece.astype(np.float32)
        figures = []
        for repeat, loss in zip(probabilities, losses, strict=True):
            called = repeat.argmax(axis=1)
            right = np.flatnonzero(labels == called)
            scores = scores_of_counts(
                _weighted_counts(weights[:, right], labels[right], n_classes),
                _weighted_counts(weights, labels, n_classes),
                _weighted_counts(weights, called, n_classes),
            )
            figures.append(scores | {"log_loss": (weights @ loss) / np.maximum(weights.sum(axis=1), 1)})
        for name in HEADLINE:
            found[name].append(np.mean([each[name] for each in figures], axis=0))
    edges = {name: interval(np.concatenate(values)) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in edges.items()}


def per_class(labels: Indices, predicted: Indices, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Compute precision, recall and F1 of each class.

    Parameters
    ----------
    labels, predicted : int64 arrays, shape (n_images,)
    classes : sequence of str

    Returns
    -------
    list of dict
        ``class``, ``n_images``, ``precision``, ``recall``, ``f1``; 0 where nothing could be divided by.
    """
    counts = confusion_matrix(labels, predicted, len(classes))
    rows = []
    for index, name in enumerate(classes):
        hits, true, called = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
        rows.append(
            {
                "class": name,
                "n_images": true,
                "precision": hits / called if called else 0.0,
                "recall": hits / true if true else 0.0,
                "f1": 2 * hits / (true + called) if true + called else 0.0,
            }
        )
    return rows


def score(
    labels: Indices,
    probabilities: Sequence[Float],
    classes: Sequence[str],
    groups: Indices | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Gather everything that is told of one head.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
    probabilities : sequence of float arrays, shape (n_images, n_classes)
        One for each repeat of the folds; figures are means over repeats, the confusion matrix is their sum.
    classes : sequence of str
    groups : int64 array, optional
        What the bootstrap draws.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        JSON-able: each headline figure as ``{"value", "low", "high"}``, ``per_class``, ``calibration``, ``confusion``.
    """
    repeats = [headline(labels, repeat) for repeat in probabilities]
    intervals = bootstrap_intervals(labels, probabilities, groups, seed=seed)
    figures: dict[str, Any] = {
        name: {
            "value": float(np.mean([repeat[name] for repeat in repeats])),
            "low": intervals[name][0],
            "high": intervals[name][1],
        }
        for name in HEADLINE
    }
    predicted = np.concatenate([repeat.argmax(axis=1) for repeat in probabilities])
    repeated = np.tile(labels, len(probabilities))
    rows = per_class(repeated, predicted, classes)
    for row in rows:
        row["n_images"] //= len(probabilities)
    figures["per_class"] = rows
    figures["calibration"] = calibration(repeated, np.concatenate(list(probabilities)))
    figures["confusion"] = confusion_matrix(repeated, predicted, len(classes)).tolist()
    return figures
