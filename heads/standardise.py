"""Standardisation: each column to mean 0 and standard deviation 1, as the training rows of one fit have them.

Every head standardises inside its own ``fit``, so nothing of a held-out image can reach the mean it is measured by, and
a saved head is complete in itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
_CHUNK_ROWS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Standardiser:
    """Column means and scales.

    Parameters
    ----------
    mean, scale : float array, shape (n_columns,)
        ``(x - mean) / scale`` is standardised; a constant column has scale 1.
    """

    mean: Float
    scale: Float

    @classmethod
    def fit(cls, X: Float) -> Standardiser:
        """Learn from training rows, in chunks that are added up in float64.

        Parameters
        ----------
        X : float32 or float64 array, shape (n_rows, n_columns)

        Returns
        -------
        Standardiser
            Of X's number type.
        """
        chunks = torch.from_numpy(X).split(_CHUNK_ROWS)  # type: ignore[no-untyped-call]
        total = torch.zeros(X.shape[1], dtype=torch.float64)
        for chunk in chunks:
            total += chunk.sum(dim=0)
        mean = (total / len(X)).numpy()
        centre = torch.from_numpy(mean.astype(X.dtype))
        squares = torch.zeros(X.shape[1], dtype=torch.float64)
        for chunk in chunks:
            squares += (chunk - centre).square_().sum(dim=0)
        scale = np.sqrt((squares / len(X)).numpy())
        # A constant column leaves rounding noise behind; divided by it, a test row would become enormous.
        floor = 10 * np.finfo(X.dtype).eps * np.abs(mean)
        scale[(scale <= floor) | (scale == 0)] = 1.0
        return cls(mean.astype(X.dtype), scale.astype(X.dtype))

    def apply(self, X: Float) -> Float:
        """Return a standardised copy, shape (n_rows, n_columns)."""
        # torch's threads, not numpy's one.
        standard = torch.from_numpy(X) - torch.from_numpy(self.mean)
        standard /= torch.from_numpy(self.scale)
        array: Float = standard.numpy()
        return array


def signed_power(X: Float, power: float) -> Float:
    """Raise the size of each feature to a power and keep its sign.

    Parameters
    ----------
    X : float array
    power : float
        Above 0; 1 returns X itself.

    Returns
    -------
    float array, shape and type of X

    Examples
    --------
    >>> signed_power(np.array([-4.0, 0.0, 9.0]), 0.5).tolist()
    [-2.0, 0.0, 3.0]
    """
    if power == 1:
        return X
    drawn_in: Float = np.abs(X)
    np.power(drawn_in, power, out=drawn_in)
    return np.copysign(drawn_in, X, out=drawn_in)
