"""HDF5 files that mean harm, made at test time: each a cache of ours but for one thing, with a seal that is right."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from features_cache.layout import reserve
from features_cache.seal import CACHE_MAGIC, SEAL_BYTES, Seal

SECRET = b"the neighbour's bytes"
N, VIEWS, COLUMNS = 4, 2, 8


def _blocks() -> list[dict[str, object]]:
    from cache_data import blocks

    return [block.to_json() for block in blocks(3, 5)]


MEMBERS = {
    "features": lambda: np.ones((N, VIEWS, COLUMNS), np.float16),
    "ids": lambda: np.array([f"id{index}" for index in range(N)], "S8").astype(h5py.string_dtype("utf-8", 8)),
    "status": lambda: np.zeros(N, np.uint8),
    "content_hash": lambda: np.zeros((N, 16), np.uint8),
    "checksum": lambda: np.zeros((N, 16), np.uint8),
    "blocks": lambda: np.frombuffer(json.dumps(_blocks()).encode(), np.uint8),
}


def _file(path: Path, *, without: str = "", version: int = 2) -> h5py.File:
    """Open a new cache that lacks one member."""
    file = h5py.File(path, "w", libver=("v110", "v110"), userblock_size=SEAL_BYTES)
    file.attrs["format"] = np.bytes_("permafeat")
    file.attrs["format_version"] = np.uint32(version)
    for name, value in MEMBERS.items():
        if name != without:
            file.create_dataset(name, data=value(), track_times=False)
    return file


def seal(path: Path, *, version: int = 2, at: int | None = None, n_bytes: int | None = None) -> None:
    """Seal a file as its writer would have, whatever it holds."""
    raw = path.read_bytes()
    if at is None:
        at, n_bytes = SEAL_BYTES, 0
        try:
            with h5py.File(path, "r") as file:
                at, n_bytes = file["features"].id.get_offset() or SEAL_BYTES, file["features"].nbytes
        except (OSError, KeyError, AttributeError, RuntimeError):
            pass
    size = n_bytes or 0
    around = raw[SEAL_BYTES:at] + raw[at + size :] if at + size <= len(raw) else b""
    sealed = Seal(
        magic=CACHE_MAGIC,
        version=version,
        n_bytes=len(raw),
        checksum=hashlib.blake2b(raw[SEAL_BYTES:], digest_size=32).digest(),
        features_at=at,
        features_bytes=size,
        around=hashlib.blake2b(around, digest_size=32).digest(),
    )
    path.write_bytes(sealed.pack() + raw[SEAL_BYTES:])


def _secret(path: Path) -> Path:
    place = path.with_name("secret.h5")
    with h5py.File(place, "w") as file:
        for name, value in MEMBERS.items():
            file[name] = value()
        file["text"] = np.frombuffer(SECRET, np.uint8)
        file["group/deep"] = value()
    return place


def _replaced(name: str, put: Callable[[h5py.File, Path], object]) -> Callable[[Path], None]:
    """Make a file in which one member is something else."""

    def make(path: Path) -> None:
        with _file(path, without=name) as file:
            put(file, path)
        seal(path)

    return make


def _linked_out(name: str, target: str, *, below: str = "") -> Callable[[Path], None]:
    """Link to another file, in the root group or in a group of the member's name."""

    def put(file: h5py.File, path: Path) -> None:
        place = file.create_group(name) if below else file
        place[below or name] = h5py.ExternalLink(str(_secret(path)), target)

    return _replaced(name, put)


def _ids(raw: list[bytes]) -> Callable[[Path], None]:
    values = np.array(raw, "S8").astype(h5py.string_dtype("utf-8", 8))
    return _replaced("ids", lambda file, _: file.create_dataset("ids", data=values))


def _external_storage(file: h5py.File, path: Path) -> None:
    raw = path.with_name("secret.raw")
    raw.write_bytes(SECRET * 100)
    file.create_dataset("features", (N, VIEWS, COLUMNS), np.float16, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def _virtual(name: str) -> Callable[[h5py.File, Path], None]:
    def put(file: h5py.File, path: Path) -> None:
        value = MEMBERS[name]()
        layout = h5py.VirtualLayout(value.shape, value.dtype)
        layout[...] = h5py.VirtualSource(str(_secret(path)), name, shape=value.shape)
        file.create_virtual_dataset(name, layout)

    return put


def _late(file: h5py.File, shape: tuple[int, ...]) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, h5py.h5s.create_simple(shape), dcpl=creation)


def _cycle(file: h5py.File, path: Path) -> None:
    group = file.create_group("features")
    group["up"] = file["/"]


def _huge_attribute(path: Path) -> None:
    with h5py.File(path, "w", libver="latest", userblock_size=SEAL_BYTES) as file:
        file.attrs["format"] = np.zeros(40 << 20, np.uint8)
        for name, value in MEMBERS.items():
            file.create_dataset(name, data=value(), track_times=False)
    seal(path)


