"""How much memory the fitting of heads may take, and what follows: one place knows what each step needs at its peak.

All of it comes from the limit and from the work, never from what happens to be free: the same command gives the same heads.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

from features_cache.errors import DiskFull, OptionError
from heads.sizes import CHUNK_ROWS, COPY_DIRECTIONS, MOST_COMPARED, PAIRS, PIECE_VALUES

# Python with torch, scikit-learn, pandas and matplotlib, and what torch loads for its first step of an optimiser, as resident
# memory: docs/PERFORMANCE.md.
INTERPRETER_BYTES = 950_000_000
_LEAST_CHUNK_ROWS = 1024
_CHUNK_SHARE = 16
_PIECE_BYTES = 1 << 20
_WIDE, _NARROW = 8, 4
# In copies of what is named; each was counted in the code that makes them.
_CHUNKS = 4
_SQUARES_OF_RIDGE = 4.5
_SQUARES_OF_WHITENING = 3.0
_POINTS_OF_A_SEARCH = 30
_COEFFICIENTS_OF_RIDGE = 32
_BYTES_OF_A_WEIGHT = 60  # of a network that learns, and of the one before, which is still looked at
_COPIES_OF_COMPARED = 5
_LEAST_COMPARED = 125
_BYTES_OF_A_KEPT_VALUE = 6
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str) -> int:
    """Turn ``2GB``, ``1500 MB`` or ``2GiB`` into bytes.

    Raises
    ------
    OptionError
        If it is not a size.

    Examples
    --------
    >>> parse_size("1.5GB"), parse_size("2 GiB")
    (1500000000, 2147483648)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text, flags=re.IGNORECASE | re.ASCII)
    if found is None:
        msg = f"--memory-limit {text!r}: not a size; expected a number and a unit, such as 2GB, 1500MB or 2GiB"
        raise OptionError(msg)
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def show_size(n_bytes: int) -> str:
    """Write a size so that :func:`parse_size` reads at least as much.

    Examples
    --------
    >>> show_size(1_431_200_001), show_size(2)
    ('1432MB', '2B')
    """
    if n_bytes < 10**6:
        return f"{n_bytes}B"
    return f"{-(-n_bytes // 10**6)}MB"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be fitted, in numbers.

    Parameters
    ----------
    n_images, n_views, n_columns, n_classes : int
    n_cells : int
        Of the folds; see :mod:`heads.nesting`.
    n_sets : int
        Training sets that a head is fitted on side by side, at most.
    n_scores : int
        Outputs of heads that choices need, of each row and class.
    n_probabilities : int
        Probabilities that the run is scored by, of each image and class.
    n_units : int
        Of networks, that see the columns.
    keeps_images : bool
        Whether a head keeps a row for each image.
    n_new : int
        Test images that are compared with these.
    n_copies : int
        Of all features, where these are in memory.
    kept : int
        Bytes that an earlier step leaves behind for the end.
    """

    n_images: int
    n_views: int
    n_columns: int
    n_classes: int
    n_cells: int
    n_sets: int
    n_scores: int
    n_probabilities: int
    n_units: int = 768
    keeps_images: bool = False
    n_new: int = 0
    n_copies: int = 2
    kept: int = 0

    @property
    def square(self) -> int:
        """Bytes of a float64 matrix, columns by columns."""
        return _WIDE * self.n_columns**2

    @property
    def features(self) -> int:
        """Bytes of all features in float32."""
        return _NARROW * self.n_images * self.n_views * self.n_columns

    @property
    def scores(self) -> int:
        """Bytes of all outputs that choices need."""
        return _NARROW * self.n_images * self.n_views * self.n_classes * self.n_scores

    @property
    def results(self) -> int:
        """Bytes of what the run is scored by: it stays to the end."""
        return _WIDE * self.n_images * self.n_classes * self.n_probabilities + self.kept

    @property
    def point(self) -> int:
        """Bytes of one search's unknowns."""
        return _WIDE * (self.n_columns + 1) * self.n_classes

    def guard(self, n_compared: int) -> int:
        """Peak bytes of looking for near-duplicates, the space learned from so many images."""
        image = _NARROW * self.n_views * self.n_columns
        places = 3 * _NARROW * COPY_DIRECTIONS * (self.n_images + self.n_new)
        pieces = _CHUNKS * _NARROW * min(PIECE_VALUES, self.n_images * self.n_views * self.n_columns)
        return max(_COPIES_OF_COMPARED * min(n_compared, self.n_images) * image, pieces) + places + self.square

    def sums(self, chunk_rows: int) -> int:
        """Peak bytes of adding up one cell."""
        return 2 * self.square + _CHUNKS * self._chunk(chunk_rows)

    def ridge(self, chunk_rows: int) -> int:
        """Peak bytes of a ridge fit and what it is asked."""
        return int(
            _SQUARES_OF_RIDGE * self.square + _COEFFICIENTS_OF_RIDGE * self.point + _CHUNKS * self._chunk(chunk_rows)
        )

    def logistic(self, n_sets: int, chunk_rows: int) -> int:
        """Peak bytes of logistic fits of some sets side by side."""
        outputs = 5 * _NARROW * chunk_rows * self.n_classes
        each = self.square // 2 + _POINTS_OF_A_SEARCH * self.point + 2 * _WIDE * self.n_images + outputs
        return n_sets * each + int(
            max(_SQUARES_OF_WHITENING * self.square, _CHUNKS * self._chunk(chunk_rows) + 20 * self.n_images)
        )

    def mlp(self, shuffled_rows: int, chunk_rows: int) -> int:
        """Peak bytes of an MLP that learns from so many rows at once."""
        networks = _BYTES_OF_A_WEIGHT * self.n_units * self.n_columns
        learning = self.square + _CHUNKS * self._chunk(chunk_rows) + _NARROW * shuffled_rows * self.n_columns
        return networks + int(max((_SQUARES_OF_WHITENING + 0.5) * self.square, learning))

    def neighbours(self, chunk_rows: int) -> int:
        """Peak bytes of a head that keeps a row for each image, and of what it is asked; 0 where there is none."""
        if not self.keeps_images:
            return 0
        kept = _BYTES_OF_A_KEPT_VALUE * self.n_images * self.n_columns
        return kept + self.square + 4 * _NARROW * PAIRS + _CHUNKS * self._chunk(chunk_rows)

    def _chunk(self, rows: int) -> int:
        return _NARROW * max(rows, self.n_views) * self.n_columns

    @property
    def least(self) -> int:
        """Bytes without which nothing can be fitted, rows staying on the disk."""
        rows = _LEAST_CHUNK_ROWS
        fits = self.sums(rows), self.ridge(rows), self.logistic(1, rows), self.mlp(_LEAST_CHUNK_ROWS, rows)
        peaks = *fits, self.neighbours(rows), self.guard(_LEAST_COMPARED)
        return INTERPRETER_BYTES + self.results + max(peaks)

    @property
    def most(self) -> int:
        """Bytes with which everything is in memory at once, as without a limit."""
        rows = CHUNK_ROWS
        networks = self.mlp(0, rows) + 2 * self.features
        fits = max(self.ridge(rows), self.logistic(self.n_sets, rows), networks, self.neighbours(rows))
        sums = 2 * self.n_cells * self.square
        learning = self.results + self.scores + self.n_copies * self.features + sums + fits
        new = _NARROW * self.n_new * self.n_views * self.n_columns
        guard = self.features + new + self.guard(min(self.n_images, MOST_COMPARED))
        return INTERPRETER_BYTES + max(learning, guard)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A limit that the features do not fit: rows, sums and outputs stay on the disk, and come in pieces.

    Parameters
    ----------
    work : Work
    limit : int
        Bytes of the process, the interpreter included.
    folder : Path
        Where files without a name lie meanwhile.
    """

    work: Work
    limit: int
    folder: Path

    @property
    def free(self) -> int:
        """Bytes for what is made and dropped."""
        return self.limit - INTERPRETER_BYTES - self.work.results

    @property
    def chunk_rows(self) -> int:
        """Rows that are looked at together."""
        rows = self.free // _CHUNK_SHARE // (_NARROW * self.work.n_columns)
        while rows > _LEAST_CHUNK_ROWS and self._peak(rows) > self.free:
            rows //= 2
        return min(max(rows, _LEAST_CHUNK_ROWS), CHUNK_ROWS)

    def _peak(self, rows: int) -> int:
        work = self.work
        fits = work.sums(rows), work.ridge(rows), work.logistic(1, rows), work.mlp(rows, rows)
        return max(*fits, work.neighbours(rows))

    def sets_together(self, n_sets: int) -> int:
        """Return how many of some training sets share the logistic head's passes: groups of nearly one size."""
        most = next((n for n in range(n_sets, 1, -1) if self.work.logistic(n, self.chunk_rows) <= self.free), 1)
        n_groups = -(-n_sets // most)
        return -(-n_sets // n_groups)

    @property
    def shuffled_rows(self) -> int:
        """Rows that the MLPs learn from in one order, drawn from all over the training set."""
        left = self.free - self.work.mlp(0, self.chunk_rows)
        return max(left // (_NARROW * self.work.n_columns), _LEAST_CHUNK_ROWS)

    @property
    def compared_images(self) -> int:
        """Images that the leak guard learns from how alike copies are."""
        work, share = self.work, _LEAST_COMPARED
        while 2 * share <= MOST_COMPARED and work.guard(2 * share) <= self.free:
            share *= 2
        return share

    @property
    def piece_images(self) -> int:
        """Images that are read together wherever the order is drawn: a disk reads a MiB as fast as many."""
        return max(1, _PIECE_BYTES // (2 * self.work.n_views * self.work.n_columns))

    def to_json(self) -> dict[str, Any]:
        """Return what run.json tells."""
        return {
            "limit": self.limit,
            "streamed": True,
            "chunk_rows": self.chunk_rows,
            "shuffled_rows": self.shuffled_rows,
        }


def plan_memory(limit: int | None, work: Work, folder: Path) -> Memory | None:
    """Say how work is done within a limit.

    Parameters
    ----------
    limit : int, optional
        Bytes of the process, the interpreter included.
    work : Work
    folder : Path
        Where the run goes: beside it lies what has no room. Need not exist.

    Returns
    -------
    Memory, or None
        None where everything may be in memory.

    Raises
    ------
    OptionError
        If the limit is too small for the work.
    DiskFull
        If what has no room in memory has none on the disk.
    """
    if limit is None or work.most <= limit:
        return None
    if limit < work.least:
        msg = (
            f"--memory-limit {show_size(limit)}: {work.n_columns:,} columns, {work.n_classes} classes and {work.n_images:,} images "
            f"of {work.n_views} views need {show_size(work.least)} ({show_size(INTERPRETER_BYTES)} of it the interpreter). Type "
            f"--memory-limit {show_size(work.least)}, or fit fewer --blocks"
        )
        raise OptionError(msg)
    here = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    needed, there = work.scores + 2 * work.n_cells * work.square, shutil.disk_usage(here).free
    if there < needed:
        msg = (
            f"{here}: {show_size(there)} free; fitting within --memory-limit {show_size(limit)} needs {show_size(needed)} for a while. "
            f"Make room, or put the run elsewhere with --out"
        )
        raise DiskFull(msg)
    return Memory(work=work, limit=limit, folder=here)
