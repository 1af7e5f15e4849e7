"""Features that were made elsewhere become a block: of a cache of their own, or beside the blocks of one that is there."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import OptionError, OutputExists, TableError, did_you_mean, listed
from features_cache.made_elsewhere import MadeElsewhere
from features_cache.reader import FeatureCache
from features_cache.recipe import IMPORTED, STORAGE_TYPES, Block, Recipe, Storage
from features_cache.writer import write_pieces

_PIECE_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written.

    Parameters
    ----------
    path : Path
        The cache.
    blocks : tuple of str
        All that it holds now.
    n_images, n_views : int
    warnings : tuple of str
    """

    path: Path
    blocks: tuple[str, ...]
    n_images: int
    n_views: int
    warnings: tuple[str, ...]

    @property
    def line(self) -> str:
        """Say what was written, for people."""
        return f"{self.path}: {self.n_images} images x {self.n_views} views, blocks {', '.join(self.blocks)}"

    def to_json(self) -> dict[str, Any]:
        """Return what was written, for programs."""
        return dataclasses.asdict(self) | {"path": self.path.as_posix()}


def storage_named(text: str | None) -> Storage | None:
    """Read what ``--dtype`` says.

    Raises
    ------
    OptionError
        If it is no number type of a cache.
    """
    for kind in STORAGE_TYPES:
        if text == kind:
            return kind
    if text is not None:
        msg = f"--dtype is {text!r}; expected one of {', '.join(STORAGE_TYPES)}{did_you_mean(text, STORAGE_TYPES)}"
        raise OptionError(msg)
    return None


def import_features(
    found: MadeElsewhere,
    out: Path,
    *,
    block: str,
    made_by: str = "",
    storage: Storage | None = None,
    replace: bool = False,
) -> Imported:
    """Write features as a block, in bounded memory.

    Where ``out`` is a cache of the same images, the block joins those that are there. Features of one view are then those of
    every view: copies add nothing to them.

    Parameters
    ----------
    found : MadeElsewhere
    out : Path
        The cache, ``*.h5``.
    block : str
        Name of the block.
    made_by : str
        What made the features: network, weights, layer, size. Blocks of equal names and equal words are of one kind, so that heads
        of training features take test features.
    storage : {"float16", "float32"}, optional
        Number type of a new cache; float16 unless given. One that is there keeps its own.
    replace : bool
        Whether a block of this name gives way.

    Returns
    -------
    Imported

    Raises
    ------
    TableError
        If images differ, or a value is not finite or does not fit the number type.
    OutputExists
        If the block is there already.
    OptionError
        If the name is empty, or views or number types do not fit.
    """
    if not block or "," in block:
        msg = f"--block is {block!r}; expected a name without commas"
        raise OptionError(msg)
    if out.exists():
        with FeatureCache(out) as cache:
            return _beside(found, cache, block, made_by, storage, replace=replace)
    kind = storage or "float16"
    order = np.array(sorted(range(len(found.ids)), key=found.ids.__getitem__))
    n_views, n_columns = found.features.shape[1:]
    new = Block(name=block, start=0, columns=n_columns, recipe=_recipe(block, made_by, kind))

    def pieces() -> Iterator[NDArray[np.floating]]:
        for rows in _split(order, found):
            yield _stored(found, rows, kind)

    write_pieces(out, ids=[found.ids[row] for row in order.tolist()], n_views=n_views, pieces=pieces, blocks=(new,))
    return Imported(path=out, blocks=(block,), n_images=len(order), n_views=n_views, warnings=())


