"""The features as bytes in a file: any choice of rows, views and columns, read where they lie."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import CacheDamaged

_BUFFER_BYTES = 4 << 20

Indices = NDArray[np.intp]


class RawFeatures:
    """A C-ordered array (images, views, columns) inside an open file.

    Parameters
    ----------
    descriptor : int
        Of the open file; its position is left alone, so threads may share it.
    path : Path
        For messages.
    offset : int
        Where the array begins, in bytes.
    shape : tuple of int
    dtype : numpy dtype
    """

    def __init__(
        self, descriptor: int, path: Path, offset: int, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        self._descriptor = descriptor
        self._path = path
        self._offset = offset
        self._shape = shape
        self._dtype = dtype
        self._row_bytes = shape[1] * shape[2] * dtype.itemsize

    def read_into(self, out: NDArray[np.floating[Any]], rows: Indices, views: Indices, columns: Indices) -> None:
        """Read a choice of cells; bytes of other cells stay on the disk.

        Parameters
        ----------
        out : float array, shape (rows, views, columns), C-ordered
            Filled; values are converted to its type.
        rows, views, columns : int arrays
            Places in the array, in the order wanted.

        Raises
        ------
        CacheDamaged
            If the file ends too early, or cannot be read.
        """
        wanted = (views[:, None] * self._shape[2] + columns).ravel()
        in_order = bool((np.diff(wanted) > 0).all())
        cells = wanted if in_order else np.unique(wanted)
        gaps = np.flatnonzero(np.diff(cells) != 1) + 1
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(cells, gaps)] if len(cells) else []
        place = None if in_order else np.searchsorted(cells, wanted)
        per_chunk = max(1, _BUFFER_BYTES // max(1, len(cells) * self._dtype.itemsize))
        buffer = np.empty((min(per_chunk, len(rows)), len(cells)), self._dtype)
        flat = out.reshape(len(rows), len(wanted))
        for first in range(0, len(rows), per_chunk):
            here = rows[first : first + per_chunk]
            target = flat[first : first + len(here)]
            straight = in_order and out.dtype == self._dtype
            read = target if straight else buffer[: len(here)]
            self._read_rows(read, here, runs)
            if not straight:
                target[...] = read if place is None else read[:, place]

    def _read_rows(self, read: NDArray[np.floating[Any]], rows: Indices, runs: list[tuple[int, int]]) -> None:
        whole = runs == [(0, self._shape[1] * self._shape[2])]
        for start, stop in _consecutive(rows) if whole else ((place, place + 1) for place in range(len(rows))):
            at = self._offset + int(rows[start]) * self._row_bytes
            filled = 0
            for low, high in runs:
                n_cells = (high - low) * (stop - start)
                part = read[start:stop].reshape(-1)[filled : filled + n_cells]
                self._pread(part.data.cast("B"), at + low * self._dtype.itemsize)
                filled += n_cells

    def _pread(self, view: memoryview, at: int) -> None:
        while view:
            try:
                n_read = os.preadv(self._descriptor, [view], at)
            except OSError as error:
                msg = f"{self._path}: cannot be read at byte {at} ({error.strerror}); restore the file from a copy"
                raise CacheDamaged(msg) from error
            if n_read == 0:
                msg = f"{self._path}: ends at byte {at}, within its features; restore the file from a copy"
                raise CacheDamaged(msg)
            view, at = view[n_read:], at + n_read


def _consecutive(rows: Indices) -> Iterator[tuple[int, int]]:
    """Divide places into stretches in which row follows row."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    yield from itertools.pairwise(bounds)
