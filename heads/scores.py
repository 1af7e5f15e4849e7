"""What heads said of images, as outputs: in memory, or on a disk where they have no room."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from heads.arrays import Float32, Indices
from heads.scratch import Scratch

_PIECE_BYTES = 16 << 20


class Scores:
    """Outputs of the heads of one training set, by candidate; minus infinity for classes that the set does not hold.

    Parameters
    ----------
    n_images, n_views, n_classes : int
        Of what the heads are asked about.
    folder : Path, optional
        Where they lie; in memory unless given.
    """

    def __init__(self, n_images: int, n_views: int, n_classes: int, folder: Path | None = None) -> None:
        self._shape = n_images, n_views, n_classes
        self._scratch = None if folder is None else Scratch(folder)
        self._kept: dict[float, Float32] = {}
        self._starts: dict[float, int] = {}
        self._n_members: dict[float, int] = {}
        self._end = 0

    def enter(self, candidate: float, places: Indices, classes: Indices, raw: Float32) -> None:
        """Keep what one candidate's head said.

        Parameters
        ----------
        candidate : float
        places : int64 array, shape (n,)
            Which images, ascending.
        classes : int64 array, shape (n_known,)
        raw : float array, shape (n_members, n * n_views, n_known)
        """
        n_images, n_views, n_classes = self._shape
        n_members = len(raw)
        said = np.full((n_members, len(places), n_views, n_classes), -np.inf, dtype=np.float32)
        said[..., classes] = raw.reshape(n_members, len(places), n_views, -1)
        if self._scratch is None:
            if candidate not in self._kept:
                self._kept[candidate] = np.full((n_members, *self._shape), -np.inf, dtype=np.float32)
            self._kept[candidate][:, places] = said
            return
        if candidate not in self._starts:
            self._starts[candidate], self._n_members[candidate] = self._end, n_members
            self._end += n_members * n_images * n_views * n_classes * said.itemsize
        # An image's outputs lie together, whoever said them.
        by_image = np.ascontiguousarray(said.swapaxes(0, 1))
        for first, stop in _stretches(places):
            self._scratch.write(by_image[first:stop], self._at(candidate, int(places[first])))

    def of(self, places: Indices, candidate: float) -> Float32 | ScoresOnDisk:
        """Return the outputs of some images: an array of shape (n_members, n, n_views, n_classes), or where they lie."""
        if self._scratch is None:
            return self._kept[candidate][:, places]
        return ScoresOnDisk(((self, candidate, places),))

    def __getitem__(self, candidate: float) -> Float32:
        """Return all outputs of a candidate in memory, shape (n_members, n_images, n_views, n_classes)."""
        return np.concatenate(list(self.pieces(np.arange(self._shape[0]), candidate)), axis=1)

    def pieces(self, places: Indices, candidate: float) -> Iterator[Float32]:
        """Read outputs back, some images at a time."""
        if self._scratch is None:
            yield self._kept[candidate][:, places]
            return
        _, n_views, n_classes = self._shape
        n_members = self._n_members[candidate]
        per_piece = max(1, _PIECE_BYTES // (4 * n_members * n_views * n_classes))
        for start in range(0, max(1, len(places)), per_piece):
            here = places[start : start + per_piece]
            by_image = np.empty((len(here), n_members, n_views, n_classes), dtype=np.float32)
            for first, stop in _stretches(here):
                self._scratch.read(by_image[first:stop], self._at(candidate, int(here[first])))
            yield by_image.swapaxes(0, 1)

    def _at(self, candidate: float, place: int) -> int:
        _, n_views, n_classes = self._shape
        return self._starts[candidate] + 4 * place * self._n_members[candidate] * n_views * n_classes


@dataclasses.dataclass(frozen=True, slots=True)
class ScoresOnDisk:
    """Outputs that are read when they are needed.

    Parameters
    ----------
    parts : tuple of (Scores, candidate, places)
        One after the other.
    """

    parts: tuple[tuple[Scores, float, Indices], ...]

    def pieces(self) -> Iterator[Float32]:
        """Go through the images in their order, shape (n_members, n, n_views, n_classes)."""
        for scores, candidate, places in self.parts:
            yield from scores.pieces(places, candidate)


def join_scores(parts: Sequence[Float32 | ScoresOnDisk]) -> Float32 | ScoresOnDisk:
    """Put the outputs of several sets of images one after the other."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays, axis=1)
    return ScoresOnDisk(tuple(each for part in parts if isinstance(part, ScoresOnDisk) for each in part.parts))


def _stretches(places: Indices) -> Iterator[tuple[int, int]]:
    """Divide ascending places into stretches in which one follows the other."""
    bounds = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    return ((first, stop) for first, stop in itertools.pairwise(bounds) if first < stop)
