"""What heads learn: rows, labels and weights of images, and the cells that training sets are made of."""

from __future__ import annotations

import functools
from collections.abc import Collection

import numpy as np
import torch

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
        Not negative.
    n_classes : int
    cells : int64 array, shape (n_images,), optional
        The cell of each image; one cell for all unless given.
    """

    def __init__(
        self, rows: FeatureRows, labels: Indices, weights: Float64, n_classes: int, cells: Indices | None = None
    ) -> None:
        self.rows = rows
        self.labels = labels
        self.weights = weights
        self.n_classes = n_classes
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
    def _moments(self) -> list[Moments]:
        return moments_of_cells(self.rows, self.labels, self.weights, self.cells, self.n_classes)

    def moments_of(self, cells: Collection[int]) -> Moments:
        """Return the sums over the rows of some cells; the pass over the rows is made once."""
        first, *others = sorted(cells)
        # Not sum(): one sum in place instead of one a cell.
        moments = self._moments[first]
        if others:
            moments = moments + self._moments[others[0]]
            for cell in others[1:]:
                moments.weight.add_(self._moments[cell].weight)
                moments.total.add_(self._moments[cell].total)
                moments.products.add_(self._moments[cell].products)
        return moments

    def targets(self) -> torch.Tensor:
        """Return each row's class, int64, shape (n_images * n_views,)."""
        return torch.from_numpy(self.labels).to(self.rows.device)
