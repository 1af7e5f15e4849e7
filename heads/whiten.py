"""Whitening: standardised columns turned and scaled until they are nearly uncorrelated.

Pooled features are highly correlated, and a penalty (or a step of Adam) that treats columns alike then favours the few
directions in which all images vary together over the many in which classes differ.
"""

from __future__ import annotations

import dataclasses

import torch

from features_cache.errors import OptionError
from heads.standardise import Float, Standardiser, signed_power

_CHUNK_ROWS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Whitening:
    """A linear map of standardised columns.

    Parameters
    ----------
    factor : float tensor, shape (n_columns, n_columns), or None
        Lower triangular L; a row x becomes ``inv(L) x``. None leaves rows as they are.
    """

    factor: torch.Tensor | None

    @classmethod
    def fit(cls, X: torch.Tensor, shrinkage: float) -> Whitening:
        """Learn from training rows.

        ``L L' = (1 - shrinkage) X'X / n_rows + shrinkage I``: the columns' covariance, shrunk towards no correlation
        (Ledoit and Wolf, 2004), so that directions in which rows hardly vary are not blown up.

        Parameters
        ----------
        X : float tensor, shape (n_rows, n_columns)
            Standardised.
        shrinkage : float
            Above 0, at most 1; 1 is no whitening.

        Raises
        ------
        OptionError
            If shrinkage is out of range.
        """
        if not 0 < shrinkage <= 1:
            msg = f"shrinkage is {shrinkage}; expected a number above 0, at most 1"
            raise OptionError(msg)
        if shrinkage == 1:
            return cls(None)
        covariance = torch.zeros((X.shape[1], X.shape[1]), dtype=X.dtype)
        for part in X.split(_CHUNK_ROWS):  # type: ignore[no-untyped-call]
            covariance.addmm_(part.T, part, alpha=(1 - shrinkage) / len(X))
        covariance.diagonal().add_(shrinkage)
        return cls(torch.linalg.cholesky(covariance))

    def apply_in_place(self, X: torch.Tensor) -> None:
        """Whiten rows, shape (n_rows, n_columns), where they lie."""
        if self.factor is None:
            return
        inverse = torch.linalg.solve_triangular(self.factor, torch.eye(len(self.factor), dtype=X.dtype), upper=False)
        for part in X.split(_CHUNK_ROWS):  # type: ignore[no-untyped-call]
            part.copy_(part @ inverse.T)

    def fold(self, coef: torch.Tensor) -> torch.Tensor:
        """Turn coefficients of whitened columns into those of standardised ones, both (n_columns, n_outputs)."""
        if self.factor is None:
            return coef
        folded: torch.Tensor = torch.linalg.solve_triangular(self.factor.T, coef, upper=True)
        return folded


def whiten_rows(X: Float, *, power: float, shrinkage: float) -> tuple[Standardiser, Whitening, torch.Tensor]:
    """Draw long tails in, standardise, whiten: what the logistic and the MLP head learn from.

    Parameters
    ----------
    X : float32 or float64 array, shape (n_rows, n_columns)
        Raw features of training rows; left as they are.
    power : float
        Of :func:`heads.standardise.signed_power`.
    shrinkage : float
        Of :meth:`Whitening.fit`.

    Returns
    -------
    standardiser : Standardiser
        Of the features after the power.
    whitening : Whitening
    rows : float tensor, shape of X
    """
    drawn_in = signed_power(X, power)
    standardiser = Standardiser.fit(drawn_in)
    rows = torch.from_numpy(standardiser.apply(drawn_in))
    whitening = Whitening.fit(rows, shrinkage)
    whitening.apply_in_place(rows)
    return standardiser, whitening, rows
