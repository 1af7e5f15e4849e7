"""Whether probabilities are frequencies: of what is predicted with 0.8, 80 % should be so."""

from __future__ import annotations

from typing import Any

import numpy as np

from heads.arrays import Bool, Float, Float64, Indices

_N_BINS = 15


def calibration(labels: Indices, probabilities: Float) -> dict[str, Any]:
    """Compare the confidence in predicted classes with their accuracy; see :func:`calibration_of`.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
        Class indices.
    probabilities : float array, shape (n_images, n_classes)
        Rows sum to 1.

    Returns
    -------
    dict
        As of :func:`calibration_of`; ``confidence`` is that in the predicted class.

    Examples
    --------
    >>> found = calibration(np.array([0, 0, 1, 1]), np.array([[0.75, 0.25]] * 4))
    >>> found["expected_error"], found["bins"]
    (0.25, [{'n_images': 4, 'confidence': 0.75, 'accuracy': 0.5}])
    """
    return calibration_of(probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels)


def calibration_many(members: Bool, probabilities: Float) -> dict[str, Any]:
    """Compare probabilities with frequencies over all decisions, one an image and class; see :func:`calibration_of`.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities : float array, shape (n_images, n_classes)
        0 to 1.

    Returns
    -------
    dict
        As of :func:`calibration_of`; ``n_images`` counts decisions, ``accuracy`` is the share of them that are of the class.

    Examples
    --------
    >>> found = calibration_many(np.array([[True, False], [False, False]]), np.full((2, 2), 0.5))
    >>> found["expected_error"], found["bins"]
    (0.25, [{'n_images': 4, 'confidence': 0.5, 'accuracy': 0.25}])
    """
    return calibration_of(probabilities.reshape(-1).astype(np.float64), members.reshape(-1))


def calibration_of(confidence: Float64, is_right: Bool) -> dict[str, Any]:
    """Compare confidence with how often it was right, in bins of equal width (Guo et al., 2017).

    Parameters
    ----------
    confidence : float64 array, shape (n_predictions,)
        0 to 1.
    is_right : bool array, shape (n_predictions,)

    Returns
    -------
    dict
        ``expected_error``: mean over predictions of how far their bin's accuracy is from its confidence, 0 to 1. ``bins``: of
        each of 15 bins that holds predictions, ``n_images`` (how many), ``confidence`` (their mean), ``accuracy`` (the share
        that were right).
    """
    # The upper edge belongs to a bin: a probability of 1 is in the last one.
    place = np.clip(np.ceil(confidence * _N_BINS).astype(np.int64) - 1, 0, _N_BINS - 1)
    counts = np.bincount(place, minlength=_N_BINS)
    expected, right = (np.bincount(place, weights=values, minlength=_N_BINS) for values in (confidence, is_right))
    bins = [
        {
            "n_images": int(counts[here]),
            "confidence": float(expected[here] / counts[here]),
            "accuracy": float(right[here] / counts[here]),
        }
        for here in np.flatnonzero(counts)
    ]
    return {"expected_error": float(np.abs(expected - right).sum() / max(len(confidence), 1)), "bins": bins}
