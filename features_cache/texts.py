"""Many short texts in little memory."""

from __future__ import annotations

import array
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload


class Texts(Sequence[str]):  # noqa: PLW1641 - equal to lists, which have no hash
    """A sequence of texts in one buffer: their UTF-8 bytes and 8 more each, where a tuple takes 60 more each.

    Equal to any sequence of the same texts.

    Parameters
    ----------
    texts : iterable of str
        Any text that Python holds, bytes of file names that are not UTF-8 included.

    Examples
    --------
    >>> ids = Texts(["a", "ü"])
    >>> ids[1], ids[:1] == ("a",), ids == ["a", "ü"]
    ('ü', True, True)
    """

    __slots__ = ("_bytes", "_ends")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array.array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> str | Self:
        if isinstance(index, slice):
            return type(self)(self._text(place) for place in range(*index.indices(len(self))))
        return self._text(range(len(self))[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def _text(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return self._ends == other._ends and self._bytes == other._bytes
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented

    def __repr__(self) -> str:
        return f"Texts({list(self)!r})"
