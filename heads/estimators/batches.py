"""The batches of an MLP: whitened rows of a training set, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from heads.arrays import Indices
from heads.estimators.whiten import Whitening
from heads.feature_rows import RowSource
from heads.memory import Memory

# Rows, and for each the place of its image among those that are learned from.
Batch = tuple[torch.Tensor, torch.Tensor]


class Batches:
    """All rows in memory, in one order drawn anew each epoch from torch's generator.

    Parameters
    ----------
    rows : RowSource
    images : int64 array, shape (n_images,)
        Whose rows are learned from, ascending.
    whitening : Whitening
    dtype : torch.dtype
        Of the whitened rows.
    """

    def __init__(self, rows: RowSource, images: Indices, whitening: Whitening, dtype: torch.dtype) -> None:
        self._n_views = rows.n_views
        self._X = torch.cat([whitening.apply(chunk, dtype) for _, chunk in rows.chunks(images)])

    def n_steps(self, batch_rows: int) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self._X) // batch_rows)

    def epoch(self, batch_rows: int) -> Iterator[Batch]:
        """Go through all rows once."""
        order = torch.randperm(len(self._X)).to(self._X.device)
        # Of nearly one size: a last batch of a few rows would be a step as long as the others, and mostly noise.
        for batch in order.tensor_split(self.n_steps(batch_rows)):
            yield self._X[batch], batch // self._n_views


class StreamedBatches(Batches):
    """As many rows in memory as the limit allows, in blocks read in random order and shuffled together.

    A block is a MiB of neighbouring images. In caches sorted by class these are of one class, and so many blocks from all over the
    training set are shuffled together.

    Parameters
    ----------
    rows, images, whitening, dtype
        As of :class:`Batches`.
    memory : Memory
    """

    def __init__(
        self, rows: RowSource, images: Indices, whitening: Whitening, dtype: torch.dtype, memory: Memory
    ) -> None:
        self._rows, self._images, self._whitening, self._dtype = rows, images, whitening, dtype
        self._n_views = rows.n_views
        self._blocks = np.array_split(np.arange(len(images)), -(-len(images) // memory.piece_images))
        n_fillings = -(-len(images) * rows.n_views // memory.shuffled_rows)
        self._bounds = np.linspace(0, len(images), 1 + min(n_fillings, len(images))).astype(np.int64)

    def n_steps(self, batch_rows: int) -> int:
        """Return how many batches an epoch has."""
        return int((-(-np.diff(self._bounds) * self._n_views // batch_rows)).sum())

    def epoch(self, batch_rows: int) -> Iterator[Batch]:
        """Go through all rows once."""
        device, n_views = self._rows.device, self._n_views
        order = np.concatenate([self._blocks[place] for place in torch.randperm(len(self._blocks)).tolist()])
        X = torch.empty(
            (int(np.diff(self._bounds).max()) * n_views, self._rows.n_columns), dtype=self._dtype, device=device
        )
        for first, stop in zip(self._bounds[:-1], self._bounds[1:], strict=True):
            places = order[first:stop]
            n_rows = self._fill(X, self._images[places])
            image_of_row = torch.from_numpy(places.repeat(n_views)).to(device)
            shuffled = torch.randperm(n_rows).to(device)
            for batch in shuffled.tensor_split(-(-n_rows // batch_rows)):
                yield X[batch], image_of_row[batch]

    def _fill(self, X: torch.Tensor, images: Indices) -> int:
        filled = 0
        for _, chunk in self._rows.chunks(images):
            X[filled : filled + len(chunk)] = self._whitening.apply(chunk, self._dtype)
            filled += len(chunk)
        return filled
