"""Heads beside scikit-learn, on one array in one process.

    python bench/heads.py [--quick] [--only ridge|logistic|mlp|whole]

The work is that of the first challenge: 7,705 images x 6 views x 3,072 columns, 9 classes (drawn here: correlated, long-tailed,
positive, as pooled features are). scikit-learn's units are measured; where one fit of a kind stands for many, the number of
fits is said. Limits are max(FLOPs / measured matmul rate, bytes / measured bandwidth).
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent.parent))

import heads.logistic
from features_cache.hardware import cpu_is_fast_in_bfloat16
from features_cache.progress import silent
from heads.allocator import keep_freed_memory
from heads.catalogue import DEFAULT_HEADS, HEADS, POWER
from heads.class_weights import sample_weights
from heads.dense import product
from heads.feature_rows import FeatureRows
from heads.folds import Fold, make_folds
from heads.logistic import LogisticHead
from heads.mlp import MLPHead
from heads.out_of_fold import fit_final, out_of_fold
from heads.problem import TrainingData
from heads.ridge import RidgeHead
from heads.targets import OneLabel

VIEWS, COLUMNS, CLASSES, FOLDS = 6, 3072, 9, 5
SETS = 16  # of training images: five without one fold, ten without two, and all
Row = tuple[str, str, str, str, str]


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
    return min(_timed(work)[0] for _ in range(n))


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _row(what: str, theirs: float, ours: float, aim: str, limit: float) -> Row:
    return what, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f} x ({aim})", f"{ours / limit:.1f} x {limit:.1f} s"


class Theirs:
    """scikit-learn's seconds for one unit of each kind, measured when asked for, once."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._known: dict[str, float] = {}
        self._standard: NDArray[np.float32] | None = None

    @property
    def standard(self) -> NDArray[np.float32]:
        """Standardised rows."""
        if self._standard is None:
            scaler = StandardScaler()
            self._known["scaler"], standard = _timed(lambda: scaler.fit_transform(self._work.rows))
            self._standard = np.asarray(standard, dtype=np.float32)
        return self._standard

    def seconds(self, unit: str, work: Callable[[], object]) -> float:
        """Time a unit, once."""
        if unit not in self._known:
            self._known[unit], _ = _timed(work)
        return self._known[unit]

    def ridge(self) -> float:
        """Time one RidgeClassifier with one alpha, on standardised rows."""
        work = self._work
        model = RidgeClassifier(alpha=1000.0)
        standard = self.standard
        return self.seconds("ridge", lambda: model.fit(standard, work.row_labels, work.row_weights))

    def mlp_epoch(self) -> float:
        """Time an epoch of three networks with 1, 2 and 3 hidden layers of 256."""
        work = self._work
        standard = self.standard

        def epoch() -> None:
            for depth in (1, 2, 3):
                model = MLPClassifier((256,) * depth, batch_size=256, max_iter=1, random_state=0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model.fit(standard, work.row_labels)

        return self.seconds("mlp", epoch)

    def logistic(self) -> tuple[float, float]:
        """One LogisticRegression(C=1e-3) on standardised rows: seconds, and the objective that it reached."""
        work = self._work
        model = LogisticRegression(C=1e-3, max_iter=1000)
        standard = self.standard
        seconds = self.seconds("logistic", lambda: model.fit(standard, work.row_labels, work.row_weights))
        if not hasattr(model, "coef_"):
            return seconds, float("nan")
        logits = standard.astype(np.float64) @ model.coef_.T + model.intercept_
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(logits)), work.row_labels]
        return seconds, float(1e-3 * work.row_weights @ losses + np.square(model.coef_).sum() / 2)


def _ridge_limit(work: Work) -> float:
    """Count sums over the rows (half a product each), factors, what each head says of the images that it never saw."""
    n_rows, n_fits = len(work.rows), SETS * len(HEADS["ridge"].grid)
    judged = 15 / FOLDS * n_rows * len(HEADS["ridge"].grid) * 2 * COLUMNS * CLASSES
    return work.limit(flops=n_rows * COLUMNS**2 + n_fits * COLUMNS**3 / 3 + judged, passes=3)


