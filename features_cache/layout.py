"""The HDF5 inside: a cache around features that are streamed in, and a part built whole in memory.

libhdf5 ends the process on a full disk, even where the exception is caught. So it never writes to a disk here: it lays out
its metadata in memory, and ``files.publish`` writes the bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_cache.errors import OptionError
from features_cache.recipe import Block, Storage, canonical_json
from features_cache.seal import FORMAT_VERSION, MOST_AROUND, PARENTS_VERSION, SEAL_BYTES

HASH_BYTES = 16
MOST_ID_BYTES = 4096
_H5_VERSION = ("v110", "v110")  # "latest" writes files that older h5py cannot read
_ALIGNMENT = 512
_FEATURES = "features"


class _Sparse(io.RawIOBase):
    """A file in memory that keeps what libhdf5 writes (metadata) and leaves out what it only reserves (arrays)."""

    def __init__(self) -> None:
        self._written: list[tuple[int, bytes]] = []
        self._position = 0
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.n_bytes}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.n_bytes = self._position if size is None else size
        return self.n_bytes

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer, as RawIOBase has it
        raw = bytes(data)
        self._written.append((self._position, raw))
        self._position += len(raw)
        self.n_bytes = max(self.n_bytes, self._position)
        return len(raw)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any buffer, as RawIOBase has it
        view = memoryview(buffer).cast("B")
        view[:] = self.between(self._position, self._position + len(view))
        self._position += len(view)
        return len(view)

    def between(self, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, zeros where nothing was written."""
        image = bytearray(stop - start)
        for offset, raw in self._written:
            low, high = max(offset, start), min(offset + len(raw), stop)
            if low < high:
                image[low - start : high - start] = raw[low - offset : high - offset]
        return bytes(image)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is known of consecutive images.

    Parameters
    ----------
    features : float16 or float32 array, shape (images, views, columns)
        Zeros where an image is quarantined.
    status : uint8 array, shape (images,)
        :class:`~features_cache.status.Status` codes.
    content_hash : uint8 array, shape (images, 16)
        blake2b-128 of each image's bytes (all its channel files in order); zeros where unreadable.
    reasons : tuple of str, length images
        Why an image was quarantined; empty where it is good.
    conversions : mapping of str to int
        How many of the images were converted, by rule.
    """

    features: NDArray[np.floating[Any]]
    status: NDArray[np.uint8]
    content_hash: NDArray[np.uint8]
    reasons: tuple[str, ...]
    conversions: Mapping[str, int] = dataclasses.field(default_factory=dict)


def row_checksums(features: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Hash each image's features as they are stored: blake2b-128, shape (images, 16)."""
    stored = np.ascontiguousarray(features, dtype=_little_endian(features.dtype.name))
    digests = [hashlib.blake2b(row.data, digest_size=HASH_BYTES).digest() for row in stored]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, HASH_BYTES)


def _little_endian(storage: str) -> np.dtype[Any]:
    return np.dtype(storage).newbyteorder("<")


def _plain(file: h5py.File, name: str, data: NDArray[Any]) -> None:
    file.create_dataset(name, data=data, track_times=False)


