"""The least seconds that each stage of the heads' bench must take: max(FLOPs / measured matmul rate, bytes / measured bandwidth)."""

from __future__ import annotations

import torch

import heads.estimators.logistic
from bench.heads_work import CLASSES, COLUMNS, FOLDS, SETS, Work
from heads.dense import product
from heads.estimators.catalogue import HEADS


def ridge_limit(work: Work) -> float:
    """Count sums over the rows (half a product each), factors, what each head says of the images that it never saw."""
    n_rows, n_fits = len(work.rows), SETS * len(HEADS["ridge"].grid)
    judged = 15 / FOLDS * n_rows * len(HEADS["ridge"].grid) * 2 * COLUMNS * CLASSES
    return work.limit(flops=n_rows * COLUMNS**2 + n_fits * COLUMNS**3 / 3 + judged, passes=3)


class Counted:
    """FLOPs and bytes of the logistic head's products with rows and coordinates, while it is entered."""

    def __init__(self) -> None:
        self.flops, self.bytes = 0.0, 0.0

    def __enter__(self) -> None:
        def counting(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
            self.bytes += left.nbytes + right.nbytes
            return product(left, right)

        heads.estimators.logistic.product = counting  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        heads.estimators.logistic.product = product  # type: ignore[attr-defined]


def logistic_limit(work: Work, counted: Counted, n_sets: int) -> float:
    """Count sums over the rows, a factor and its inverse a set, and the products of all steps."""
    before = work.limit(flops=len(work.rows) * COLUMNS**2 + n_sets * 2 * COLUMNS**3 / 3, passes=2)
    return before + max(counted.flops / work.flops_s, counted.bytes / work.bytes_s)


def epoch_limit(work: Work) -> float:
    """Count products forward and back, and the optimiser's passes over weights, sums and slopes."""
    n_rows = len(work.rows)
    weights = 3 * 256 * COLUMNS + 3 * 256 * 256 + 3 * 256 * CLASSES
    flops = 2 * n_rows * (2 * 3 * 256 * COLUMNS + 3 * (3 * 256 * 256))
    return work.limit(flops=0, narrow_flops=flops, passes=2) + n_rows / 256 * weights * 28 / work.bytes_s


def mlp_limit(work: Work) -> float:
    """Count for all sets and epochs sums, whitening, epochs of the share of rows that each set has, and what is said of the others."""
    n_rows, n_epochs, n_watched = len(work.rows), 12, len((*HEADS["mlp"].watched, *HEADS["mlp"].grid))
    sets = (*5 * (1 - 1 / FOLDS,), *5 * (1 - 2 / FOLDS,), 1.0)
    judged = 2 * n_rows / FOLDS * 10 * n_watched * 3 * 256 * COLUMNS
    folded = 11 * n_watched * 2 * COLUMNS**2 * 3 * 256
    before = work.limit(flops=n_rows * COLUMNS**2 + 11 * 2 * COLUMNS**3 / 3 + judged + folded, passes=2)
    whitened = work.limit(flops=0, narrow_flops=sum(sets) * 2 * n_rows * COLUMNS**2, passes=sum(sets))
    return before + whitened + sum(sets) * n_epochs * epoch_limit(work)
