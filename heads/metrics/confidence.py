"""What probabilities say when their confidence is set right: their log-loss after the best calibration of few numbers."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from heads.arrays import Float32, Float64
from heads.choosing import fit_temperature
from heads.targets import LEAST_PROBABILITY, Targets


def calibrated_loss(probabilities: Float64, targets: Targets) -> float:
    """Compute the log-loss of images after their probabilities were calibrated on these same images.

    One label: a temperature of the logarithms (Guo et al., 2017). Many: a slope and an offset of the log-odds, the same for all
    classes (Platt, 1999). So few numbers, fitted on so many images, tell of the probabilities and not of themselves.

    Parameters
    ----------
    probabilities : float64 array, shape (n_images, n_classes)
    targets : Targets
        Of the images.

    Returns
    -------
    float
        Mean over images, in nats.

    Examples
    --------
    >>> from heads.targets import ManyLabels
    >>> members = np.array([[True, False], [False, True]] * 50)
    >>> timid, bold = np.where(members, 0.51, 0.50), np.where(members, 0.9, 0.2)
    >>> abs(calibrated_loss(timid, ManyLabels(members)) - calibrated_loss(bold, ManyLabels(members))) < 1e-3
    True
    """
    if targets.is_many:
        odds = np.log(np.maximum(probabilities, LEAST_PROBABILITY)) - np.log(
            np.maximum(1 - probabilities, LEAST_PROBABILITY)
        )
        return float(targets.losses(_platt(odds, targets)).mean())
    logs: Float32 = np.log(np.maximum(probabilities, LEAST_PROBABILITY)).astype(np.float32)
    _, losses = fit_temperature(logs[None, :, None], targets)
    return float(losses.mean())


def _platt(odds: Float64, targets: Targets) -> Float64:
    """Fit slope and offset; return probabilities.

    One image more is counted whose labels are unknown: else the slope of odds that part all classes would grow without end.
    """
    n_images = len(targets)
    wanted = (targets.members + 0.5 / n_images) / (1 + 1 / n_images)

    def objective(point: Float64) -> tuple[float, Float64]:
        logits = point[0] * odds + point[1]
        error = expit(logits) - wanted
        loss = np.logaddexp(0, logits) - wanted * logits
        return float(loss.mean()), np.array([(error * odds).mean(), error.mean()])

    # What ranks the wrong way round says nothing, and is not to be turned: no slope below 0.
    found = minimize(objective, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    slope, offset = found.x
    said: Float64 = expit(slope * odds + offset)
    return said