def _json_bytes(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(canonical_json(value), dtype=np.uint8)


def read_json(dataset: h5py.Dataset) -> Any:  # noqa: ANN401 - whatever was written
    """Return the value that a uint8 dataset of JSON text holds."""
    return json.loads(dataset[()].tobytes())


def fixed_length(texts: Sequence[str], what: str = "id") -> NDArray[np.bytes_]:
    """Encode texts as UTF-8 of one width: variable-length strings are refused in files of ours."""
    width = 1
    for text in texts:
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            msg = f"the {what} {text!r} is no text that can be kept: expected neither zero bytes nor lone surrogates"
            raise OptionError(msg)
        width = max(width, len(text.encode("utf-8")))
    if width > MOST_ID_BYTES:
        msg = f"the longest {what} has {width} bytes; expected at most {MOST_ID_BYTES}"
        raise OptionError(msg)
    return np.fromiter((text.encode("utf-8") for text in texts), dtype=f"S{max(1, width)}", count=len(texts))


def version_of(parents: Sequence[str]) -> int:
    """Return the version of the format that a cache is written in: the first that can hold what it holds."""
    return PARENTS_VERSION if len(parents) else FORMAT_VERSION


def cache_around(
    *,
    ids: Sequence[str],
    parents: Sequence[str],
    status: NDArray[np.uint8],
    content_hash: NDArray[np.uint8],
    checksum: NDArray[np.uint8],
    blocks: Sequence[Block],
    n_views: int,
    storage: Storage,
) -> tuple[list[bytes | memoryview], list[bytes | memoryview]]:
    """Lay out a cache's file without its features.

    Returns
    -------
    before, after : list of bytes
        What stands between the seal and the features, and what follows them, in order. The features themselves are the
        C-ordered little-endian array (images, views, columns).

    Raises
    ------
    OptionError
        If an id cannot be kept, or there is too much beside the features for one file.
    """
    names = fixed_length(ids)
    arrays = {
        "ids": names.view(h5py.string_dtype("utf-8", names.dtype.itemsize)),
        "status": status,
        "content_hash": content_hash,
        "checksum": checksum,
    }
    if len(parents):
        owners = fixed_length(parents, "parent")
        arrays["parent"] = owners.view(h5py.string_dtype("utf-8", owners.dtype.itemsize))

    def build(file: h5py.File) -> None:
        file.attrs["format"] = np.bytes_("permafeat")
        file.attrs["format_version"] = np.uint32(version_of(parents))
        for name, array in arrays.items():
            reserve(file, name, array.shape, array.dtype)
        _plain(file, "blocks", _json_bytes([block.to_json() for block in blocks]))
        reserve(file, _FEATURES, (len(ids), n_views, blocks[-1].stop), _little_endian(storage))

    around: tuple[list[bytes | memoryview], list[bytes | memoryview]] = [], []
    is_behind = False
    for piece in lay_out(
        build, userblock_size=SEAL_BYTES, alignment_threshold=_ALIGNMENT, alignment_interval=_ALIGNMENT
    ):
        if piece == _FEATURES:
            is_behind = True
        else:
            # Arrays that were given are not copied.
            data = arrays[piece].reshape(-1).view(np.uint8).data if isinstance(piece, str) else piece
            around[is_behind].append(data)
    if sum(len(piece) for pieces in around for piece in pieces) > MOST_AROUND:
        msg = (
            f"{len(ids)} images with ids of up to {names.dtype.itemsize} bytes are too many for one cache; make several"
        )
        raise OptionError(msg)
    return around


def lay_out(build: Callable[[h5py.File], None], **options: int) -> list[bytes | str]:
    """Lay out an HDF5 file of which some arrays are written by others.

    Parameters
    ----------
    build : callable
        Makes all that is in the file, and calls :func:`reserve` for such arrays.
    **options
        Of ``h5py.File``.

    Returns
    -------
    list of bytes or str
        What follows the user block, in order: bytes, or the path of an array whose bytes belong here.
    """
    sparse = _Sparse()
    with h5py.File(sparse, "w", libver=_H5_VERSION, **options) as file:
        build(file)
        file.flush()
        places = sorted(_reserved(file))
    pieces: list[bytes | str] = []
    position = options.get("userblock_size", 0)
    # libhdf5 puts small arrays wherever there is room, and not in the order in which they were made.
    for offset, n_bytes, name in places:
        pieces += [sparse.between(position, offset), name]
        position = offset + n_bytes
    pieces.append(sparse.between(position, sparse.n_bytes))
    return [piece for piece in pieces if piece]


def reserve(place: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Make a contiguous dataset whose bytes :func:`lay_out` leaves to others."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5py.h5d.create(place.id, name.encode(), kind, h5py.h5s.create_simple(shape), dcpl=properties))


def _reserved(file: h5py.File) -> list[tuple[int, int, str]]:
    """Find offset, size and path of the arrays that were reserved."""
    found = []

    def look(path: str, member: h5py.Dataset | h5py.Group) -> None:
        if isinstance(member, h5py.Dataset) and member.nbytes:
            creation = member.id.get_create_plist()
            if creation.get_fill_time() == h5py.h5d.FILL_TIME_NEVER:
                found.append((member.id.get_offset(), member.nbytes, path))

    file.visititems(look)
    return found


def part_image(rows: Rows, *, plan_digest: str, unit: int) -> bytes:
    """Build the file of one part in memory; return all of it but the seal."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=_H5_VERSION, userblock_size=SEAL_BYTES) as file:
        file.attrs["plan"] = np.bytes_(plan_digest)
        file.attrs["unit"] = np.uint64(unit)
        features = rows.features.astype(_little_endian(rows.features.dtype.name), copy=False)
        chunks = (1, *features.shape[1:])
        file.create_dataset("features", data=features, chunks=chunks, fletcher32=True, track_times=False)
        _plain(file, "status", rows.status)
        _plain(file, "content_hash", rows.content_hash)
        _plain(file, "reasons", _json_bytes(list(rows.reasons)))
        _plain(file, "conversions", _json_bytes(dict(rows.conversions)))
    return memory.getvalue()[SEAL_BYTES:]


def rows_of_part(file: h5py.File) -> Rows:
    """Read a part's file back."""
    return Rows(
        features=file["features"][()],
        status=file["status"][()],
        content_hash=file["content_hash"][()],
        reasons=tuple(read_json(file["reasons"])),
        conversions=read_json(file["conversions"]),
    )