def ridge(work: Work, theirs: Theirs) -> Iterator[Row]:
    """Ten alphas, nested in five folds, and the final fit."""
    learned = work.learned()

    def ours() -> None:
        oof = out_of_fold({"ridge": HEADS["ridge"]}, learned, work.folds, n_averaged=VIEWS, seed=0, progress=silent)[
            "ridge"
        ]
        fit_final(HEADS["ridge"], learned, oof.final)

    seconds, _ = _timed(ours)
    limit = _ridge_limit(work)
    unit = theirs.ridge()
    yield _row(
        "ridge: 10 alphas, 5 folds, nested, and final; beside ONE fit of one alpha", unit, seconds, ">= 0.125 x", limit
    )
    n_fits = SETS * len(HEADS["ridge"].grid)
    yield _row(f"the same beside as many fits ({n_fits} x {unit:.1f} s)", n_fits * unit, seconds, "", limit)
    alpha = 1000.0
    head = RidgeHead(alpha=alpha, power=1.0).fit(work.rows, work.row_labels, work.row_weights)
    wide = RidgeHead(alpha=alpha, power=1.0).fit(work.rows.astype(np.float64), work.row_labels, work.row_weights)
    some = work.rows[:2000]
    off = float(np.abs(head.decision_function(some) - wide.decision_function(some.astype(np.float64))).max())
    yield "ridge: decision values off a float64 solution, at most", "", f"{off:.1e}", "<= 1e-3", ""


