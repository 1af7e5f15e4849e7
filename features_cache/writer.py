"""From parts, or from an array, to the one published file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import OptionError, OutputExists
from features_cache.extend import Held
from features_cache.files import DISK, Disk, publish
from features_cache.layout import HASH_BYTES, Rows, cache_around, row_checksums, version_of
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.recipe import Block, Storage
from features_cache.seal import CACHE_MAGIC, Sealing, check_bytes, read_seal


def publish_cache(
    path: Path, parts: Parts, ledger: Ledger, held: Held, *, replace: bool = False, disk: Disk = DISK
) -> None:
    """Join all parts to the final file, read every byte of it back, and publish it; the parts are the caller's to remove.

    Memory is bounded by one part, and by ids, statuses and hashes of all images.

    Parameters
    ----------
    path : Path
        The cache, ``*.h5``.
    parts : Parts
        Every unit that is not wholly held.
    ledger : Ledger
        What is known of the units already; the others are entered.
    held : Held
        What an earlier cache holds.
    replace : bool
        Whether any file at the path gives way; otherwise only the cache that the plan extends does.
    disk : Disk
        The system calls.

    Raises
    ------
    CacheIncomplete, CacheDamaged
        If a part is missing or damaged, or what was written is not what is read back. Nothing is published.
    OutputExists
        If another file is at the path, or took the place of the one that is extended.
    DiskFull
        Nothing is published; the parts stay.
    """
    plan = parts.plan
    enter_all(ledger, parts, held)
    _publish_cache(
        path,
        ids=plan.ids,
        parents=plan.parents,
        status=ledger.status,
        content_hash=ledger.content_hash,
        checksum=ledger.checksum,
        blocks=plan.blocks,
        n_views=plan.n_views,
        storage=plan.storage,
        features=(_rows_of(unit, parts, held).features for unit in range(plan.n_units)),
        replace=replace or bool(plan.base),
        base="" if replace else plan.base,
        disk=disk,
    )


def enter_all(ledger: Ledger, parts: Parts, held: Held) -> None:
    """Enter the units that a ledger does not know yet: of other writers, and of an earlier cache.

    Raises
    ------
    CacheIncomplete, CacheDamaged
        If one is missing or damaged.
    """
    for unit in ledger.missing:
        ledger.enter(unit, _rows_of(unit, parts, held))


def _rows_of(unit: int, parts: Parts, held: Held) -> Rows:
    return held.start(unit) if held.is_whole(unit) else parts.read(unit)


def write_cache(
    path: Path,
    *,
    ids: Sequence[str],
    features: NDArray[np.floating[Any]],
    blocks: Sequence[Block],
    status: NDArray[np.uint8] | None = None,
    content_hash: NDArray[np.uint8] | None = None,
    parents: Sequence[str] = (),
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
    content_hash : uint8 array, shape (images, 16), optional
        blake2b-128 of each image's bytes; zeros, which say that they are unknown, unless given.
    parents : sequence of str, length images, optional
        What each image was cut from; none of them empty.
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
    if len(parents) and (len(parents) != len(ids) or not all(parents)):
        msg = f"there are {len(parents)} parents, some perhaps empty, for {len(ids)} images; expected one each, or none at all"
        raise OptionError(msg)
    if [block.start for block in blocks] != [0, *(block.stop for block in blocks[:-1])]:
        msg = "the blocks do not follow one another from column 0 on"
        raise OptionError(msg)
    if blocks[-1].stop != features.shape[2] or {block.recipe.storage for block in blocks} != {features.dtype.name}:
        msg = f"features have {features.shape[2]} columns of {features.dtype}; the blocks say {blocks[-1].stop} of {blocks[0].recipe.storage}"
        raise OptionError(msg)
    write_pieces(
        path,
        ids=ids,
        n_views=features.shape[1],
        pieces=lambda: [features],
        blocks=blocks,
        status=status,
        content_hash=content_hash,
        parents=parents,
        replace=replace,
        disk=disk,
    )


def write_pieces(
    path: Path,
    *,
    ids: Sequence[str],
    n_views: int,
    pieces: Callable[[], Iterable[NDArray[np.floating[Any]]]],
    blocks: Sequence[Block],
    status: NDArray[np.uint8] | None = None,
    content_hash: NDArray[np.uint8] | None = None,
    parents: Sequence[str] = (),
    base: str = "",
    replace: bool = False,
    disk: Disk = DISK,
) -> None:
    """Publish features that come in pieces, which are asked for twice: their checksums stand before them.

    Parameters
    ----------
    path, ids, blocks, status, content_hash, parents, replace, disk
        As of :func:`write_cache`.
    n_views : int
    pieces : callable
        Gives the features of consecutive images, all together those of all ids: float arrays, shape (images, views, columns).
    base : str
        Checksum (hexadecimal) of the cache at the path that gives way, and no other; empty for none.

    Raises
    ------
    OutputExists
        If a file is at the path and may not be replaced.
    """
    _publish_cache(
        path,
        ids=ids,
        parents=parents,
        status=np.zeros(len(ids), np.uint8) if status is None else status,
        content_hash=np.zeros((len(ids), HASH_BYTES), np.uint8) if content_hash is None else content_hash,
        checksum=np.concatenate([row_checksums(piece) for piece in pieces()]),
        blocks=blocks,
        n_views=n_views,
        storage=blocks[0].recipe.storage,
        features=pieces(),
        replace=replace or bool(base),
        base=base,
        disk=disk,
    )


def _publish_cache(
    path: Path,
    *,
    ids: Sequence[str],
    parents: Sequence[str],
    status: NDArray[np.uint8],
    content_hash: NDArray[np.uint8],
    checksum: NDArray[np.uint8],
    blocks: Sequence[Block],
    n_views: int,
    storage: Storage,
    features: Iterable[NDArray[np.floating[Any]]],
    replace: bool,
    disk: Disk,
    base: str = "",
) -> None:
    before, after = cache_around(
        ids=ids,
        parents=parents,
        status=status,
        content_hash=content_hash,
        checksum=checksum,
        blocks=blocks,
        n_views=n_views,
        storage=storage,
    )

    def body() -> Iterable[bytes | memoryview]:
        yield from before
        for rows in features:
            yield np.ascontiguousarray(rows, dtype=np.dtype(storage).newbyteorder("<")).data.cast("B")
        yield from after

    sealing = Sealing(CACHE_MAGIC, before, after, version_of(parents))

    def check(written: Path) -> None:
        check_bytes(written, CACHE_MAGIC)
        if base:
            _require_base(path, base)

    if not publish(path, sealing.pass_through(body()), head=sealing.seal, replace=replace, check=check, disk=disk):
        msg = f"{path}: exists; type --overwrite to replace it, or choose another --out"
        raise OutputExists(msg)


def _require_base(path: Path, base: str) -> None:
    """Check that the file that will give way is still the one that was extended."""
    try:
        with path.open("rb") as file:
            found = read_seal(file, path, CACHE_MAGIC).checksum.hex()
    except FileNotFoundError:
        return
    if found != base:
        msg = f"{path}: another process extended it meanwhile; type the same command again, to extend what stands there now"
        raise OutputExists(msg)
