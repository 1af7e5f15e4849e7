"""What tells an object of a store from another one that takes its name: a checksum or a time, as one number."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNKNOWN_SIZE = -1
NO_SIGN = 0
_LAST = 2**63 - 1
# The first that a store tells: checksums before versions before times, since the same bytes written again are no change.
_KEYS = (
    "md5Hash",
    "content_md5",
    "ETag",
    "etag",
    "generation",
    "blob_id",
    "sha",
    "CRC",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "modify",
    "created",
)


def size_of(entry: Mapping[str, Any]) -> int:
    """Return an object's size in bytes; ``UNKNOWN_SIZE`` where the store does not tell."""
    size = entry.get("size")
    return UNKNOWN_SIZE if size is None else int(size)


def sign_of(entry: Mapping[str, Any]) -> int:
    """Turn what a store tells of an object into the number that is kept in the place of a modification time.

    Parameters
    ----------
    entry : mapping
        As fsspec's ``ls`` and ``info`` return it.

    Returns
    -------
    int
        Nanoseconds since 1970 of a time, 63 bits of the hash of any other sign; ``NO_SIGN`` where there is none.

    Examples
    --------
    >>> sign_of({"size": 3}), sign_of({"created": 1.5}), sign_of({"ETag": '"ab"'}) == sign_of({"etag": "ab"})
    (0, 1500000000, True)
    """
    told = next((entry[key] for key in _KEYS if entry.get(key) not in (None, "")), None)
    if told is None:
        return NO_SIGN
    if isinstance(told, datetime):
        told = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    if isinstance(told, float):
        return min(max(round(told * 1e9), -_LAST), _LAST)
    return _number_of(str(told).strip('"'))


def is_proven(raw: bytes, n_bytes: int, sign: int) -> bool:
    """Tell whether bytes are those of an object by themselves: their MD5 is the checksum that the store told.

    Parameters
    ----------
    raw : bytes
        What was read.
    n_bytes, sign : int
        As :func:`size_of` and :func:`sign_of` returned them.
    """
    if len(raw) != n_bytes:
        return False
    digest = hashlib.md5(raw, usedforsecurity=False)
    return sign in {_number_of(digest.hexdigest()), _number_of(base64.b64encode(digest.digest()).decode())}


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % _LAST + 1
