"""The logistic head: multinomial logistic regression."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from heads.linear import LinearHead
from heads.rows import TrainingRows, check_training
from heads.standardise import Float, Standardiser, signed_power

Float64 = NDArray[np.float64]
_CHUNK_ROWS = 8192
# Share of the upper bound 1/2 of the softmax's curvature (Boehning, 1992) that is met near a solution; it shapes the steps
# of the search, not where it ends.
_CURVATURE = 0.05


class LogisticHead(LinearHead):
    """Multinomial logistic regression with a squared penalty.

    Minimises ``C * sum_i w_i * loss_i + ||B||^2 / 2`` over standardised columns, as scikit-learn's ``LogisticRegression``
    does, by L-BFGS in coordinates in which the problem is nearly round: the Cholesky factor of the rows' second moment
    preconditions, which saves most of the passes over the data.

    Parameters
    ----------
    C : float
        Weight of the data against the penalty, above 0.
    temperature : float
        Decision values are divided by it before the softmax, above 0; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised, as the MLP head has it; 1 leaves them.
    tolerance : float
        The search stops where a step lowers the objective by less than this share of it.
    max_steps : int
        Most steps of the search.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, scale_ : float array, shape (n_columns,)
        The standardisation, learned from the rows that were fitted on.
    coef_ : float32 or float64 array, shape (n_columns, n_classes)
        Coefficients of standardised columns.
    intercept_ : same, shape (n_classes,)
    objective_ : float
        What was minimised, at the solution.
    n_steps_ : int
    """

    def __init__(
        self,
        C: float = 0.01,
        temperature: float = 1.0,
        power: float = 0.5,
        tolerance: float = 1e-5,
        max_steps: int = 100,
    ) -> None:
        self.C = C
        self.temperature = temperature
        self.power = power
        self.tolerance = tolerance
        self.max_steps = max_steps

    def fit(self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None = None) -> Self:
        """Fit on all rows given.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features; float32 is computed in float32, float64 in float64.
        y : array, shape (n_rows,)
        sample_weight : float array, shape (n_rows,), optional

        Raises
        ------
        OptionError
            If C, temperature, tolerance or max_steps is not above 0.
        LabelError
            If y holds fewer than two classes.
        """
        positive = {
            "C": self.C,
            "temperature": self.temperature,
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
        }
        rows = check_training(X, y, sample_weight, positive=positive | {"power": self.power})
        rows = dataclasses.replace(rows, X=signed_power(rows.X, self.power))
        standardiser = Standardiser.fit(rows.X)
        objective = _Objective(standardiser.apply(rows.X), rows, self.C)
        found = minimize(
            objective,
            np.zeros(objective.n_unknowns),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_steps, "ftol": self.tolerance, "gtol": 0.0, "maxcor": 10},
        )
        coef, intercept = objective.unpack(torch.from_numpy(found.x))
        self.classes_ = rows.classes
        self.n_features_in_ = rows.X.shape[1]
        self.mean_, self.scale_ = standardiser.mean, standardiser.scale
        self.coef_, self.intercept_ = coef.numpy(), intercept.numpy()
        self.objective_ = float(found.fun)
        self.n_steps_ = int(found.nit)
        return self


class _Objective:
    """The regularised loss and its gradient in preconditioned coordinates.

    Parameters
    ----------
    X : float array, shape (n_rows, n_columns)
        Standardised.
    rows : TrainingRows
    C : float
    """

    def __init__(self, X: Float, rows: TrainingRows, C: float) -> None:
        self.X = torch.from_numpy(np.ascontiguousarray(X))
        self.true = torch.from_numpy(rows.indices)[:, None]
        self.weights = torch.from_numpy(rows.weights * C).to(self.X.dtype)
        self.n_classes = len(rows.classes)
        n_columns = self.X.shape[1]
        self.n_unknowns = (n_columns + 1) * self.n_classes
        # Fewer rows than columns: a factor would cost more than the steps that it saves.
        self.factor: torch.Tensor | None = None
        if n_columns <= len(self.X):
            moment = torch.eye(n_columns, dtype=self.X.dtype)
            for start in range(0, len(self.X), _CHUNK_ROWS):
                part = slice(start, start + _CHUNK_ROWS)
                weighted = self.X[part] * (_CURVATURE * self.weights[part])[:, None]
                moment += weighted.T @ self.X[part]
            self.factor = torch.linalg.cholesky(moment)
        self.intercept_scale = float(1 / torch.sqrt(_CURVATURE * self.weights.sum()))

    def unpack(self, unknowns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coefficients (n_columns, n_classes) and intercepts (n_classes,)."""
        unknowns = unknowns.to(self.X.dtype)
        whitened = unknowns[: -self.n_classes].reshape(-1, self.n_classes)
        coef = whitened if self.factor is None else torch.linalg.solve_triangular(self.factor.T, whitened, upper=True)
        return coef, unknowns[-self.n_classes :] * self.intercept_scale

    def __call__(self, unknowns: Float64) -> tuple[float, Float64]:
        """Return the objective and its gradient."""
        coef, intercept = self.unpack(torch.from_numpy(unknowns))
        log_probabilities = torch.log_softmax(torch.addmm(intercept, self.X, coef), dim=1)
        losses = -log_probabilities.gather(1, self.true)[:, 0] * self.weights
        value = losses.sum(dtype=torch.float64) + coef.square().sum(dtype=torch.float64) / 2
        slope = log_probabilities.exp_()
        slope.scatter_add_(1, self.true, torch.full_like(self.weights, -1)[:, None])
        slope *= self.weights[:, None]
        gradient = self.X.T @ slope + coef
        if self.factor is not None:
            gradient = torch.linalg.solve_triangular(self.factor, gradient, upper=False)
        flat = torch.cat([gradient.reshape(-1), slope.sum(dim=0) * self.intercept_scale])
        return float(value), flat.double().numpy()