def _beside(
    found: MadeElsewhere, cache: FeatureCache, block: str, made_by: str, storage: Storage | None, *, replace: bool
) -> Imported:
    kind = cache.storage
    if storage not in {None, kind}:
        msg = f"{cache.path}: holds {kind}, {storage} is asked for; leave out --dtype, or choose another --out"
        raise OptionError(msg)
    kept = [each for each in cache.blocks if each.name != block]
    if len(kept) < len(cache.blocks) and not replace:
        msg = f"{cache.path}: has a block {block!r} already; choose another --block, or add --overwrite to replace it"
        raise OutputExists(msg)
    _require_same_images(found, cache)
    n_views = found.features.shape[1]
    if n_views not in {1, cache.n_views}:
        msg = f"{found.path}: {n_views} views an image; {cache.path} has {cache.n_views}; expected as many, or one"
        raise OptionError(msg)
    cache.require_sound(np.flatnonzero(cache.good))
    places = {image_id: row for row, image_id in enumerate(found.ids)}
    order = np.array([places.get(image_id, -1) for image_id in cache.ids])
    starts = np.cumsum([0, *(each.columns for each in kept)]).tolist()
    blocks = [dataclasses.replace(each, start=start) for each, start in zip(kept, starts, strict=False)]
    new = Block(name=block, start=starts[-1], columns=found.features.shape[2], recipe=_recipe(block, made_by, kind))
    names = [each.name for each in kept]

    def pieces() -> Iterator[NDArray[np.floating]]:
        for here in _split(np.arange(cache.n_images), found):
            ours = np.zeros((len(here), cache.n_views, new.columns), kind)
            is_there = cache.good[here]
            ours[is_there] = _stored(found, order[here][is_there], kind)
            held = [cache.stored(here, blocks=names)] if names else []
            yield np.concatenate([*held, ours], axis=2)

    write_pieces(
        cache.path,
        ids=cache.ids,
        n_views=cache.n_views,
        pieces=pieces,
        blocks=(*blocks, new),
        status=cache.status,
        content_hash=cache.content_hash,
        parents=cache.parents or (),
        base=cache.seal.checksum.hex(),
    )
    is_repeated = n_views < cache.n_views
    told = f"{block}: its one view is that of all {cache.n_views}: augmented copies add nothing to it"
    return Imported(
        path=cache.path,
        blocks=(*names, block),
        n_images=cache.n_images,
        n_views=cache.n_views,
        warnings=(told,) if is_repeated else (),
    )


def _require_same_images(found: MadeElsewhere, cache: FeatureCache) -> None:
    needed = {image_id for image_id, is_good in zip(cache.ids, cache.good, strict=True) if is_good}
    missing, more = sorted(needed - set(found.ids)), sorted(set(found.ids) - set(cache.ids))
    if missing or more:
        told = [
            f"{len(names)} {what} ({listed(names, 5)})"
            for names, what in ((missing, "images of the cache have no features"), (more, "ids are not in the cache"))
            if names
        ]
        msg = f"{found.path} and {cache.path}: {'; '.join(told)}; expected the same images. Ids are compared as text"
        raise TableError(msg)


def _split(order: NDArray[np.intp], found: MadeElsewhere) -> Iterator[NDArray[np.intp]]:
    n_bytes = 4 * found.features.shape[1] * found.features.shape[2]
    n_each = max(1, _PIECE_BYTES // n_bytes)
    for start in range(0, len(order), n_each):
        yield order[start : start + n_each]


def _stored(found: MadeElsewhere, rows: NDArray[np.intp], storage: str) -> NDArray[np.floating]:
    """Read rows and convert them, or name the first image whose values do not fit."""
    values = np.asarray(found.features[rows], dtype=np.float64)
    fits = np.isfinite(values) & (np.abs(values) <= float(np.finfo(storage).max))
    if not fits.all():
        image = int(np.flatnonzero(~fits.all(axis=(1, 2)))[0])
        value = values[image][~fits[image]][0]
        hint = "" if storage == "float32" or not np.isfinite(value) else "; --dtype float32 holds more"
        msg = f"{found.path}: image {found.ids[rows[image]]!r} has the value {value:g}; expected finite numbers that fit {storage}{hint}"
        raise TableError(msg)
    return values.astype(storage)


def _recipe(block: str, made_by: str, storage: Storage) -> Recipe:
    return Recipe(
        backbone=block,
        weights_sha256=hashlib.sha256(f"{IMPORTED}\x00{block}\x00{made_by}".encode()).hexdigest(),
        pretrained=True,
        tap=made_by or "unknown",
        size_px=0,
        interpolation="unknown",
        fill="unknown",
        mean=(),
        std=(),
        channels=(),
        scale="unknown",
        augmentation=(),
        seed=0,
        precision="float32",
        storage=storage,
        decoding=IMPORTED,
    )
