"""What became of each image."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """One code a row, kept as uint8. Codes are part of the format: never renumbered, only added."""

    GOOD = 0
    NOT_AN_IMAGE = 1
    TRUNCATED = 2
    TOO_LARGE = 3
    UNSUPPORTED = 4
    UNREADABLE = 5
    NOT_FINITE = 6
    CHANNEL = 7
    FEATURES = 8
    SILENT = 9

    @property
    def words(self) -> str:
        """The code in words, as reports show it."""
        return _WORDS[self]


_WORDS = {
    Status.GOOD: "good",
    Status.NOT_AN_IMAGE: "not an image",
    Status.TRUNCATED: "truncated or damaged",
    Status.TOO_LARGE: "over --max-pixels",
    Status.UNSUPPORTED: "a format, depth or frame count that is not supported",
    Status.UNREADABLE: "unreadable",
    Status.NOT_FINITE: "NaN or infinite pixels",
    Status.CHANNEL: "a channel file is missing or of another size",
    Status.FEATURES: "features overflow the storage type or are not finite",
    Status.SILENT: "features are zero everywhere",
}