def _attribute_of_another_kind(path: Path) -> None:
    with _file(path) as file:
        file.attrs["format"] = "permafeat"  # variable-length
    seal(path)


def _extra(path: Path) -> None:
    with _file(path) as file:
        file["more"] = np.zeros(3)
    seal(path)


def _missing(path: Path) -> None:
    _file(path, without="checksum").close()
    seal(path)


def _wide_ids(file: h5py.File, path: Path) -> None:
    file["ids"] = np.zeros(N, "S5000").astype(h5py.string_dtype("utf-8", 5000))


def _text(name: str, raw: bytes) -> Callable[[Path], None]:
    return _replaced(name, lambda file, _: file.create_dataset(name, data=np.frombuffer(raw, np.uint8)))


def _features_elsewhere(path: Path) -> None:
    _file(path).close()
    seal(path, at=SEAL_BYTES, n_bytes=N * VIEWS * COLUMNS * 2)


def _features_beyond_the_end(path: Path) -> None:
    _file(path).close()
    seal(path, at=SEAL_BYTES, n_bytes=1 << 60)


def _sparse(path: Path) -> None:
    """A file of 8 TB that takes no room: hashing what it says stands around its features would take hours."""
    _file(path).close()
    raw = path.read_bytes()
    size = 8 << 40
    sealed = Seal(
        magic=CACHE_MAGIC, version=2, n_bytes=size, checksum=bytes(32), features_at=SEAL_BYTES, features_bytes=100
    )
    path.write_bytes(sealed.pack() + raw[SEAL_BYTES:])
    with path.open("r+b") as file:
        file.truncate(size)


def _newer(path: Path) -> None:
    _file(path, version=9).close()
    seal(path, version=9)


def _garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    seal(path)


def _half_a_superblock(path: Path) -> None:
    _file(path).close()
    path.write_bytes(path.read_bytes()[: SEAL_BYTES + 40])
    seal(path)


def _scrambled(path: Path) -> None:
    """Metadata of random bytes behind a sound superblock."""
    _file(path).close()
    raw = bytearray(path.read_bytes())
    raw[SEAL_BYTES + 96 : SEAL_BYTES + 1500] = np.random.default_rng(1).bytes(1404)
    path.write_bytes(raw)
    seal(path)


def _first_format_link(path: Path) -> None:
    """Format 1 has no hash of what stands around: its members are looked at all the same."""
    with _file(path, without="features", version=1) as file:
        del file["checksum"]
        file["features"] = h5py.ExternalLink(str(_secret(path)), "features")
    seal(path, version=1)


def _typed(name: str, dtype: object) -> Callable[[Path], None]:
    shape = MEMBERS[name]().shape
    return _replaced(name, lambda file, _: file.create_dataset(name, shape, dtype))


def _many_links(path: Path) -> None:
    with _file(path) as file:
        for number in range(100_000):
            file[f"link{number}"] = h5py.SoftLink("/status")
    seal(path)


def _sparse_ids(path: Path) -> None:
    """Declare a gigabyte of ids that take no place on the disk, and features that would allow for them."""
    n_images = 250_000
    with h5py.File(path, "w", libver=("v110", "v110"), userblock_size=SEAL_BYTES) as file:
        file.attrs["format"] = np.bytes_("permafeat")
        file.attrs["format_version"] = np.uint32(2)
        width = h5py.string_dtype("utf-8", 4096)
        for name, shape, kind in (
            ("ids", (n_images,), width),
            ("status", (n_images,), np.uint8),
            ("content_hash", (n_images, 16), np.uint8),
            ("checksum", (n_images, 16), np.uint8),
        ):
            reserve(file, name, shape, np.dtype(kind))
        file.create_dataset("blocks", data=MEMBERS["blocks"](), track_times=False)
        at = int(reserve(file, "features", (n_images, 1, 2048), np.dtype("<f2")).id.get_offset())
        n_bytes = n_images * 4096
    os.truncate(path, at + n_bytes)
    # Hashing is the reader's business; it must not come to that.
    sealed = Seal(
        magic=CACHE_MAGIC, version=2, n_bytes=at + n_bytes, checksum=bytes(32), features_at=at, features_bytes=n_bytes
    )
    with path.open("r+b") as raw:
        raw.write(sealed.pack())


def _json(value: object) -> Callable[[Path], None]:
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return _replaced("blocks", lambda file, _: file.create_dataset("blocks", data=text))


