"""Whether probabilities are frequencies: of images predicted with 0.8, 80 % should be right."""

from __future__ import annotations

from typing import Any

import numpy as np

from heads.arrays import Float, Indices

_N_BINS = 15


def calibration(labels: Indices, probabilities: Float) -> dict[str, Any]:
    """Compare confidence with accuracy, in bins of equal width (Guo et al., 2017).

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
        Class indices.
    probabilities : float array, shape (n_images, n_classes)
        Rows sum to 1.

    Returns
    -------
    dict
        ``expected_error``: mean over images of how far their bin's accuracy is from its confidence, 0 to 1. ``bins``: of each of
        15 bins that holds images, ``n_images``, ``confidence`` (mean probability of the predicted class), ``accuracy``.

    Examples
    --------
    >>> found = calibration(np.array([0, 0, 1, 1]), np.array([[0.75, 0.25]] * 4))
    >>> found["expected_error"], found["bins"]
    (0.25, [{'n_images': 4, 'confidence': 0.75, 'accuracy': 0.5}])
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = probabilities.argmax(axis=1) == labels
    # The upper edge belongs to a bin: a probability of 1 is in the last one.
    place = np.clip(np.ceil(confidence * _N_BINS).astype(np.int64) - 1, 0, _N_BINS - 1)
    bins = [
        {
            "n_images": int(here.sum()),
            "confidence": float(confidence[here].mean()),
            "accuracy": float(is_right[here].mean()),
        }
        for here in (place == number for number in range(_N_BINS))
        if here.any()
    ]
    off = sum(each["n_images"] * abs(each["accuracy"] - each["confidence"]) for each in bins)
    return {"expected_error": off / len(labels), "bins": bins}
