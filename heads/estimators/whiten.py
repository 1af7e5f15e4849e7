"""Standardisation and whitening as one linear map, learned from the moments of training rows.

Every head maps rows inside its own fit, so nothing of a held-out image can reach the mean that it is measured by; and the map
is folded into what was learned, so that a fitted head speaks of plain columns.
"""

from __future__ import annotations

import dataclasses

import torch

from features_cache.errors import OptionError
from heads.dense import inverse_factor, product
from heads.moments import Moments


@dataclasses.dataclass(frozen=True, slots=True)
class Whitening:
    """The map ``(x - mean) @ matrix``.

    Pooled features are highly correlated, and a penalty (or a step of Adam) that treats columns alike then favours the few
    directions in which all images vary together over the many in which classes differ.

    Parameters
    ----------
    mean : float tensor, shape (n_columns,)
    matrix : float tensor, shape (n_columns, n_columns), or (n_columns,) where columns are only scaled
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    @classmethod
    def fit(cls, moments: Moments, shrinkage: float, dtype: torch.dtype) -> Whitening:
        """Learn from training rows.

        With S the standardised columns' covariance within classes, ``L L' = (1 - shrinkage) S + shrinkage I`` (Hatch and
        Stolcke, 2006; shrunk after Ledoit and Wolf, 2004, so that directions in which rows hardly vary are not blown up); a
        standardised row z becomes ``inv(L) z``. What makes classes differ is not whitened away.

        Parameters
        ----------
        moments : Moments
        shrinkage : float
            Above 0, at most 1; 1 only standardises.
        dtype : torch.dtype
            Of the map.

        Raises
        ------
        OptionError
            If shrinkage is out of range.
        """
        if not 0 < shrinkage <= 1:
            msg = f"shrinkage is {shrinkage}; expected a number above 0, at most 1"
            raise OptionError(msg)
        inverse_scale = moments.inverse_scale()
        mean = moments.mean.to(dtype)
        if shrinkage == 1:
            return cls(mean, inverse_scale.to(dtype))
        shrunk = moments.correlation_within(inverse_scale).mul_(1 - shrinkage)
        shrunk.diagonal().add_(shrinkage)
        inverse = inverse_factor(shrunk, dtype)
        return cls(mean, inverse.T.mul_(inverse_scale.to(dtype)[:, None]))

    def apply(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Map rows, shape (n_rows, n_columns), with products in a number type that may be narrower than theirs."""
        centred = rows - self.mean
        if self.matrix.ndim == 1:
            return centred.mul_(self.matrix).to(dtype)
        return centred.to(dtype) @ self.matrix.to(dtype)

    def fold(self, coef: torch.Tensor, intercept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn coefficients of mapped columns into those of plain ones.

        Parameters
        ----------
        coef : float tensor, shape (n_columns, n_outputs)
        intercept : float tensor, shape (n_outputs,)
        """
        plain = self.matrix[:, None] * coef if self.matrix.ndim == 1 else product(self.matrix, coef)
        return plain, intercept - self.mean @ plain
