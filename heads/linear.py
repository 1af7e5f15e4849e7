"""What the ridge and logistic heads share once they are fitted: decision values and how they become probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from heads.rows import check_rows
from heads.standardise import Float, Standardiser, signed_power

_CHUNK_ROWS = 8192


class LinearHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head whose decision values are linear in the standardised columns.

    Attributes
    ----------
    temperature : float
        Decision values are divided by it before the softmax.
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, scale_ : float array, shape (n_columns,)
    coef_ : float array, shape (n_columns, n_classes)
    intercept_ : float array, shape (n_classes,)
    """

    temperature: float
    power: float = 1.0  # heads that draw in long tails set their own
    classes_: NDArray[Any]
    n_features_in_: int
    mean_: Float
    scale_: Float
    coef_: Float
    intercept_: Float

    def decision_function(self, X: Float) -> Float:
        """Return decision values, shape (n_rows, n_classes), also where there are two classes."""
        check_is_fitted(self, "coef_")
        X = check_rows(X, self.n_features_in_)
        standardiser = Standardiser(self.mean_, self.scale_)
        coef, intercept = torch.from_numpy(self.coef_), torch.from_numpy(self.intercept_)
        parts = []
        for start in range(0, len(X), _CHUNK_ROWS):
            drawn_in = signed_power(X[start : start + _CHUNK_ROWS], self.power)
            standard = torch.from_numpy(standardiser.apply(drawn_in)).to(coef.dtype)
            parts.append(torch.addmm(intercept, standard, coef))
        decision: Float = torch.cat(parts).numpy()
        return decision

    def member_scores(self, X: Float) -> Float:
        """Return the softmax's arguments before the temperature, shape (1, n_rows, n_classes): one member, itself."""
        return self.decision_function(X)[None]

    def predict_proba(self, X: Float) -> Float:
        """Return probabilities, shape (n_rows, n_classes); rows sum to 1."""
        probabilities: Float = softmax(self.decision_function(X) / self.temperature, axis=1)
        return probabilities

    def predict(self, X: Float) -> NDArray[Any]:
        """Return the class of each row, shape (n_rows,)."""
        predicted: NDArray[Any] = self.classes_[np.argmax(self.decision_function(X), axis=1)]
        return predicted
