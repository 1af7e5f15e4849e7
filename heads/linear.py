"""What the ridge and the logistic head share: decision values that are linear in the columns."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from sklearn.base import clone

from heads.arrays import Float, Indices
from heads.head import Head


class LinearHead(Head):
    """A head whose decision values are linear in the drawn-in columns.

    Attributes
    ----------
    coef_ : float array, shape (n_columns, n_classes)
        Of plain columns: standardisation and whitening are folded in.
    intercept_ : float array, shape (n_classes,)
    """

    coef_: Float
    intercept_: Float

    def _solved(self, candidate: float, classes: Indices, coef: torch.Tensor, intercept: torch.Tensor) -> Self:
        """Return a fitted copy."""
        head: Self = clone(self).set_params(**{self.chosen: candidate})
        head.classes_ = classes
        head.n_features_in_ = len(coef)
        head.coef_ = np.ascontiguousarray(coef.cpu().numpy())
        head.intercept_ = intercept.cpu().numpy().copy()
        return head

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return decision values; see :meth:`heads.head.Head.outputs`."""
        coef, intercept = (torch.from_numpy(array).to(rows.device) for array in (self.coef_, self.intercept_))
        return torch.addmm(intercept, rows.to(coef.dtype), coef)[None]

    def decision_function(self, X: Float) -> Float:
        """Return decision values, shape (n_rows, n_classes), also where there are two classes."""
        decision: Float = self.member_scores(X)[0]
        return decision