class Counted:
    """FLOPs and bytes of the logistic head's products with rows and coordinates, while it is entered."""

    def __init__(self) -> None:
        self.flops, self.bytes = 0.0, 0.0

    def __enter__(self) -> None:
        def counting(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
            self.bytes += left.nbytes + right.nbytes
            return product(left, right)

        heads.logistic.product = counting  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        heads.logistic.product = product  # type: ignore[attr-defined]


def _logistic_limit(work: Work, counted: Counted, n_sets: int) -> float:
    """Count sums over the rows, a factor and its inverse a set, and the products of all steps."""
    before = work.limit(flops=len(work.rows) * COLUMNS**2 + n_sets * 2 * COLUMNS**3 / 3, passes=2)
    return before + max(counted.flops / work.flops_s, counted.bytes / work.bytes_s)


def logistic(work: Work, theirs: Theirs) -> Iterator[Row]:
    """One fit to scikit-learn's loss; then the path, nested."""
    unit, objective = theirs.logistic()
    head = LogisticHead(C=1e-3, power=1.0, shrinkage=1.0)
    problem = work.learned(power=1.0).problem()
    counted = Counted()
    with counted:
        seconds, fits = _timed(lambda: list(head.fit_sets(problem, [problem.whole], [1e-3])))
    fitted = fits[0][0].head  # type: ignore[index]
    limit = _logistic_limit(work, counted, n_sets=1)
    yield _row(f"logistic, C = 1e-3, the same loss ({fitted.n_steps_} steps)", unit, seconds, ">= 10 x", limit)
    yield (
        "logistic: regularised loss above scikit-learn's",
        f"{objective:.4f}",
        f"{fitted.objective_ / objective - 1:.1e}",
        "<= 1e-4",
        "",
    )
    learned = work.learned()
    kinds = {"logistic": HEADS["logistic"]}
    counted = Counted()
    with counted:
        seconds, oof = _timed(
            lambda: out_of_fold(kinds, learned, work.folds, n_averaged=VIEWS, seed=0, progress=silent)
        )
        more, _ = _timed(lambda: fit_final(kinds["logistic"], learned, oof["logistic"].final))  # type: ignore[index]
    n_fits = 15 * len(HEADS["logistic"].grid) + 1
    yield _row(
        f"logistic: the path, 5 folds, nested, and final (theirs: {n_fits} fits x {unit:.1f} s)",
        n_fits * unit,
        seconds + more,
        ">= 10 x",
        _logistic_limit(work, counted, n_sets=SETS),
    )


def _epoch_limit(work: Work) -> float:
    """Count products forward and back, and the optimiser's passes over weights, sums and slopes."""
    n_rows = len(work.rows)
    weights = 3 * 256 * COLUMNS + 3 * 256 * 256 + 3 * 256 * CLASSES
    flops = 2 * n_rows * (2 * 3 * 256 * COLUMNS + 3 * (3 * 256 * 256))
    return work.limit(flops=0, narrow_flops=flops, passes=2) + n_rows / 256 * weights * 28 / work.bytes_s


def _mlp_limit(work: Work) -> float:
    """Count for all sets and epochs sums, whitening, epochs of the share of rows that each set has, and what is said of the others."""
    n_rows, n_epochs, n_watched = len(work.rows), 12, len((*HEADS["mlp"].watched, *HEADS["mlp"].grid))
    sets = (*5 * (1 - 1 / FOLDS,), *5 * (1 - 2 / FOLDS,), 1.0)
    judged = 2 * n_rows / FOLDS * 10 * n_watched * 3 * 256 * COLUMNS
    folded = 11 * n_watched * 2 * COLUMNS**2 * 3 * 256
    before = work.limit(flops=n_rows * COLUMNS**2 + 11 * 2 * COLUMNS**3 / 3 + judged + folded, passes=2)
    whitened = work.limit(flops=0, narrow_flops=sum(sets) * 2 * n_rows * COLUMNS**2, passes=sum(sets))
    return before + whitened + sum(sets) * n_epochs * _epoch_limit(work)


def mlp(work: Work, theirs: Theirs) -> Iterator[Row]:
    """Epochs of the three networks."""
    problem = work.learned().problem()
    unit = theirs.mlp_epoch()
    epochs = 3
    fits = MLPHead(epochs=epochs).fit_sets(problem, [problem.whole], range(1, 1 + epochs))
    first, *others = (_timed(lambda: next(fits))[0] for _ in range(epochs))
    an_epoch = min(others)
    start = first - an_epoch
    limit = _epoch_limit(work)
    yield _row("the three MLPs: an epoch", unit, an_epoch, ">= 3 x without AMX, 10 x with", limit)
    yield "the three MLPs: before the first epoch (sums, whitening)", "", f"{start:.1f}", "", ""
    n = 12
    yield _row(f"the three MLPs: a fit of {n} epochs", n * unit, start + n * an_epoch, "", n * limit)


def whole(work: Work, theirs: Theirs) -> Iterator[Row]:
    """All that `fit-heads` fits: three heads, five folds, nested choices, the final fits."""
    learned = work.learned()

    def ours() -> None:
        kinds = {name: HEADS[name] for name in DEFAULT_HEADS}
        oof = out_of_fold(kinds, learned, work.folds, n_averaged=VIEWS, seed=0, progress=silent)
        for name, found in oof.items():
            fit_final(HEADS[name], learned, found.final)

    counted = Counted()
    with counted:
        seconds, _ = _timed(ours)
    limit = _ridge_limit(work) + _logistic_limit(work, counted, n_sets=SETS) + _mlp_limit(work)
    n_ridge, n_logistic, n_mlp = SETS * len(HEADS["ridge"].grid), 15 * len(HEADS["logistic"].grid) + 1, 11 * 12
    unit = n_ridge * theirs.ridge() + n_logistic * theirs.logistic()[0] + n_mlp * theirs.mlp_epoch()
    what = f"the whole of fit-heads (theirs: {n_ridge} ridge, {n_logistic} logistic fits, {n_mlp} epochs of three MLPs)"
    yield _row(what, unit, seconds, ">= 10 x", limit)


CHAPTERS = {"ridge": ridge, "logistic": logistic, "mlp": mlp, "whole": whole}


def main() -> None:
    """Print the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--only", choices=CHAPTERS, help="one chapter")
    options = parser.parse_args()
    keep_freed_memory()  # as `cli fit-heads` does
    work = Work(770 if options.quick else 7705)
    theirs = Theirs(work)
    title = (
        f"heads: {len(work.rows):,} rows x {COLUMNS:,} columns, {CLASSES} classes; {torch.get_num_threads()} threads, "
        f"matmul {work.flops_s / 1e9:.0f} GFLOP/s, narrow {work.narrow_flops_s / 1e9:.0f}, bandwidth {work.bytes_s / 1e9:.1f} GB/s"
    )
    table = Table(title=title)
    for column in ("what", "scikit-learn, s", "ours, s", "faster (aim)", "limit"):
        table.add_column(column)
    for name, chapter in CHAPTERS.items():
        if options.only in {None, name}:
            for row in chapter(work, theirs):
                table.add_row(*row)
                print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
