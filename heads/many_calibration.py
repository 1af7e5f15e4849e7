"""Whether probabilities of many labels are frequencies: of decisions predicted with 0.8, 80 % should be of the class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.arrays import Float

_N_BINS = 15


def calibration_many(members: NDArray[np.bool_], probabilities: Float) -> dict[str, Any]:
    """Compare probabilities with frequencies over all decisions, one an image and class, in bins of equal width.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities : float array, shape (n_images, n_classes)
        0 to 1.

    Returns
    -------
    dict
        As of :func:`heads.calibration.calibration`: ``expected_error`` and, of each of 15 bins that holds decisions,
        ``n_images`` (decisions), ``confidence`` (mean probability), ``accuracy`` (share that are of the class).

    Examples
    --------
    >>> found = calibration_many(np.array([[True, False], [False, False]]), np.full((2, 2), 0.5))
    >>> found["expected_error"], found["bins"]
    (0.25, [{'n_images': 4, 'confidence': 0.5, 'accuracy': 0.25}])
    """
    likely, is_true = probabilities.reshape(-1).astype(np.float64), members.reshape(-1)
    # The upper edge belongs to a bin: a probability of 1 is in the last one.
    place = np.clip(np.ceil(likely * _N_BINS).astype(np.int64) - 1, 0, _N_BINS - 1)
    n_decisions = np.bincount(place, minlength=_N_BINS)
    confidence, accuracy = (np.bincount(place, weights=values, minlength=_N_BINS) for values in (likely, is_true))
    bins = [
        {
            "n_images": int(n_decisions[here]),
            "confidence": float(confidence[here] / n_decisions[here]),
            "accuracy": float(accuracy[here] / n_decisions[here]),
        }
        for here in np.flatnonzero(n_decisions)
    ]
    return {"expected_error": float(np.abs(confidence - accuracy).sum() / max(len(likely), 1)), "bins": bins}
