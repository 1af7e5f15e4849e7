"""The ridge head: linear regression on one column a class, solved in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from heads.dense import cholesky, solve_factored
from heads.head import Fit
from heads.linear import LinearHead
from heads.problem import Problem, TrainingSet

_MOST_STEPS = 8


class RidgeHead(LinearHead):
    """Ridge classifier with probabilities.

    Targets are +1 for an image's class, or classes, and -1 for the others. Decision values become probabilities by a softmax, or
    a sigmoid a class, with a temperature (Guo et al., 2017), which is a parameter here and chosen out of fold.

    Parameters
    ----------
    alpha : float
        Strength of the penalty on the squared coefficients of standardised columns, above 0; scikit-learn's ``Ridge``
        means the same by it.
    temperature : float
        Decision values are divided by it, above 0.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised; 1 leaves them.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    coef_ : float32 or float64 array, shape (n_columns, n_classes)
        Of plain (drawn-in) columns, of X's number type.
    intercept_ : same, shape (n_classes,)
    """

    chosen = "alpha"

    def __init__(self, alpha: float = 1000.0, temperature: float = 0.2, power: float = 0.5) -> None:
        self.alpha = alpha
        self.temperature = temperature
        self.power = power

    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        r"""Minimise ``sum_i w_i ||y_i - x_i B - b||^2 + alpha ||B||^2`` for every set and alpha.

        The normal equations of a set (Hoerl and Kennard, 1970) are the sum of those of its cells. The intercept is not
        penalised. See :meth:`heads.head.Head.fit_sets`.
        """
        dtype, many = problem.rows.dtype, problem.targets.is_many
        for place, cells in enumerate(sets):
            moments = problem.moments_of(cells, weighted=True)
            classes = problem.classes_of(cells)
            inverse_scale = moments.inverse_scale()
            gram = moments.correlation(inverse_scale).mul_(moments.n_rows)
            # With targets +-1: sum of w x y is twice that over the rows of the class, less that over all rows.
            share = moments.weight[classes] / moments.n_rows
            centred = moments.total[:, classes] - torch.outer(moments.offset, moments.weight[classes])
            moment = 2 * inverse_scale[:, None] * centred
            target_mean = 2 * share - 1
            solver = _Solver(gram, moment, dtype)
            fits = []
            for alpha in candidates:
                coef = inverse_scale[:, None] * solver.solve(alpha)
                intercept = target_mean - moments.mean @ coef
                head = self._solved(alpha, classes, coef.to(dtype), intercept.to(dtype), many=many)
                fits.append(Fit(place, alpha, head))
            yield fits


class _Solver:
    """Solves ``(gram + alpha I) B = moment`` to float64's precision, by a factor in the rows' own.

    A factor in float32 takes half the time; a few steps of refinement (Wilkinson, 1963) mend its rounding, and where they do
    not, as for a tiny alpha, float64 factors.

    Parameters
    ----------
    gram : float64 tensor, shape (n_columns, n_columns)
    moment : float64 tensor, shape (n_columns, n_targets)
    dtype : torch.dtype
        Of the first factor.
    """

    def __init__(self, gram: torch.Tensor, moment: torch.Tensor, dtype: torch.dtype) -> None:
        self._gram, self._moment = gram, moment
        self._narrow = gram.to(dtype)
        self._rounding = 1e-7 * float(moment.norm()) + 1e-300

    def solve(self, alpha: float) -> torch.Tensor:
        """Return B, float64, shape (n_columns, n_targets)."""
        if self._narrow.dtype != self._gram.dtype:
            factor = cholesky(self._narrow, alpha)
            solution = None if factor is None else self._refined(factor, alpha)
            if solution is not None:
                return solution
        factor = cholesky(self._gram, alpha)
        if factor is None:
            # A tiny alpha cannot lift the rounding noise of a rank-deficient matrix above zero: least squares still can.
            shifted = self._gram.cpu().clone()
            shifted.diagonal().add_(alpha)
            least: torch.Tensor = torch.linalg.lstsq(shifted, self._moment.cpu(), driver="gelsd").solution
            return least.to(self._gram.device)
        return solve_factored(factor, self._moment)

    def _refined(self, factor: torch.Tensor, alpha: float) -> torch.Tensor | None:
        solution = torch.zeros_like(self._moment)
        residual, left = self._moment, float("inf")
        for _ in range(_MOST_STEPS):
            solution = solution + solve_factored(factor, residual.to(factor.dtype)).double()
            residual = self._moment - self._gram @ solution - alpha * solution
            before, left = left, float(residual.norm())
            if left <= self._rounding:
                return solution
            if left > before / 2:
                break
        return None