KINDS: dict[str, Callable[[Path], None]] = {
    "a hundred thousand links": _many_links,
    "ids of a gigabyte without a byte": _sparse_ids,
    "a million blocks": _json([[]] * 1_000_000),
    "two blocks of one name": _json([block | {"name": "same"} for block in _blocks()]),
    "external link": _linked_out("features", "features"),
    "external link to ids": _linked_out("ids", "ids"),
    "external link one deeper": _linked_out("features", "group/deep", below="x"),
    "external link, format 1": _first_format_link,
    "soft link inside": _replaced("checksum", lambda f, _: f.__setitem__("checksum", h5py.SoftLink("/content_hash"))),
    "soft link to nothing": _replaced("status", lambda f, _: f.__setitem__("status", h5py.SoftLink("/nowhere"))),
    "soft link in a circle": _replaced("status", lambda f, _: f.__setitem__("status", h5py.SoftLink("/status"))),
    "external storage": _replaced("features", _external_storage),
    "virtual features": _replaced("features", _virtual("features")),
    "virtual hashes": _replaced("content_hash", _virtual("content_hash")),
    "shape bomb in chunks": _replaced("features", lambda f, _: f.create_dataset("features", (N, 1 << 20, 1 << 30), np.float16, chunks=(1, 1, 64))),
    "shape bomb in one piece": _replaced("features", lambda f, _: _late(f, (N, 1 << 20, 1 << 30))),
    "unwritten features": _replaced("features", lambda f, _: _late(f, (N, VIEWS, COLUMNS))),
    "compression bomb": _replaced("features", lambda f, _: f.create_dataset("features", data=np.zeros((N, 2000, 1000), "f2"), compression=9)),
    "lzf filter": _replaced("features", lambda f, _: f.create_dataset("features", data=MEMBERS["features"](), compression="lzf")),
    "scale-offset filter": _replaced("status", lambda f, _: f.create_dataset("status", data=MEMBERS["status"](), scaleoffset=1, chunks=(2,))),
    "checksummed chunks": _replaced("features", lambda f, _: f.create_dataset("features", data=MEMBERS["features"](), fletcher32=True)),
    "variable-length ids": _replaced("ids", lambda f, _: f.create_dataset("ids", data=["a", "b", "c", "d"], dtype=h5py.string_dtype())),
    "variable-length integers": _typed("blocks", h5py.vlen_dtype(np.uint8)),
    "object references": _typed("status", h5py.ref_dtype),
    "region references": _typed("status", h5py.regionref_dtype),
    "compound type": _typed("features", np.dtype([("a", np.float16), ("b", np.float16)])),
    "array type": _typed("status", np.dtype((np.uint8, (1000,)))),
    "enumeration of doubles": _typed("features", np.dtype(np.float64)),
    "opaque type": _typed("status", h5py.opaque_dtype(np.dtype("V1"))),
    "complex type": _typed("features", np.dtype(np.complex64)),
    "big-endian features": _typed("features", np.dtype(">f2")),
    "a named type for a dataset": _replaced("status", lambda f, _: f.__setitem__("status", np.dtype(np.uint8))),
    "a group for a dataset": _replaced("status", lambda f, _: f.create_group("status")),
    "groups in a circle": _replaced("features", _cycle),
    "features of two axes": _replaced("features", lambda f, _: f.create_dataset("features", data=np.ones((N, 16), np.float16))),
    "a scalar": _replaced("status", lambda f, _: f.create_dataset("status", data=np.uint8(0))),
    "an empty space": _replaced("status", lambda f, _: f.create_dataset("status", data=h5py.Empty(np.uint8))),
    "too few statuses": _replaced("status", lambda f, _: f.create_dataset("status", data=np.zeros(N - 1, np.uint8))),
    "unknown statuses": _replaced("status", lambda f, _: f.create_dataset("status", data=np.full(N, 200, np.uint8))),
    "double ids": _ids([b"a"] * N),
    "ids that are no text": _ids([b"\xff\xfe", b"\xfd", b"\xfc", b"a"]),
    "ids of 5,000 bytes": _replaced("ids", _wide_ids),
    "blocks that are no JSON": _text("blocks", b"{"),
    "blocks nested without end": _text("blocks", b"[" * 200_000),
    "blocks that are a number": _text("blocks", b"7"),
    "blocks of other columns": _text("blocks", b"[]"),
    "blocks of 8 MB": _text("blocks", b" " * (8 << 20) + b"[]"),
    "a huge attribute": _huge_attribute,
    "an attribute of variable length": _attribute_of_another_kind,
    "one member more": _extra,
    "one member less": _missing,
    "features elsewhere": _features_elsewhere,
    "features beyond the end": _features_beyond_the_end,
    "8 TB of nothing": _sparse,
    "a newer format": _newer,
    "garbage": _garbage,
    "half a superblock": _half_a_superblock,
    "scrambled metadata": _scrambled,
}  # fmt: skip


def main(folder: Path) -> None:
    """Open every file of a folder; print how each was refused, in how many seconds, and the process's peak so far, in MB."""
    from features_cache.errors import PermafeatError
    from features_cache.reader import FeatureCache

    for path in sorted(folder.glob("*.h5")):
        began = time.perf_counter()
        try:
            with FeatureCache(path) as cache:
                cache.load()
            answer: tuple[str, int, str] = ("accepted", 0, "")
        except PermafeatError as error:
            answer = (type(error).__name__, error.exit_code, str(error))
        print(json.dumps([path.stem, *answer, time.perf_counter() - began, _peak_mb()]))


def _peak_mb() -> float:
    """Peak of this program: getrusage would count the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
