"""The files of every image, as they were when the work was planned."""

from __future__ import annotations

import array
import dataclasses
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

from features_cache.texts import Texts

_LAST_NS = 2**63 - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of an image, as it was when the plan was made.

    Parameters
    ----------
    path : str
        Relative to the images' folder; empty where a channel file is missing.
    n_bytes : int
    sign : int
        What tells this version of it from another: a local file's modification time in nanoseconds, or what a store says of an
        object.
    """

    path: str
    n_bytes: int
    sign: int


def sign_of_file(state: os.stat_result) -> int:
    """Return the sign of a local file: its modification time in nanoseconds, in 64 bits, which end in the year 2262."""
    return min(max(state.st_mtime_ns, -_LAST_NS), _LAST_NS)


class Sources(Sequence[tuple[SourceFile, ...]]):  # noqa: PLW1641 - equal to lists, which have no hash
    """Each image's files, in channel order; about 32 bytes and the path's own a file.

    Equal to any sequence of the same files.

    Parameters
    ----------
    images : iterable of iterable of SourceFile
        The files of each image.
    """

    __slots__ = ("_ends", "_paths", "_signs", "_sizes")

    def __init__(self, images: Iterable[Iterable[SourceFile]] = ()) -> None:
        self._sizes, self._signs, self._ends = array.array("q"), array.array("q"), array.array("q", [0])
        self._paths = Texts(self._enter(images))

    def _enter(self, images: Iterable[Iterable[SourceFile]]) -> Iterator[str]:
        for files in images:
            for file in files:
                self._sizes.append(file.n_bytes)
                self._signs.append(file.sign)
                yield file.path
            self._ends.append(len(self._sizes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[SourceFile, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> tuple[SourceFile, ...] | Self:
        if isinstance(index, slice):
            return type(self)(self._files(place) for place in range(*index.indices(len(self))))
        return self._files(range(len(self))[index])

    def __iter__(self) -> Iterator[tuple[SourceFile, ...]]:
        return map(self._files, range(len(self)))

    def _files(self, image: int) -> tuple[SourceFile, ...]:
        return tuple(
            SourceFile(path=self._paths[file], n_bytes=self._sizes[file], sign=self._signs[file])
            for file in range(self._ends[image], self._ends[image + 1])
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented
