"""The ridge head: linear regression on one column a class, solved in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from heads.linear import LinearHead
from heads.rows import check_training
from heads.standardise import Float, Standardiser

_CHUNK_ROWS = 8192
Float64 = NDArray[np.float64]


class RidgeHead(LinearHead):
    """Ridge classifier with probabilities.

    Targets are +1 for an image's class and -1 for the others. Decision values become probabilities by a softmax with a
    temperature (Guo et al., 2017), which is a parameter here and chosen out of fold.

    Parameters
    ----------
    alpha : float
        Strength of the penalty on the squared coefficients of standardised columns, above 0; scikit-learn's ``Ridge``
        means the same by it.
    temperature : float
        Decision values are divided by it, above 0.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, scale_ : float array, shape (n_columns,)
        The standardisation, learned from the rows that were fitted on.
    coef_ : float32 or float64 array, shape (n_columns, n_classes)
        Coefficients of standardised columns, of X's number type.
    intercept_ : same, shape (n_classes,)
    """

    def __init__(self, alpha: float = 1000.0, temperature: float = 0.2) -> None:
        self.alpha = alpha
        self.temperature = temperature

    def fit(self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None = None) -> Self:
        """Fit on all rows given; arguments and errors as of :meth:`fit_path`."""
        (fitted,) = self.fit_path(X, y, sample_weight, [self.alpha])
        self.__dict__.update(fitted.__dict__)
        return self

    def fit_path(
        self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None, candidates: Sequence[float]
    ) -> list[Self]:
        """Fit a head for each alpha, sharing the pass over the rows.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features.
        y : array, shape (n_rows,)
        sample_weight : float array, shape (n_rows,), or None
        candidates : sequence of float
            Alphas.

        Returns
        -------
        list of RidgeHead
            New heads, in the order of ``candidates``; this one stays as it is.

        Raises
        ------
        OptionError
            If a parameter is out of its range.
        LabelError
            If y holds fewer than two classes.
        """
        rows = check_training(X, y, sample_weight, positive={"alpha": min(candidates), "temperature": self.temperature})
        standardiser = Standardiser.fit(rows.X)
        targets = np.where(rows.indices[:, None] == np.arange(len(rows.classes)), 1.0, -1.0)
        solutions = solve_ridge(standardiser.apply(rows.X), targets, rows.weights, candidates)
        heads = []
        for alpha, (coef, intercept) in zip(candidates, solutions, strict=True):
            head = clone(self).set_params(alpha=alpha)
            head.classes_ = rows.classes
            head.n_features_in_ = rows.X.shape[1]
            head.mean_, head.scale_ = standardiser.mean, standardiser.scale
            head.coef_, head.intercept_ = coef.astype(rows.X.dtype), intercept.astype(rows.X.dtype)
            heads.append(head)
        return heads


def solve_ridge(X: Float, Y: Float64, weights: Float64, alphas: Sequence[float]) -> list[tuple[Float64, Float64]]:
    r"""Minimise ``sum_i w_i ||y_i - x_i B - b||^2 + alpha ||B||^2`` for several alphas.

    The normal equations are set up once, in the smaller of columns and rows (Hoerl and Kennard, 1970; the dual form by
    Saunders et al., 1998), and factored for each alpha. The intercept is not penalised.

    Parameters
    ----------
    X : float32 or float64 array, shape (n_rows, n_columns)
        Products of float32 rows are added up in float64, a chunk at a time.
    Y : float64 array, shape (n_rows, n_targets)
    weights : float64 array, shape (n_rows,)
        0 or more, not all 0.
    alphas : sequence of float
        Above 0.

    Returns
    -------
    list of (coef, intercept)
        float64 arrays, shape (n_columns, n_targets) and (n_targets,), for each alpha.
    """
    total = weights.sum()
    x_mean = (weights.astype(X.dtype) @ X).astype(np.float64) / total
    y_mean = weights @ Y / total
    root = torch.from_numpy(np.sqrt(weights))[:, None]
    rows, residual = torch.from_numpy(X), torch.from_numpy(Y - y_mean) * root
    centre = torch.from_numpy(x_mean.astype(X.dtype))
    if X.shape[1] <= X.shape[0]:
        gram, moment = _normal_equations(rows, residual, root, centre)
        coefs = [_solve(gram, alpha, moment).numpy() for alpha in alphas]
    else:
        centred = ((rows - centre) * root).double()
        kernel = centred @ centred.T
        coefs = [(centred.T @ _solve(kernel, alpha, residual)).numpy() for alpha in alphas]
    return [(coef, y_mean - x_mean @ coef) for coef in coefs]


def _normal_equations(
    X: torch.Tensor, residual: torch.Tensor, root: torch.Tensor, centre: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    gram = torch.zeros((X.shape[1], X.shape[1]), dtype=torch.float64)
    moment = torch.zeros((X.shape[1], residual.shape[1]), dtype=torch.float64)
    for start in range(0, len(X), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        centred = (X[part] - centre) * root[part].to(X.dtype)
        gram += centred.T @ centred
        moment += centred.T @ residual[part].to(X.dtype)
    return gram, moment


def _solve(matrix: torch.Tensor, alpha: float, right: torch.Tensor) -> torch.Tensor:
    shifted = matrix.clone()
    shifted.diagonal().add_(alpha)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if int(failed):
        # A tiny alpha cannot lift the rounding noise of a rank-deficient matrix above zero: least squares still can.
        least: torch.Tensor = torch.linalg.lstsq(shifted, right, driver="gelsd").solution
        return least
    return torch.cholesky_solve(right, factor)
