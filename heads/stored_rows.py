"""Rows that stay in the cache's file, and are read and drawn in a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from heads.arrays import Indices
from heads.feature_rows import RowSource, draw_in

# Conversion, root and sign of so few rows pass through the processor's cache, and not four times through memory.
_CACHED_ROWS = 64


class ImagesOnDisk(Protocol):
    """Features that can be read image by image."""

    n_images: int
    n_views: int

    @property
    def n_columns(self) -> int:
        """Columns of each view."""

    def stored(self, images: Indices, n_views: int) -> NDArray[np.floating[Any]]:
        """Read some images, in the order wanted, as they are stored: shape (len(images), n_views, n_columns)."""


class StoredRows(RowSource):
    """Features of images on a disk, in float32.

    Parameters
    ----------
    features : ImagesOnDisk
    power : float
        See :func:`heads.feature_rows.draw_in`.
    device : torch.device or str
        Where chunks are given out.
    chunk_rows : int
        Rows of a chunk, at most, but one image at least.
    """

    def __init__(
        self, features: ImagesOnDisk, power: float, device: torch.device | str = "cpu", chunk_rows: int = 1024
    ) -> None:
        self._features, self._power, self._chunk_rows = features, power, chunk_rows
        self.n_images, self.n_views, self.n_columns = features.n_images, features.n_views, features.n_columns
        self.device, self.dtype = torch.device(device), torch.float32

    def chunks(
        self, images: Indices | None = None, n_views: int | None = None
    ) -> Iterator[tuple[Indices, torch.Tensor]]:
        """Go through the rows of some images; see :meth:`heads.feature_rows.RowSource.chunks`."""
        n_views = n_views or self.n_views
        images = np.arange(self.n_images) if images is None else images
        per_chunk = min(max(1, self._chunk_rows // n_views), max(1, len(images)))
        # The same room for every chunk: the system clears each new page that it hands out.
        rows = torch.empty((per_chunk * n_views, self.n_columns), dtype=self.dtype, device=self.device)
        plain = torch.empty((min(_CACHED_ROWS, len(rows)), self.n_columns), dtype=self.dtype, device=self.device)
        for start in range(0, len(images), per_chunk):
            here = images[start : start + per_chunk]
            stored = torch.from_numpy(self._features.stored(here, n_views)).to(self.device).reshape(-1, self.n_columns)
            for first in range(0, len(stored), len(plain)):
                part = stored[first : first + len(plain)]
                into = rows[first : first + len(plain)][: len(part)]
                if self._power == 1:
                    into.copy_(part)
                else:
                    draw_in(plain[: len(part)].copy_(part), self._power, out=into)
            yield here, rows[: len(stored)]
