"""What the ridge, the logistic and the dropout head share: decision values that are linear in the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from heads.arrays import Float, Indices
from heads.dense import product
from heads.estimators.head import Head


class LinearDecision(Head):
    """A head whose decision values are linear in the drawn-in columns.

    Attributes
    ----------
    coef_ : float array, shape (n_columns, n_classes)
        Of plain columns: standardisation and whitening are folded in.
    intercept_ : float array, shape (n_classes,)
    """

    coef_: Float
    intercept_: Float

    def _solved(
        self, candidate: float, classes: Indices, coef: torch.Tensor, intercept: torch.Tensor, *, many: bool
    ) -> Self:
        """Return a fitted copy."""
        head: Self = clone(self).set_params(**{self.chosen: candidate})
        head.classes_ = classes
        head.is_many_ = many
        head.n_features_in_ = len(coef)
        head.coef_ = np.ascontiguousarray(coef.cpu().numpy())
        head.intercept_ = intercept.cpu().numpy().copy()
        return head

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return coefficients and intercepts."""
        return {"coef_": self.coef_, "intercept_": self.intercept_}

    def _take_up(self, arrays: dict[str, NDArray[Any]], n_columns: int, n_classes: int) -> None:
        self._set_arrays(arrays, {"coef_": (n_columns, n_classes), "intercept_": (n_classes,)})

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return decision values; see :meth:`heads.estimators.head.Head.outputs`."""
        return self.outputs_of([self], rows)[0]

    @classmethod
    def outputs_of(cls, heads: Sequence[LinearDecision], rows: torch.Tensor) -> list[torch.Tensor]:
        """Return the decision values of several heads, in one product; see :meth:`heads.estimators.head.Head.outputs_of`."""
        coef, intercept = (
            torch.from_numpy(np.concatenate(arrays, axis=-1)).to(rows.device)
            for arrays in ([head.coef_ for head in heads], [head.intercept_ for head in heads])
        )
        together = product(rows.to(coef.dtype), coef).add_(intercept)
        return [part[None] for part in together.split([len(head.classes_) for head in heads], dim=1)]  # type: ignore[no-untyped-call]

    def decision_function(self, X: Float) -> Float:
        """Return decision values, shape (n_rows, n_classes); of two classes the second's less the first's, shape (n_rows,)."""
        decision: Float = self.member_scores(X)[0]
        if len(self.classes_) == 2 and not self.is_many_:
            return np.asarray(decision[:, 1] - decision[:, 0])
        return decision
