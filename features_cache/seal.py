"""The first 512 bytes of every file of ours: who wrote it, how long it is, and a hash of all that follows."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from features_cache.errors import CacheDamaged, ForeignCache

SEAL_BYTES = 512
CACHE_MAGIC = b"PERMAFEAT CACHE\n"
PART_MAGIC = b"PERMAFEAT PART \n"
FORMAT_VERSION = 1

_FIELDS = struct.Struct("<16sIIQ32s")
_READ_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What the user block of a file says.

    Parameters
    ----------
    magic : bytes, length 16
        ``CACHE_MAGIC`` or ``PART_MAGIC``.
    version : int
        Version of the format.
    n_bytes : int
        Size of the whole file, the seal included.
    checksum : bytes, length 32
        blake2b-256 of all bytes after the seal.
    """

    magic: bytes
    version: int
    n_bytes: int
    checksum: bytes

    def pack(self) -> bytes:
        """Return the 512 bytes."""
        return _FIELDS.pack(self.magic, self.version, 0, self.n_bytes, self.checksum).ljust(SEAL_BYTES, b"\x00")


class Sealing:
    """Hashes a file's bytes while they pass by, then knows its seal.

    Examples
    --------
    >>> sealing = Sealing(PART_MAGIC)
    >>> body = b"".join(bytes(chunk) for chunk in sealing.pass_through([b"body"]))
    >>> len(body), len(sealing.seal())
    (516, 512)
    """

    def __init__(self, magic: bytes) -> None:
        self._magic = magic
        self._hash = hashlib.blake2b(digest_size=32)
        self._n_bytes = SEAL_BYTES

    def pass_through(self, body: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield room for the seal, then the body."""
        yield bytes(SEAL_BYTES)
        for chunk in body:
            self._hash.update(chunk)
            self._n_bytes += len(chunk)
            yield chunk

    def seal(self) -> bytes:
        """Return the 512 bytes that go where room was left."""
        return Seal(
            magic=self._magic, version=FORMAT_VERSION, n_bytes=self._n_bytes, checksum=self._hash.digest()
        ).pack()


def read_seal(path: Path, magic: bytes) -> Seal:
    """Read and check a file's seal against its size, without reading the rest.

    Raises
    ------
    ForeignCache
        If we did not write it, or a newer version did.
    CacheDamaged
        If the file is shorter or longer than when it was written.
    FileNotFoundError
        If there is no file.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SEAL_BYTES)
            n_bytes = file.seek(0, 2)
    except PermissionError as error:
        msg = f"{path}: cannot be read ({error.strerror}); ask its owner for permission"
        raise CacheDamaged(msg) from error
    if len(raw) < SEAL_BYTES or not raw.startswith(magic):
        msg = f"{path}: not a permafeat file (it does not begin with {magic.strip().decode()!r}); refused"
        raise ForeignCache(msg)
    found, version, _reserved, n_sealed, checksum = _FIELDS.unpack_from(raw)
    seal = Seal(magic=found, version=version, n_bytes=n_sealed, checksum=checksum)
    if seal.version > FORMAT_VERSION:
        msg = f"{path}: written in format {seal.version}; this program reads up to {FORMAT_VERSION}. Update permafeat"
        raise ForeignCache(msg)
    if seal.n_bytes != n_bytes:
        msg = f"{path}: {n_bytes} bytes long; {seal.n_bytes} were written. It was cut or added to: restore it, or compute it again with --overwrite"
        raise CacheDamaged(msg)
    return seal


def check_bytes(path: Path, magic: bytes) -> Seal:
    """Read every byte of a file and compare with the hash in its seal.

    Raises
    ------
    ForeignCache, CacheDamaged, FileNotFoundError
        As :func:`read_seal`; also ``CacheDamaged`` if a byte differs.
    """
    seal = read_seal(path, magic)
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        file.seek(SEAL_BYTES)
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    if digest.digest() != seal.checksum:
        msg = f"{path}: its bytes are not those that were written (checksum differs); restore it, or compute it again with --overwrite"
        raise CacheDamaged(msg)
    return seal
