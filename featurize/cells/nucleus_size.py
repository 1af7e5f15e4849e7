"""How large nuclei are in a plane, before any of them is found."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from featurize.cells.foreground import Plane, foreground, shrink

LEAST_DIAMETER_PX = 8.0
"""Smaller ones are not looked for unasked: at that size noise has the shape of nuclei."""
_WIDEST_PX = 1024
_FIRST_PX = 1.5
_STEPS_AN_OCTAVE = 4
_NEARLY_MOST = 0.85


def nucleus_diameter(plane: Plane) -> float:
    """Estimate the typical diameter of bright blobs by the energy of their scale space.

    The Laplacian of a Gaussian, times its variance, answers a disc of radius r most strongly at the deviation r / sqrt(2)
    (Lindeberg, 1998). Clusters of nuclei answer at larger scales; the smallest scale with nearly the most energy is a nucleus's.

    Parameters
    ----------
    plane : float32 array, shape (height, width)

    Returns
    -------
    float
        In px; at least ``LEAST_DIAMETER_PX``.
    """
    factor = max(1, -(-max(plane.shape) // _WIDEST_PX))
    field = shrink(plane, factor)
    # The background is followed at no scale that a nucleus could have: a gradient of the light would answer at the largest.
    field = foreground(field, smooth_px=1.0, diameter_px=max(field.shape), share_of_otsu=1.0).height
    diameters, energies = [], []
    while min(field.shape) >= 8 * _FIRST_PX:
        for step in range(_STEPS_AN_OCTAVE):
            deviation = _FIRST_PX * 2 ** (step / _STEPS_AN_OCTAVE)
            answer = -ndimage.gaussian_laplace(field, deviation) * deviation**2
            diameters.append(2 * np.sqrt(2) * deviation * factor)
            energies.append(float(np.mean(np.maximum(answer, 0) ** 2)))
        field, factor = shrink(field, 2), 2 * factor
    if not energies:
        return LEAST_DIAMETER_PX
    first = int(np.argmax(np.array(energies) >= _NEARLY_MOST * max(energies)))
    return max(LEAST_DIAMETER_PX, float(diameters[first]))
