"""The rungs of a search: more and more of some training images to learn from, and the same ones to judge by."""

from __future__ import annotations

import dataclasses

import numpy as np

from heads.arrays import Indices
from heads.folds import inner_folds
from heads.problem import Problem, TrainingData, TrainingSet

KEPT = 3
"""A rung has so many times as many images as the one below it; of so many settings one climbs on."""
N_RUNGS = 3
MOST_CELLS = N_RUNGS + 2
"""A ladder has so many cells: pieces, the images that judge, those that are held out."""
_JUDGES = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Rungs over some training images.

    Parameters
    ----------
    cells : int64 array, shape (n_images,)
        The cell of each image. Those that are held out have one of their own, which is in no rung and judges nothing.
    rungs : tuple of TrainingSet
        What is learned from on each, the lowest first; each holds the one before.
    judged : frozenset of int
        The cell that judges, on all of them.
    """

    cells: Indices
    rungs: tuple[TrainingSet, ...]
    judged: frozenset[int]

    def n_images(self, rung: int) -> int:
        """How many images are learned from on a rung."""
        return int(np.isin(self.cells, list(self.rungs[rung])).sum())

    def problem(self, data: TrainingData) -> Problem:
        """Divide images as this ladder does."""
        return data.problem(self.cells)


def make_ladder(data: TrainingData, train: Indices, *, seed: int) -> Ladder | None:
    """Divide training images, by group: a fifth judges, and of the others a ninth, a third and all are learned from.

    Parameters
    ----------
    data : TrainingData
        Images beyond the scored ones are learned from on the highest rung.
    train : int64 array
        Places of scored images; no others have a part in it.
    seed : int

    Returns
    -------
    Ladder or None
        Fewer rungs where there are few groups or images; None where the images cannot be divided at all.
    """
    parts = _divide(data, train, _JUDGES, seed)
    if not parts:
        return None
    judges, *others = parts
    rest = np.sort(np.concatenate(others))
    pieces = _divide(data, rest, KEPT ** (N_RUNGS - 1), seed) or [rest]
    counts = sorted({max(1, len(pieces) // KEPT**step) for step in range(N_RUNGS)})
    cells = np.full(len(data.targets), len(counts) + 1, dtype=np.int64)
    cells[data.n_scored :] = len(counts) - 1
    cells[judges] = len(counts)
    for rung in reversed(range(len(counts))):
        cells[np.concatenate(pieces[: counts[rung]])] = rung
    rungs = [frozenset(range(1 + rung)) for rung in range(len(counts))]
    learnable = tuple(
        rung for rung in rungs if data.targets.take(np.flatnonzero(np.isin(cells, list(rung)))).can_be_learned
    )
    return Ladder(cells=cells, rungs=learnable, judged=frozenset([len(counts)])) if learnable else None


def _divide(data: TrainingData, places: Indices, n_parts: int, seed: int) -> list[Indices]:
    """Deal images to parts as folds are dealt; none where they cannot be divided."""
    groups = None if data.groups is None else data.groups[places]
    parts = inner_folds(data.scored.take(places), groups, n_folds=n_parts, seed=seed)
    return [places[part.held_out] for part in parts]
