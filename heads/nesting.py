"""Which training sets an estimate needs: folds as cells, each set a union of cells, shared wherever it serves twice.

Of K folds, fold k is predicted by a head that learned from the others; its settings were chosen by heads that learned from the
others less one more, j, and predicted j. The head that learned from all but j and k serves the choices of both j and k, and the
heads of the folds serve the choice of the final fit: 16 training sets for 5 folds, their choices and the final fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from heads.arrays import Indices
from heads.folds import Fold, inner_folds
from heads.problem import TrainingSet
from heads.targets import Targets

_PIECES_OF_A_HALF = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A training set, and cells that it has never seen.

    Parameters
    ----------
    learned : frozenset of int
        The training set.
    judged : frozenset of int
        Cells whose images a head of that set predicts.
    """

    learned: TrainingSet
    judged: frozenset[int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NestedFold:
    """A fold with the judgements that its head's settings are chosen by.

    Parameters
    ----------
    fold : Fold
    outer : Judgement
        Learned from the training part, judged on the held-out part.
    inner : tuple of Judgement
        Within the training part; empty where it cannot be divided.
    """

    fold: Fold
    outer: Judgement
    inner: tuple[Judgement, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nesting:
    """The training sets of one repeat of folds.

    Parameters
    ----------
    cells : int64 array, shape (n_images + n_extra,)
        The cell of each image.
    folds : tuple of NestedFold
    """

    cells: Indices
    folds: tuple[NestedFold, ...]

    def judgements(self) -> dict[TrainingSet, frozenset[int]]:
        """Return each training set with all cells that its heads are asked about, in a fixed order."""
        return asked_of([judgement for nested in self.folds for judgement in (*nested.inner, nested.outer)])


def asked_of(judgements: Iterable[Judgement]) -> dict[TrainingSet, frozenset[int]]:
    """Return each training set of some judgements with all cells that its heads are asked about, in their order."""
    asked: dict[TrainingSet, frozenset[int]] = {}
    for judgement in judgements:
        asked[judgement.learned] = asked.get(judgement.learned, frozenset()) | judgement.judged
    return asked


def nest(
    folds: Sequence[Fold],
    targets: Targets,
    groups: Indices | None,
    *,
    n_inner_folds: int,
    seed: int,
    n_extra: int = 0,
) -> Nesting:
    """Make the training sets of one repeat of folds.

    Parameters
    ----------
    folds : sequence of Fold
        Of one repeat: each image is held out once.
    targets : Targets
        Of the images that are divided.
    groups : int64 array, shape (n_images,), or None
    n_inner_folds : int
        A fold's settings are chosen on so many folds before it and after it, in a circle.
    seed : int
        Of the division of two folds into smaller cells.
    n_extra : int
        Images after those that are divided: a cell of their own, learned from in every training set.

    Returns
    -------
    Nesting
    """
    pieces = [_pieces(fold, targets, groups, seed) if len(folds) == 2 else [fold.held_out] for fold in folds]
    cells = np.zeros(len(targets) + n_extra, dtype=np.int64)
    of_fold: list[list[int]] = []
    for fold_pieces in pieces:
        numbers = [sum(map(len, of_fold)) + place for place in range(len(fold_pieces))]
        for number, places in zip(numbers, fold_pieces, strict=True):
            cells[places] = number
        of_fold.append(numbers)
    extra: frozenset[int] = frozenset()
    if n_extra:
        extra = frozenset([sum(map(len, of_fold))])
        cells[len(targets) :] = max(extra)
    whole = frozenset(range(1 + int(cells.max())))
    nested = []
    for place, fold in enumerate(folds):
        held_out = frozenset(of_fold[place])
        learned = whole - held_out
        inner = []
        for judged in _judges(of_fold, place, n_inner_folds):
            judgement = Judgement(learned=learned - judged, judged=judged)
            seen = np.isin(cells[: len(targets)], list(judgement.learned))
            if targets.take(np.flatnonzero(seen)).can_be_learned:
                inner.append(judgement)
        nested.append(NestedFold(fold=fold, outer=Judgement(learned=learned, judged=held_out), inner=tuple(inner)))
    return Nesting(cells=cells, folds=tuple(nested))


def count_of_cells(n_folds: int, *, extra: bool) -> int:
    """Return how many cells a repeat of folds has, at most."""
    return (n_folds * _PIECES_OF_A_HALF if n_folds == 2 else n_folds) + extra


def count_of_sets(n_folds: int, n_inner_folds: int) -> int:
    """Return how many training sets a repeat of folds has, at most.

    Examples
    --------
    >>> count_of_sets(5, 2), count_of_sets(5, 1), count_of_sets(2, 2), count_of_sets(6, 9)
    (15, 10, 8, 21)
    """
    if n_folds == 2:
        return 2 + 2 * _PIECES_OF_A_HALF
    return n_folds + min(n_folds * n_inner_folds, n_folds * (n_folds - 1) // 2)


def _pieces(fold: Fold, targets: Targets, groups: Indices | None, seed: int) -> list[Indices]:
    """Divide one of two folds: the other one's choices need something to learn from and something to judge."""
    here = fold.held_out
    own_groups = None if groups is None else groups[here]
    parts = inner_folds(targets.take(here), own_groups, n_folds=_PIECES_OF_A_HALF, seed=seed)
    return [here[part.held_out] for part in parts] or [here]


def _judges(of_fold: Sequence[Sequence[int]], place: int, n_inner_folds: int) -> list[frozenset[int]]:
    """Return what the choices of a fold are judged by: neighbouring folds, or the pieces of the only other one."""
    if len(of_fold) == 2:
        return [frozenset([cell]) for cell in of_fold[1 - place]]
    near = range(1, 1 + min(n_inner_folds, (len(of_fold) - 1) // 2))
    others = {(place + step) % len(of_fold) for distance in near for step in (-distance, distance)}
    if len(of_fold) % 2 == 0 and n_inner_folds >= len(of_fold) // 2:
        others.add((place + len(of_fold) // 2) % len(of_fold))
    return [frozenset(of_fold[other]) for other in sorted(others)]
