"""What heads learn: rows, targets and weights of images, and the cells that training sets are made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection

import numpy as np

from heads.arrays import Float64, Indices
from heads.feature_rows import RowSource
from heads.memory import Memory
from heads.moments import Moments, moments_cell_by_cell, moments_of_cells
from heads.stored_moments import StoredMoments
from heads.targets import Targets

TrainingSet = frozenset[int]


@dataclasses.dataclass(kw_only=True)
class TrainingData:
    """Images that heads may learn from.

    Parameters
    ----------
    rows : RowSource
    targets : Targets
    weights : float64 array, shape (n_images,)
        Of each image in the loss: class weights times counts. Not negative.
    counts : float64 array, shape (n_images,), optional
        For how many images each stands in means and correlations; 1 unless given. Class weights do not belong here: a few images
        of a rare class say little of how columns vary together.
    positive_weights : float64 array, shape (n_classes,), optional
        What a member of a class weighs in the loss beside a non-member, where images have many labels; 1 unless given.
    groups : int64 array, shape (n_scored,), optional
    n_scored : int, optional
        The first so many images are held out in turn, and scored; all unless given. The others train in every fold.
    memory : Memory, optional
        The limit to keep; none unless given.
    parents : int64 array, shape (n_images,), optional
        The place of what each was cut from: those of one parent are judged together as one image. Themselves unless given.
    """

    rows: RowSource
    targets: Targets
    weights: Float64
    counts: Float64 = dataclasses.field(default_factory=lambda: np.empty(0))
    positive_weights: Float64 = dataclasses.field(default_factory=lambda: np.empty(0))
    groups: Indices | None = None
    n_scored: int = -1
    memory: Memory | None = None
    parents: Indices | None = None
    _last: Problem | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.counts):
            self.counts = np.ones(len(self.targets))
        if not len(self.positive_weights):
            self.positive_weights = np.ones(self.targets.n_classes)
        if self.n_scored < 0:
            self.n_scored = len(self.targets)

    @property
    def scored(self) -> Targets:
        """Targets of the images that are held out in turn."""
        return self.targets.take(np.arange(self.n_scored))

    def problem(self, cells: Indices | None = None) -> Problem:
        """Divide the images into cells; as they were last unless given, so that sums over them are not made again."""
        if self._last is None or (cells is not None and not np.array_equal(cells, self._last.cells)):
            self._last = Problem(self, np.zeros(len(self.targets), dtype=np.int64) if cells is None else cells)
        return self._last


class Problem:
    """Images with targets, divided into cells; a training set is a set of cells.

    Parameters
    ----------
    data : TrainingData
    cells : int64 array, shape (n_images,)
        The cell of each image, 0 to n_cells - 1.
    """

    def __init__(self, data: TrainingData, cells: Indices) -> None:
        self.rows = data.rows
        self.targets = data.targets
        self.weights = data.weights
        self.counts = data.counts
        self.positive_weights = data.positive_weights
        self.memory = data.memory
        self.parents = data.parents
        self.cells = cells

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return self.targets.n_classes

    @property
    def whole(self) -> TrainingSet:
        """All images."""
        return frozenset(range(1 + int(self.cells.max())))

    def images_of(self, cells: Collection[int]) -> Indices:
        """Return the places of the images in some cells, ascending."""
        return np.flatnonzero(np.isin(self.cells, list(cells)))

    def learned_from(self, cells: TrainingSet) -> Indices:
        """Return the places of the images in some cells that weigh anything, ascending."""
        here = self.images_of(cells)
        return here[self.weights[here] > 0]

    def classes_of(self, cells: TrainingSet) -> Indices:
        """Return the classes that can be learned from some cells, ascending."""
        return np.flatnonzero(self.targets.take(self.learned_from(cells)).counts)

    @functools.cached_property
    def _weighted(self) -> list[Moments] | StoredMoments:
        return self._sums(self.weights)

    @functools.cached_property
    def _counted(self) -> list[Moments] | StoredMoments:
        if np.array_equal(self.counts, self.weights):
            return self._weighted
        return self._sums(self.counts)

    def _sums(self, weights: Float64) -> list[Moments] | StoredMoments:
        if self.memory is None:
            return moments_of_cells(self.rows, self.targets, weights, self.cells)
        parts = moments_cell_by_cell(self.rows, self.targets, weights, self.cells)
        return StoredMoments(parts, self.memory.folder)

    def moments_of(self, cells: Collection[int], *, weighted: bool = False) -> Moments:
        """Return the sums over the rows of some cells, by their counts or by their weights; each pass is made once."""
        parts = self._weighted if weighted else self._counted
        if isinstance(parts, StoredMoments):
            return parts.total_of(cells)
        return Moments.total_of([parts[cell] for cell in sorted(cells)])
