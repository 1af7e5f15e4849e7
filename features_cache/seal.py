"""The first 512 bytes of every file of ours: who wrote it, how long it is, and a hash of all that follows.

A cache's seal also says where its features lie and has a hash of all bytes around them: ids, statuses, recipes and HDF5's own
metadata are checked at every opening, before libhdf5 sees them, for the price of a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path

from features_cache.errors import CacheDamaged, ForeignCache

SEAL_BYTES = 512
CACHE_MAGIC = b"PERMAFEAT CACHE\n"
PART_MAGIC = b"PERMAFEAT PART \n"
FORMAT_VERSION = 2
# Of caches whose rows have parents. Others stay what they were, to the byte.
PARENTS_VERSION = 3

_FIELDS = struct.Struct("<16sIIQ32sQQ32s")
_READ_BYTES = 1 << 20
# A forged file must not keep us hashing for hours, nor fill the memory with ids: a million images fit.
MOST_AROUND = 64 << 20
_WAYS_OUT = ". Restore it, or compute it again with --overwrite"


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
    features_at, features_bytes : int
        Where a cache's features begin, and their size; 0 in parts and in format 1.
    around : bytes, length 32
        blake2b-256 of all bytes after the seal but the features; zeros in parts and in format 1.
    """

    magic: bytes
    version: int
    n_bytes: int
    checksum: bytes
    features_at: int = 0
    features_bytes: int = 0
    around: bytes = bytes(32)

    def pack(self) -> bytes:
        """Return the 512 bytes."""
        fields = (self.magic, self.version, 0, self.n_bytes, self.checksum)
        packed = _FIELDS.pack(*fields, self.features_at, self.features_bytes, self.around)
        if self.version > 1:
            packed += hashlib.blake2b(packed, digest_size=16).digest()
        return packed.ljust(SEAL_BYTES, b"\x00")


class Sealing:
    """Hashes a file's bytes while they pass by, then knows its seal.

    Parameters
    ----------
    magic : bytes
        ``CACHE_MAGIC`` or ``PART_MAGIC``.
    before, after : sequence of bytes, optional
        What stands around a cache's features.
    version : int
        Of the format.

    Examples
    --------
    >>> sealing = Sealing(PART_MAGIC)
    >>> body = b"".join(bytes(chunk) for chunk in sealing.pass_through([b"body"]))
    >>> len(body), len(sealing.seal())
    (516, 512)
    """

    def __init__(
        self,
        magic: bytes,
        before: Sequence[bytes | memoryview] = (),
        after: Sequence[bytes | memoryview] = (),
        version: int = FORMAT_VERSION,
    ) -> None:
        self._magic, self._version = magic, version
        self._before, self._after = before, after
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
        seal = Seal(magic=self._magic, version=self._version, n_bytes=self._n_bytes, checksum=self._hash.digest())
        if self._before:
            features_at = SEAL_BYTES + sum(map(len, self._before))
            around = hashlib.blake2b(digest_size=32)
            for piece in (*self._before, *self._after):
                around.update(piece)
            seal = dataclasses.replace(
                seal,
                features_at=features_at,
                features_bytes=self._n_bytes - features_at - sum(map(len, self._after)),
                around=around.digest(),
            )
        return seal.pack()


def read_seal(file: BufferedReader, path: Path, magic: bytes) -> Seal:
    """Read and check a file's seal against its size, without reading the rest.

    Parameters
    ----------
    file : binary file
        Open; its name may by now belong to another file.
    path : Path
        For messages.
    magic : bytes
        ``CACHE_MAGIC`` or ``PART_MAGIC``.

    Raises
    ------
    ForeignCache
        If we did not write it, or a newer version did.
    CacheDamaged
        If the seal is damaged, or the file is shorter or longer than when it was written.
    """
    file.seek(0)
    raw = file.read(SEAL_BYTES)
    n_bytes = file.seek(0, os.SEEK_END)
    if len(raw) < SEAL_BYTES or not raw.startswith(magic):
        found = f"not a permafeat file (it does not begin with {magic.strip().decode()!r}); refused"
        msg = f"{path}: {found}. Expected what `cli featurize` writes (*.h5)"
        raise ForeignCache(msg)
    found, version, _reserved, n_sealed, checksum, features_at, features_bytes, around = _FIELDS.unpack_from(raw)
    seal = Seal(
        magic=found,
        version=version,
        n_bytes=n_sealed,
        checksum=checksum,
        features_at=features_at,
        features_bytes=features_bytes,
        around=around,
    )
    if not 0 < version <= PARENTS_VERSION:
        msg = f"{path}: written in format {version}; this program reads up to {PARENTS_VERSION}. Update permafeat"
        raise ForeignCache(msg)
    if raw != seal.pack():
        msg = f"{path}: its first {SEAL_BYTES} bytes are damaged{_WAYS_OUT}"
        raise CacheDamaged(msg)
    if n_sealed != n_bytes:
        msg = f"{path}: {n_bytes} bytes long; {n_sealed} were written. It was cut or added to{_WAYS_OUT}"
        raise CacheDamaged(msg)
    return seal


def check_bytes(path: Path, magic: bytes) -> Seal:
    """Read every byte of a file and compare with the hash in its seal.

    Raises
    ------
    ForeignCache, CacheDamaged
        As :func:`read_seal`; also ``CacheDamaged`` if a byte differs.
    FileNotFoundError
        If there is no file.
    """
    with path.open("rb") as file:
        seal = read_seal(file, path, magic)
        check_whole(file, path, seal)
    return seal


def check_whole(file: BufferedReader, path: Path, seal: Seal) -> None:
    """Compare every byte of an open file with its seal.

    Raises
    ------
    CacheDamaged
        If one differs.
    """
    if _hash_of(file, [(SEAL_BYTES, seal.n_bytes)]) != seal.checksum:
        msg = (
            f"{path}: its bytes are not those that were written (checksum differs); `cli verify` says which{_WAYS_OUT}"
        )
        raise CacheDamaged(msg)


def check_around(file: BufferedReader, path: Path, seal: Seal) -> None:
    """Compare all bytes but the features with the seal; format 1 cannot be compared, and passes.

    Raises
    ------
    CacheDamaged
        If a byte differs.
    ForeignCache
        If the seal's own numbers cannot be.
    """
    if seal.version == 1:
        return
    end = seal.features_at + seal.features_bytes
    n_around = seal.n_bytes - SEAL_BYTES - seal.features_bytes
    if not SEAL_BYTES <= seal.features_at <= end <= seal.n_bytes or n_around > MOST_AROUND:
        msg = f"{path}: {seal.features_bytes} bytes of features from {seal.features_at} on cannot be, in {seal.n_bytes} bytes; refused"
        raise ForeignCache(msg)
    if _hash_of(file, [(SEAL_BYTES, seal.features_at), (end, seal.n_bytes)]) != seal.around:
        msg = f"{path}: what stands around its features is damaged{_WAYS_OUT}"
        raise CacheDamaged(msg)


def _hash_of(file: BufferedReader, ranges: Iterable[tuple[int, int]]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    buffer = memoryview(bytearray(_READ_BYTES))
    for start, stop in ranges:
        file.seek(start)
        n_left = stop - start
        while n_left and (n_read := file.readinto(buffer[: min(_READ_BYTES, n_left)])):
            digest.update(buffer[:n_read])
            n_left -= n_read
    return digest.digest()
