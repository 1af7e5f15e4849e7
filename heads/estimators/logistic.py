"""The logistic head: logistic regression, multinomial or one against the rest, many training sets in one pass over the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from features_cache.errors import OptionError
from heads.arrays import Indices
from heads.dense import inverse_factor, product
from heads.estimators.head import Fit
from heads.estimators.lbfgs import LBFGS
from heads.estimators.linear_decision import LinearDecision
from heads.problem import Problem, TrainingSet

_NEVER = -1e30


class LogisticHead(LinearDecision):
    """Multinomial logistic regression with a squared penalty on whitened columns; one against the rest where labels are many.

    Minimises ``C * sum_i w_i * loss_i + ||B||^2 / 2``, as scikit-learn's ``LogisticRegression`` does; B are the coefficients
    of whitened columns (of standardised ones with ``shrinkage=1``), where the penalty asks the same of every direction.

    Parameters
    ----------
    C : float
        Weight of the data against the penalty, above 0.
    temperature : float
        Decision values are divided by it before the softmax, above 0; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised, as the MLP head has it; 1 leaves them.
    shrinkage : float
        Of the whitening, above 0, at most 1; 1 is no whitening. See :meth:`heads.estimators.whiten.Whitening.fit`.
    tolerance : float
        The search stops where a step lowers the objective by less than this share of it.
    max_steps : int
        Most steps of the search.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    coef_ : float32 or float64 array, shape (n_columns, n_classes)
        Of plain (drawn-in) columns: standardisation and whitening are folded in.
    intercept_ : same, shape (n_classes,)
    objective_ : float
        What was minimised, at the solution.
    n_steps_ : int
    """

    chosen = "C"

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

    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        """Fit sets side by side, as many as memory is for, C by C, each search beginning where the last one ended.

        See :meth:`heads.estimators.head.Head.fit_sets`; yields the fits of these sets for one C.
        """
        most = len(sets) if problem.memory is None else problem.memory.sets_together(len(sets))
        for first in range(0, len(sets), most):
            for fits in self._fit_together(problem, sets[first : first + most], candidates):
                yield [fit._replace(place=first + fit.place) for fit in fits]

    def _fit_together(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        # One set of coordinates serves the whole path: good for its middle, good enough for its ends.
        middle = float(np.exp(np.mean(np.log([min(candidates), max(candidates)]))))
        coordinates = [_Coordinates(problem, cells, middle, self.shrinkage) for cells in sets]
        points = [each.zero() for each in coordinates]
        for C in candidates:
            searches = [
                LBFGS(point, curvature=max(1.0, C / middle), tolerance=self.tolerance, max_steps=self.max_steps)
                for point in points
            ]
            _run(problem, coordinates, searches, C)
            points = [search.point for search in searches]
            fits = []
            for place, (each, search) in enumerate(zip(coordinates, searches, strict=True)):
                coef, intercept = each.plain(search.point, each.standard(search.point))
                known = torch.from_numpy(each.classes).to(coef.device)
                many = problem.targets.is_many
                head = self._solved(C, each.classes, coef[:, known], intercept[known], many=many)
                head.objective_, head.n_steps_ = search.value, search.n_steps
                fits.append(Fit(place, C, head))
            yield fits


class _Coordinates:
    """The unknowns of one training set, in coordinates in which its objective is nearly round.

    With S the covariance of standardised columns within classes and s the shrinkage, the penalty of standardised coefficients b is
    ``b'((1-s)S + sI)b/2``, and the data's curvature about ``cS``, where c is C times the weight of all rows times the variance of
    a probability (Boehning, 1992). So the search is for u with ``b = inv(L') u``, ``LL' = (c + 1 - s)S + sI``: its curvature is
    about 1 everywhere.

    Parameters
    ----------
    problem : Problem
    cells : TrainingSet
    C : float
        For which the coordinates are good.
    shrinkage : float
    """

    def __init__(self, problem: Problem, cells: TrainingSet, C: float, shrinkage: float) -> None:
        if not 0 < shrinkage <= 1:
            msg = f"shrinkage is {shrinkage}; expected a number above 0, at most 1"
            raise OptionError(msg)
        moments = problem.moments_of(cells)
        dtype = problem.rows.dtype
        self.classes: Indices = problem.classes_of(cells)
        self._n_classes = problem.n_classes
        weight = float(problem.weights[problem.images_of(cells)].sum()) * problem.rows.n_views
        curvature = C * weight * _variance_of_a_probability(problem, cells, self.classes)
        inverse_scale = moments.inverse_scale()
        shaped = moments.correlation_within(inverse_scale).mul_(curvature + 1 - shrinkage)
        shaped.diagonal().add_(shrinkage)
        self._inverse = inverse_factor(shaped, dtype)
        self._inverse_scale = inverse_scale.to(dtype)[:, None]
        self._mean = moments.mean.to(dtype)
        self._unit = curvature**-0.5
        # b'Mb = a u'u + s(1-a) b'b, with M = (1-s)S + sI written through LL'.
        a = (1 - shrinkage) / (curvature + 1 - shrinkage)
        self._on_u, self._on_b = a, shrinkage * (1 - a)
        self.member = torch.from_numpy(np.isin(problem.cells, list(cells)))
        self._absent = torch.ones(problem.n_classes, dtype=torch.bool)
        self._absent[torch.from_numpy(self.classes)] = False

    def zero(self) -> torch.Tensor:
        """Return the first point: float64, shape (n_columns + 1, n_classes); its last row is the intercepts'."""
        return torch.zeros((len(self._mean) + 1, self._n_classes), dtype=torch.float64, device=self._mean.device)

    def standard(self, point: torch.Tensor) -> torch.Tensor:
        """Return coefficients of standardised columns, shape (n_columns, n_classes)."""
        return product(self._inverse.T, point[:-1].to(self._inverse.dtype))

    def plain(self, point: torch.Tensor, standard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coefficients of plain columns, and intercepts; those of absent classes are never chosen."""
        coef = self._inverse_scale * standard
        intercept = (point[-1] * self._unit).to(coef.dtype) - self._mean @ coef
        return coef, intercept.masked_fill(self._absent.to(coef.device), _NEVER)

    def whole(
        self, point: torch.Tensor, standard: torch.Tensor, loss: float, gradient: torch.Tensor, total: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """Add the penalty to the data's loss.

        Parameters
        ----------
        point : tensor
        standard : tensor
            Its coefficients of standardised columns.
        loss : float
            Sum over the rows.
        gradient : tensor, shape (n_columns, n_classes)
            By the plain coefficients.
        total : tensor, shape (n_classes,)
            By the intercepts.

        Returns
        -------
        float, and float64 tensor of the point's shape
        """
        u = point[:-1]
        penalty = self._on_u * u.square().sum() + self._on_b * standard.square().sum(dtype=torch.float64)
        by_standard = self._inverse_scale * torch.addr(gradient, self._mean, total, alpha=-1) + self._on_b * standard
        by_u = product(self._inverse, by_standard).double() + self._on_u * u
        return loss + float(penalty) / 2, torch.cat([by_u, total.double()[None] * self._unit])


def _variance_of_a_probability(problem: Problem, cells: TrainingSet, classes: Indices) -> float:
    """Guess ``p (1 - p)`` of a row's probabilities, mean over classes: what curves the loss."""
    if not problem.targets.is_many:
        return 1 / len(classes) * (1 - 1 / len(classes))
    here = problem.targets.take(problem.learned_from(cells))
    share = (here.counts[classes] / len(here)).clip(0.01, 0.5)
    return float((share * (1 - share)).mean())


def _run(problem: Problem, coordinates: Sequence[_Coordinates], searches: Sequence[LBFGS], C: float) -> None:
    """Search for all sets at once: a pass over the rows shows each its trial point."""
    weights = torch.from_numpy(problem.weights * C)
    while active := [place for place, search in enumerate(searches) if not search.is_done]:
        weighted = torch.stack([weights * coordinates[place].member for place in active])
        standard = [coordinates[place].standard(searches[place].trial) for place in active]
        plain = [
            coordinates[place].plain(searches[place].trial, own) for place, own in zip(active, standard, strict=True)
        ]
        losses, gradients, totals = _pass(problem, plain, weighted)
        for slot, place in enumerate(active):
            search = searches[place]
            data = losses[slot], gradients[slot], totals[slot]
            search.tell(*coordinates[place].whole(search.trial, standard[slot], *data))


def _pass(
    problem: Problem, plain: Sequence[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor
) -> tuple[list[float], list[torch.Tensor], list[torch.Tensor]]:
    """Sum losses and gradients of several heads over all rows.

    Parameters
    ----------
    problem : Problem
    plain : sequence of (coef, intercept)
        Shapes (n_columns, n_classes) and (n_classes,).
    weights : float64 tensor, shape (n_heads, n_images)

    Returns
    -------
    losses : list of float
    gradients : list of float tensor, shape (n_columns, n_classes)
        By the coefficients.
    totals : list of float tensor, shape (n_classes,)
        By the intercepts.
    """
    rows, n_heads, n_classes = problem.rows, len(plain), problem.n_classes
    # Classes come first and rows last: sums over classes then run along memory, thirty times as fast.
    coef = torch.stack([each.T for each, _ in plain], dim=1).reshape(n_classes * n_heads, -1)
    intercept = torch.stack([each for _, each in plain], dim=1).reshape(-1, 1)
    weights = weights.to(rows.device)
    targets = problem.targets.encoded(np.arange(n_classes)).to(rows.device)
    positive = torch.from_numpy(problem.positive_weights).to(rows.device, rows.dtype)
    losses = torch.zeros(n_heads, dtype=torch.float64, device=rows.device)
    gradient = torch.zeros_like(coef)
    total = torch.zeros_like(intercept)
    for images, chunk in rows.chunks():
        here = torch.from_numpy(images).to(rows.device)
        weight = weights[:, here].repeat_interleave(rows.n_views, dim=1)
        true = targets[here].repeat_interleave(rows.n_views, dim=0)
        logits = product(coef, chunk.T).add_(intercept).reshape(n_classes, n_heads, len(chunk))
        if problem.targets.is_many:
            own, slope = _binary(logits, true.T.to(rows.dtype), positive)
        else:
            own, slope = _multinomial(logits, true)
        losses += (own * weight).sum(dim=1)
        flat = slope.mul_(weight.to(slope.dtype)).reshape(n_classes * n_heads, -1)
        gradient += product(flat, chunk)
        total += flat.sum(dim=1, keepdim=True)
    by_head = gradient.reshape(n_classes, n_heads, -1).permute(1, 2, 0)
    return losses.tolist(), list(by_head), list(total.reshape(n_classes, n_heads).T)


def _multinomial(logits: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cross-entropy, shape (n_heads, n_rows), and its slope by the logits, shape (n_classes, n_heads, n_rows)."""
    places = true.expand(1, *logits.shape[1:])
    slope = torch.log_softmax(logits, dim=0)
    losses = -slope.gather(0, places)[0]
    slope.exp_().scatter_add_(0, places, slope.new_full((1, 1, 1), -1).expand(places.shape))
    return losses, slope


def _binary(logits: torch.Tensor, true: torch.Tensor, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same of binary cross-entropies, summed over classes, members weighing ``positive``."""
    member = (true * positive[:, None])[:, None]
    either = member + (1 - true)[:, None]
    # softplus(-z) = softplus(z) - z: one costly function instead of two.
    losses = torch.nn.functional.softplus(logits).mul_(either).sub_(member * logits).sum(dim=0)
    return losses, torch.sigmoid(logits).mul_(either).sub_(member)
