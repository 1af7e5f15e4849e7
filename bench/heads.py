"""Heads beside scikit-learn, on one array in one process.

    python -m bench.heads [--quick] [--only ridge|logistic|mlp|whole]

The work is that of the first challenge: 7,705 images x 6 views x 3,072 columns, 9 classes (drawn here: correlated, long-tailed,
positive, as pooled features are). scikit-learn's units are measured; where one fit of a kind stands for many, the number of
fits is said. Limits are max(FLOPs / measured matmul rate, bytes / measured bandwidth).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.heads_limits import Counted, epoch_limit, logistic_limit, mlp_limit, ridge_limit
from bench.heads_theirs import Theirs
from bench.heads_work import CLASSES, COLUMNS, SETS, VIEWS, Work, timed
from features_cache.allocator import keep_freed_memory
from features_cache.progress import silent
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS
from heads.estimators.logistic import LogisticHead
from heads.estimators.mlp import MLPHead
from heads.estimators.ridge import RidgeHead
from heads.out_of_fold import fit_final, out_of_fold

Row = tuple[str, str, str, str, str]


def _row(what: str, theirs: float, ours: float, aim: str, limit: float) -> Row:
    return what, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f} x ({aim})", f"{ours / limit:.1f} x {limit:.1f} s"


def ridge(work: Work, theirs: Theirs) -> Iterator[Row]:
    """Ten alphas, nested in five folds, and the final fit."""
    learned = work.learned()

    def ours() -> None:
        oof = out_of_fold({"ridge": HEADS["ridge"]}, learned, work.folds, n_averaged=VIEWS, seed=0, progress=silent)[
            "ridge"
        ]
        fit_final(HEADS["ridge"], learned, oof.final)

    seconds, _ = timed(ours)
    limit = ridge_limit(work)
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


def logistic(work: Work, theirs: Theirs) -> Iterator[Row]:
    """One fit to scikit-learn's loss; then the path, nested."""
    unit, objective = theirs.logistic()
    head = LogisticHead(C=1e-3, power=1.0, shrinkage=1.0)
    problem = work.learned(power=1.0).problem()
    counted = Counted()
    with counted:
        seconds, fits = timed(lambda: list(head.fit_sets(problem, [problem.whole], [1e-3])))
    fitted = fits[0][0].head  # type: ignore[index]
    limit = logistic_limit(work, counted, n_sets=1)
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
        seconds, oof = timed(lambda: out_of_fold(kinds, learned, work.folds, n_averaged=VIEWS, seed=0, progress=silent))
        more, _ = timed(lambda: fit_final(kinds["logistic"], learned, oof["logistic"].final))  # type: ignore[index]
    n_fits = 15 * len(HEADS["logistic"].grid) + 1
    yield _row(
        f"logistic: the path, 5 folds, nested, and final (theirs: {n_fits} fits x {unit:.1f} s)",
        n_fits * unit,
        seconds + more,
        ">= 10 x",
        logistic_limit(work, counted, n_sets=SETS),
    )


def mlp(work: Work, theirs: Theirs) -> Iterator[Row]:
    """Epochs of the three networks."""
    problem = work.learned().problem()
    unit = theirs.mlp_epoch()
    epochs = 3
    fits = MLPHead(epochs=epochs).fit_sets(problem, [problem.whole], range(1, 1 + epochs))
    first, *others = (timed(lambda: next(fits))[0] for _ in range(epochs))
    an_epoch = min(others)
    start = first - an_epoch
    limit = epoch_limit(work)
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
        seconds, _ = timed(ours)
    limit = ridge_limit(work) + logistic_limit(work, counted, n_sets=SETS) + mlp_limit(work)
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
