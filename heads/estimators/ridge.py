"""The ridge head: linear regression on one column a class, solved in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from heads.dense import cholesky, solve_factored
from heads.estimators.head import Fit
from heads.estimators.linear_decision import LinearDecision
from heads.problem import Problem, TrainingSet

_MOST_STEPS = 8
FACTORS_TOGETHER = 5


class RidgeHead(LinearDecision):
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
    # A weight a class would take sums over the rows for each class.
    weighs_members = False

    def __init__(self, alpha: float = 1000.0, temperature: float = 0.2, power: float = 0.5) -> None:
        self.alpha = alpha
        self.temperature = temperature
        self.power = power

    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        r"""Minimise ``sum_i w_i ||y_i - x_i B - b||^2 + alpha ||B||^2`` for every set and alpha.

        The normal equations of a set (Hoerl and Kennard, 1970) are the sum of those of its cells. The intercept is not
        penalised. See :meth:`heads.estimators.head.Head.fit_sets`.
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
            at_once = FACTORS_TOGETHER if problem.memory is None else 1
            fits = []
            for first in range(0, len(candidates), at_once):
                alphas = candidates[first : first + at_once]
                for alpha, solution in zip(alphas, solve_shifted(gram, moment, alphas, dtype), strict=True):
                    coef = inverse_scale[:, None] * solution
                    intercept = target_mean - moments.mean @ coef
                    head = self._solved(alpha, classes, coef.to(dtype), intercept.to(dtype), many=many)
                    fits.append(Fit(place, alpha, head))
            yield fits


def solve_shifted(
    gram: torch.Tensor, moment: torch.Tensor, shifts: Sequence[float], dtype: torch.dtype
) -> list[torch.Tensor]:
    """Solve ``(gram + shift I) B = moment`` for each shift until what is left over is a 1e-7 of the right side, by factors in the rows' own type.

    A factor in float32 takes half the time; a few steps of refinement (Wilkinson, 1963), which all shifts share, mend its rounding,
    and where they do not, as for a tiny shift, float64 factors.

    Parameters
    ----------
    gram : float64 tensor, shape (n_columns, n_columns)
    moment : float64 tensor, shape (n_columns, n_targets)
    shifts : sequence of float
    dtype : torch.dtype
        Of the first factors, all of which are in memory at once.

    Returns
    -------
    list of float64 tensors, shape (n_columns, n_targets)
    """
    solutions: list[torch.Tensor | None] = [None] * len(shifts)
    if dtype != gram.dtype:
        narrow = gram.to(dtype)
        factors = {place: cholesky(narrow, shift) for place, shift in enumerate(shifts)}
        solutions = _refined(gram, moment, shifts, {place: each for place, each in factors.items() if each is not None})
    return [
        _solve_wide(gram, moment, shift) if solution is None else solution
        for shift, solution in zip(shifts, solutions, strict=True)
    ]


def _refined(
    gram: torch.Tensor, moment: torch.Tensor, shifts: Sequence[float], factors: Mapping[int, torch.Tensor]
) -> list[torch.Tensor | None]:
    """Improve solutions until what they leave over is rounding; None where that does not come about."""
    enough = 1e-7 * float(moment.norm()) + 1e-300
    found: list[torch.Tensor | None] = [None] * len(shifts)
    tried = {place: torch.zeros_like(moment) for place in factors}
    over = dict.fromkeys(tried, moment)
    left = dict.fromkeys(tried, float("inf"))
    for _ in range(_MOST_STEPS):
        if not tried:
            break
        for place, solution in tried.items():
            factor = factors[place]
            tried[place] = solution + solve_factored(factor, over[place].to(factor.dtype)).double()
        products = (gram @ torch.cat(list(tried.values()), dim=1)).split(moment.shape[1], dim=1)  # type: ignore[no-untyped-call]
        for (place, solution), product in zip(list(tried.items()), products, strict=True):
            over[place] = moment - product - shifts[place] * solution
            before, left[place] = left[place], float(over[place].norm())
            if left[place] <= enough:
                found[place] = tried.pop(place)
            elif left[place] > before / 2:
                tried.pop(place)
    return found


def _solve_wide(gram: torch.Tensor, moment: torch.Tensor, shift: float) -> torch.Tensor:
    factor = cholesky(gram, shift)
    if factor is not None:
        return solve_factored(factor, moment)
    # A tiny shift cannot lift the rounding noise of a rank-deficient matrix above zero: least squares still can.
    shifted = gram.cpu().clone()
    shifted.diagonal().add_(shift)
    least: torch.Tensor = torch.linalg.lstsq(shifted, moment.cpu(), driver="gelsd").solution
    return least.to(gram.device)
