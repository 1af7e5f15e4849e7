"""From parts, or from an array, to the one published file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import CacheIncomplete, OptionError, OutputExists
from features_cache.files import DISK, Disk, publish
from features_cache.layout import HASH_BYTES, cache_around
from features_cache.parts import Parts
from features_cache.recipe import Block, Storage
from features_cache.seal import CACHE_MAGIC, Sealing, check_bytes


def parts_folder(path: Path) -> Path:
    """Return where the parts of a cache lie while it is being made.

    Examples
    --------
    >>> parts_folder(Path("features/train.h5")).as_posix()
    'features/train.parts'
    """
    return path.with_suffix(".parts")


def publish_cache(path: Path, parts: Parts, *, replace: bool = False, disk: Disk = DISK) -> None:
    """Join all parts to the final file, publish it, and check every byte of it; the parts are the caller's to remove.

    Memory is bounded by one part, and by ids, statuses and hashes of all images.

    Parameters
    ----------
    path : Path
        The cache, ``*.h5``.
    parts : Parts
        Must be complete.
    replace : bool
        Whether a file at the path gives way.
    disk : Disk
        The system calls.

    Raises
    ------
    CacheIncomplete, CacheDamaged
        If a part is missing or damaged. Nothing is published.
    OutputExists
        If a file is at the path and may not be replaced.
    DiskFull
        Nothing is published; the parts stay.
    """
    plan = parts.plan
    status = np.zeros(len(plan.ids), np.uint8)
    content_hash = np.zeros((len(plan.ids), HASH_BYTES), np.uint8)
    for unit, rows in parts.check():
        if rows is None:
            msg = f"{parts.path_of(unit)}: missing or damaged; run `cli featurize` again to resume"
            raise CacheIncomplete(msg)
        here = plan.rows_of(unit)
        status[here.start : here.stop] = rows.status
        content_hash[here.start : here.stop] = rows.content_hash
    _publish_cache(
        path,
        ids=plan.ids,
        status=status,
        content_hash=content_hash,
        blocks=plan.blocks,
        n_views=plan.n_views,
        storage=plan.storage,
        features=(parts.read(unit).features for unit in range(plan.n_units)),
        replace=replace,
        disk=disk,
    )


def write_cache(
    path: Path,
    *,
    ids: Sequence[str],
    features: NDArray[np.floating[Any]],
    blocks: Sequence[Block],
    status: NDArray[np.uint8] | None = None,
    replace: bool = False,
    disk: Disk = DISK,
) -> None:
    """Publish features that are already in memory.

    Parameters
    ----------
    path : Path
        The cache, ``*.h5``.
    ids : sequence of str, length images
        No two equal; sorted, as ``featurize`` has them.
    features : float16 or float32 array, shape (images, views, columns)
        The values.
    blocks : sequence of Block
        Must cover all columns in order.
    status : uint8 array, shape (images,), optional
        All good unless given.
    replace : bool
        Whether a file at the path gives way.
    disk : Disk
        The system calls.

    Raises
    ------
    OptionError
        If shapes, ids or blocks do not fit together.
    OutputExists
        If a file is at the path and may not be replaced.
    """
    if features.ndim != 3 or len(ids) != len(features) or len(set(ids)) != len(ids):
        msg = f"features have the shape {features.shape} and there are {len(set(ids))} different ids; expected (images, views, columns)"
        raise OptionError(msg)
    if [block.start for block in blocks] != [0, *(block.stop for block in blocks[:-1])]:
        msg = "the blocks do not follow one another from column 0 on"
        raise OptionError(msg)
    if blocks[-1].stop != features.shape[2] or {block.recipe.storage for block in blocks} != {features.dtype.name}:
        msg = f"features have {features.shape[2]} columns of {features.dtype}; the blocks say {blocks[-1].stop} of {blocks[0].recipe.storage}"
        raise OptionError(msg)
    _publish_cache(
        path,
        ids=ids,
        status=np.zeros(len(ids), np.uint8) if status is None else status,
        content_hash=np.zeros((len(ids), HASH_BYTES), np.uint8),
        blocks=blocks,
        n_views=features.shape[1],
        storage=blocks[0].recipe.storage,
        features=[features],
        replace=replace,
        disk=disk,
    )


def _publish_cache(
    path: Path,
    *,
    ids: Sequence[str],
    status: NDArray[np.uint8],
    content_hash: NDArray[np.uint8],
    blocks: Sequence[Block],
    n_views: int,
    storage: Storage,
    features: Iterable[NDArray[np.floating[Any]]],
    replace: bool,
    disk: Disk,
) -> None:
    before, after = cache_around(
        ids=ids, status=status, content_hash=content_hash, blocks=blocks, n_views=n_views, storage=storage
    )

    def body() -> Iterable[bytes | memoryview]:
        yield before
        for rows in features:
            yield np.ascontiguousarray(rows, dtype=np.dtype(storage).newbyteorder("<")).data.cast("B")
        yield after

    sealing = Sealing(CACHE_MAGIC)
    if not publish(path, sealing.pass_through(body()), head=sealing.seal, replace=replace, disk=disk):
        msg = f"{path}: exists; type --overwrite to replace it, or choose another --out"
        raise OutputExists(msg)
    check_bytes(path, CACHE_MAGIC)
