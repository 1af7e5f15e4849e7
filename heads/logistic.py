"""The logistic head: multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import clone

from heads.linear import LinearHead
from heads.rows import TrainingRows, check_training
from heads.standardise import Float
from heads.whiten import whiten_rows

Float64 = NDArray[np.float64]


class LogisticHead(LinearHead):
    """Multinomial logistic regression with a squared penalty on whitened columns.

    Minimises ``C * sum_i w_i * loss_i + ||B||^2 / 2``, as scikit-learn's ``LogisticRegression`` does, by L-BFGS. In
    whitened columns the penalty asks the same of every direction, and the problem is nearly round: a few dozen passes
    over the rows solve it.

    Parameters
    ----------
    C : float
        Weight of the data against the penalty, above 0.
    temperature : float
        Decision values are divided by it before the softmax, above 0; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised, as the MLP head has it; 1 leaves them.
    shrinkage : float
        Of the whitening, above 0, at most 1; 1 is no whitening. See :meth:`heads.whiten.Whitening.fit`.
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
        Coefficients of standardised columns: the whitening is folded in.
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
        shrinkage: float = 0.25,
        tolerance: float = 1e-5,
        max_steps: int = 100,
    ) -> None:
        self.C = C
        self.temperature = temperature
        self.power = power
        self.shrinkage = shrinkage
        self.tolerance = tolerance
        self.max_steps = max_steps

    def fit(self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None = None) -> Self:
        """Fit on all rows given; arguments and errors as of :meth:`fit_path`."""
        (fitted,) = self.fit_path(X, y, sample_weight, [self.C])
        self.__dict__.update(fitted.__dict__)
        return self

    def fit_path(
        self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None, candidates: Sequence[float]
    ) -> Iterator[Self]:
        """Fit a head for each C, one after the other, each search beginning where the last one ended.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features; float32 is computed in float32, float64 in float64.
        y : array, shape (n_rows,)
        sample_weight : float array, shape (n_rows,), or None
        candidates : sequence of float
            Values of C, ascending.

        Yields
        ------
        LogisticHead
            New heads; this one stays as it is.

        Raises
        ------
        OptionError
            If a parameter is out of its range.
        LabelError
            If y holds fewer than two classes.
        """
        positive = {name: getattr(self, name) for name in ("temperature", "power", "tolerance", "max_steps")}
        rows = check_training(X, y, sample_weight, positive={"C": min(candidates)} | positive)
        standardiser, whitening, whitened = whiten_rows(rows.X, power=self.power, shrinkage=self.shrinkage)
        n_columns, n_classes = rows.X.shape[1], len(rows.classes)
        place = np.zeros((n_columns + 1) * n_classes)
        for C in candidates:
            found = minimize(
                _Objective(whitened, rows, C),
                place,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": self.max_steps, "ftol": self.tolerance, "gtol": 0.0, "maxcor": 10},
            )
            place = found.x
            solution = torch.from_numpy(place).to(whitened.dtype).reshape(n_columns + 1, n_classes)
            head = clone(self).set_params(C=C)
            head.classes_ = rows.classes
            head.n_features_in_ = n_columns
            head.mean_, head.scale_ = standardiser.mean, standardiser.scale
            head.coef_, head.intercept_ = whitening.fold(solution[:-1]).numpy(), solution[-1].numpy()
            head.objective_, head.n_steps_ = float(found.fun), int(found.nit)
            yield head


class _Objective:
    """The regularised loss and its gradient.

    Parameters
    ----------
    X : float tensor, shape (n_rows, n_columns)
        Whitened.
    rows : TrainingRows
    C : float
    """

    def __init__(self, X: torch.Tensor, rows: TrainingRows, C: float) -> None:
        self.X = X
        self.true = torch.from_numpy(rows.indices)[:, None]
        self.weights = torch.from_numpy(rows.weights * C).to(X.dtype)
        self.shape = X.shape[1] + 1, len(rows.classes)

    def __call__(self, unknowns: Float64) -> tuple[float, Float64]:
        """Return the objective and its gradient; the last row of unknowns is the intercept."""
        solution = torch.from_numpy(unknowns).to(self.X.dtype).reshape(self.shape)
        coef = solution[:-1]
        log_probabilities = torch.log_softmax(torch.addmm(solution[-1], self.X, coef), dim=1)
        losses = -log_probabilities.gather(1, self.true)[:, 0] * self.weights
        value = losses.sum(dtype=torch.float64) + coef.square().sum(dtype=torch.float64) / 2
        slope = log_probabilities.exp_()
        slope.scatter_add_(1, self.true, torch.full_like(self.weights, -1)[:, None])
        slope *= self.weights[:, None]
        gradient = torch.cat([self.X.T @ slope + coef, slope.sum(dim=0)[None]])
        return float(value), gradient.reshape(-1).double().numpy()
