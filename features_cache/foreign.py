"""What a file must be before it is trusted: HDF5 can point into other files, promise petabytes, and run filters.

External links, virtual datasets and external storage all return another file's bytes on plain indexing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ForeignCache, listed
from features_cache.layout import HASH_BYTES, MOST_ID_BYTES
from features_cache.recipe import Block
from features_cache.seal import Seal
from features_cache.status import Status

_FIRST_DATASETS = {
    "features": ("float16", "float32"),
    "ids": ("bytes",),
    "status": ("uint8",),
    "content_hash": ("uint8",),
    "blocks": ("uint8",),
}
_DATASETS = {1: _FIRST_DATASETS, 2: {**_FIRST_DATASETS, "checksum": ("uint8",)}}
_DATASETS[3] = {**_DATASETS[2], "parent": ("bytes",)}
_MOST_JSON_BYTES = 1 << 22


def check_members(path: Path, file: h5py.File, seal: Seal) -> None:
    """Refuse what reaches outside the file or is not of the format, before a byte of data is read.

    Raises
    ------
    ForeignCache
        If it is.
    """
    if _attribute(file, "format") != b"permafeat" or _attribute(file, "format_version") != seal.version:
        msg = f"{path}: does not say that it is a permafeat file of format {seal.version}; refused"
        raise ForeignCache(msg)
    datasets = _DATASETS[seal.version]
    if len(file) != len(datasets):
        msg = f"{path}: holds {len(file)} members; expected {listed(sorted(datasets))}. It is not a cache of ours; refused"
        raise ForeignCache(msg)
    names = set(file)
    if names != set(datasets):
        msg = f"{path}: holds {listed(sorted(names))}; expected {listed(sorted(datasets))}. It is not a cache of ours; refused"
        raise ForeignCache(msg)
    for name, types in datasets.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            msg = f"{path}: {name} is a link to somewhere else; refused"
            raise ForeignCache(msg)
        _check_dataset(path, name, file[name], types, seal)
    n_images = file["features"].shape[0] if file["features"].ndim == 3 else -1
    shapes: dict[str, tuple[int, ...]] = {"ids": (n_images,), "status": (n_images,)}
    shapes |= {name: (n_images, HASH_BYTES) for name in ("content_hash", "checksum") if name in datasets}
    shapes |= {"parent": (n_images,)} if "parent" in datasets else {}
    if any(file[name].shape != shape for name, shape in shapes.items()) or file["blocks"].ndim != 1:
        msg = f"{path}: ids, parents, status, content_hash and features do not have the same number of images; refused"
        raise ForeignCache(msg)
    longest = max(file[name].dtype.itemsize for name in ("ids", "parent") if name in datasets)
    if longest > MOST_ID_BYTES or file["blocks"].nbytes > _MOST_JSON_BYTES:
        msg = f"{path}: ids or parents of {longest} bytes, {file['blocks'].nbytes} bytes of blocks; refused"
        raise ForeignCache(msg)


def _attribute(file: h5py.File, name: str) -> Any:  # noqa: ANN401 - whatever a file holds
    """Read a small attribute; None where there is none, or it is not small and plain."""
    if name not in file.attrs:
        return None
    found = file.attrs.get_id(name)
    return file.attrs[name] if found.shape == () and found.dtype.kind in "Su" and found.dtype.itemsize <= 16 else None


def _check_dataset(path: Path, name: str, member: Any, types: tuple[str, ...], seal: Seal) -> None:  # noqa: ANN401 - whatever a file holds
    if (
        not isinstance(member, h5py.Dataset)
        or not member.dtype.name.startswith(types)
        or member.dtype.subdtype is not None
    ):
        msg = f"{path}: {name} is not the array that the format describes; refused"
        raise ForeignCache(msg)
    creation = member.id.get_create_plist()
    if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count() or creation.get_nfilters():
        msg = f"{path}: {name} is stored outside the file or through a filter; refused"
        raise ForeignCache(msg)
    offset, n_bytes = member.id.get_offset(), member.nbytes
    if member.id.get_storage_size() != n_bytes or offset is None or offset + n_bytes > seal.n_bytes:
        msg = f"{path}: {name} declares {n_bytes} bytes that the file does not hold; refused"
        raise ForeignCache(msg)
    if name == "features" and seal.version > 1 and (offset, n_bytes) != (seal.features_at, seal.features_bytes):
        msg = f"{path}: its features are not where its seal says; refused"
        raise ForeignCache(msg)
    if member.dtype.byteorder == ">":
        msg = f"{path}: {name} is big-endian; expected little-endian; refused"
        raise ForeignCache(msg)


def check_contents(
    path: Path,
    ids: tuple[str, ...],
    parents: tuple[str, ...] | None,
    status: NDArray[np.uint8],
    blocks: tuple[Block, ...],
    n_columns: int,
) -> None:
    """Refuse ids that occur twice, rows without their parent, unknown statuses, blocks that do not cover the columns.

    Raises
    ------
    ForeignCache
        If there are any.
    """
    if len(set(ids)) != len(ids):
        msg = f"{path}: {len(ids) - len(set(ids))} ids occur twice; it is not a cache of ours; refused"
        raise ForeignCache(msg)
    if parents is not None and not all(parents):
        msg = f"{path}: some of its images have a parent, and others none; it is not a cache of ours; refused"
        raise ForeignCache(msg)
    if len(status) and int(status.max()) > max(Status):
        msg = f"{path}: status {int(status.max())} means nothing; it is not a cache of ours; refused"
        raise ForeignCache(msg)
    if len({block.name for block in blocks}) != len(blocks):
        msg = f"{path}: two of its blocks have one name; it is not a cache of ours; refused"
        raise ForeignCache(msg)
    if [block.start for block in blocks] + [n_columns] != [0, *(block.stop for block in blocks)]:
        msg = f"{path}: its blocks do not cover its {n_columns} columns; it is not a cache of ours; refused"
        raise ForeignCache(msg)
