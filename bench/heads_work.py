"""The work of the heads' bench: drawn features as pooled ones are, and what the machine can do."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from features_cache.hardware import cpu_is_fast_in_bfloat16
from heads.class_weights import sample_weights
from heads.dense import product
from heads.feature_rows import FeatureRows
from heads.folds import Fold, make_folds
from heads.problem import TrainingData
from heads.sizes import POWER
from heads.targets import OneLabel

VIEWS, COLUMNS, CLASSES, FOLDS = 6, 3072, 9, 5
SETS = 16  # of training images: five without one fold, ten without two, and all


class Work:
    """Drawn features, and what the machine can do.

    Parameters
    ----------
    n_images : int
    """

    def __init__(self, n_images: int) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.choice(CLASSES, n_images, p=np.arange(1, CLASSES + 1) / 45).astype(np.int64)
        # As pooled features are: a few directions in which all images vary together, many in which they hardly do, and classes
        # told apart by some between; views of an image close to each other; positive, with long tails.
        spectrum = (10 * 0.985 ** np.arange(600)).astype(np.float32)
        mixing = rng.normal(size=(600, COLUMNS)).astype(np.float32) / 25
        centres = rng.normal(size=(CLASSES, 1, 600)).astype(np.float32) * 0.25
        hidden = (rng.normal(size=(n_images, 1, 600)).astype(np.float32) + centres[self.labels]) * spectrum
        hidden = hidden + 0.4 * spectrum * rng.normal(size=(n_images, VIEWS, 600)).astype(np.float32)
        noise = rng.normal(size=(n_images, VIEWS, COLUMNS)).astype(np.float32)
        self.X = np.maximum(hidden @ mixing + 0.1 * noise, 0) ** 2
        self.targets = OneLabel(self.labels, CLASSES)
        self.folds: tuple[Fold, ...] = make_folds(self.targets, None, n_folds=FOLDS)
        self.weights = sample_weights(self.targets, "balanced")
        self.flops_s = _matmul_rate(torch.float32)
        self.narrow_flops_s = _matmul_rate(torch.bfloat16) if cpu_is_fast_in_bfloat16() else self.flops_s
        self.bytes_s = _bandwidth()

    @property
    def rows(self) -> NDArray[np.float32]:
        """A row a view."""
        return self.X.reshape(-1, COLUMNS)

    @property
    def row_labels(self) -> NDArray[np.int64]:
        """A label a row."""
        return self.labels.repeat(VIEWS)

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """A weight a row."""
        return self.weights.repeat(VIEWS)

    def learned(self, power: float = POWER) -> TrainingData:
        """Return what `fit-heads` makes of the cache."""
        return TrainingData(rows=FeatureRows(self.X, power), targets=self.targets, weights=self.weights)

    def limit(self, *, flops: float, passes: float, narrow_flops: float = 0) -> float:
        """Least seconds for some work on all rows."""
        computing = flops / self.flops_s + narrow_flops / self.narrow_flops_s
        return max(computing, passes * self.X.nbytes / self.bytes_s)


def _matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large product, by whichever library is fastest at it."""
    a, b = torch.randn(4096, COLUMNS).to(dtype), torch.randn(COLUMNS, COLUMNS).to(dtype)
    seconds = _best(lambda: a @ b)
    if dtype == torch.float32:
        seconds = min(seconds, _best(lambda: a.numpy() @ b.numpy()), _best(lambda: product(a, b)))
    return 2 * len(a) * COLUMNS**2 / seconds


def _bandwidth() -> float:
    big = torch.ones(1 << 27)
    return 4 * (1 << 27) / _best(big.sum)


def _best(work: Callable[[], object], n: int = 3) -> float:
    return min(timed(work)[0] for _ in range(n))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that something took, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
