"""What heads learn: rows, labels and weights of images, and the cells that training sets are made of."""

from __future__ import annotations

import functools
from collections.abc import Collection

import numpy as np

from heads.arrays import Float64, Indices
from heads.feature_rows import FeatureRows
from heads.moments import Moments, moments_of_cells

TrainingSet = frozenset[int]


class Problem:
    """Images with labels, divided into cells; a training set is a set of cells.

    Parameters
    ----------
    rows : FeatureRows
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1.
    weights : float64 array, shape (n_images,)
        Of each image in the loss: class weights times counts. Not negative.
    n_classes : int
    cells : int64 array, shape (n_images,), optional
        The cell of each image; one cell for all unless given.
    counts : float64 array, shape (n_images,), optional
        For how many images each stands in means and correlations; 1 unless given. Class weights do not belong here: a few
        images of a rare class say little of how columns vary together.
    """

    def __init__(
        self,
        rows: FeatureRows,
        labels: Indices,
        weights: Float64,
        n_classes: int,
        cells: Indices | None = None,
        counts: Float64 | None = None,
    ) -> None:
        self.rows = rows
        self.labels = labels
        self.weights = weights
        self.n_classes = n_classes
        self.counts = np.ones(len(labels)) if counts is None else counts
        self.cells = np.zeros(len(labels), dtype=np.int64) if cells is None else cells

    @property
    def whole(self) -> TrainingSet:
        """All images."""
        return frozenset(range(1 + int(self.cells.max())))

    def images_of(self, cells: Collection[int]) -> Indices:
        """Return the places of the images in some cells, ascending."""
        return np.flatnonzero(np.isin(self.cells, list(cells)))

    def classes_of(self, cells: Collection[int]) -> Indices:
        """Return the classes that occur, with a weight, in some cells, ascending."""
        here = self.images_of(cells)
        return np.unique(self.labels[here[self.weights[here] > 0]])

    @functools.cached_property
    def _weighted(self) -> list[Moments]:
        return moments_of_cells(self.rows, self.labels, self.weights, self.cells, self.n_classes)

    @functools.cached_property
    def _counted(self) -> list[Moments]:
        if np.array_equal(self.counts, self.weights):
            return self._weighted
        return moments_of_cells(self.rows, self.labels, self.counts, self.cells, self.n_classes)

    def moments_of(self, cells: Collection[int], *, weighted: bool = False) -> Moments:
        """Return the sums over the rows of some cells, by their counts or by their weights; each pass is made once."""
        parts = self._weighted if weighted else self._counted
        first, *others = sorted(cells)
        # Not sum(): one sum in place instead of one a cell.
        moments = parts[first]
        if others:
            moments = moments + parts[others[0]]
            for cell in others[1:]:
                moments.weight.add_(parts[cell].weight)
                moments.total.add_(parts[cell].total)
                moments.products.add_(parts[cell].products)
        return moments
