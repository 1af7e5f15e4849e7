"""What an earlier cache already holds of a plan, so that only the rest is computed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ImageChanged, OutputExists, RecipeMismatch, listed
from features_cache.layout import HASH_BYTES, Rows
from features_cache.ledger import Ledger
from features_cache.plan import Plan
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from features_cache.settle import require_same_recipes


def extended_plan(cache: FeatureCache, wanted: Plan, ways_out: str) -> Plan:
    """Plan a cache that holds all that is wanted, and all that is there.

    Parameters
    ----------
    cache : FeatureCache
        What is there.
    wanted : Plan
        What is asked for.
    ways_out : str
        The end of every error message.

    Returns
    -------
    Plan
        Of the wanted images; the views of whichever has more; the wanted blocks, then the others that are there.

    Raises
    ------
    RecipeMismatch
        If a block is there with another recipe, or in another number type.
    OutputExists
        If the cache holds images that are not wanted.
    ImageChanged
        If an image has another parent there, or one of the two knows no parents.
    """
    there = {block.name for block in cache.blocks}
    shared = tuple(block for block in wanted.blocks if block.name in there)
    require_same_recipes(cache.blocks, shared, f"{cache.path}. {ways_out}")
    if wanted.storage != cache.storage:
        msg = f"{cache.path}: holds {cache.storage}; {wanted.storage} is asked for (--dtype {cache.storage} extends it). {ways_out}"
        raise RecipeMismatch(msg)
    gone = sorted(set(cache.ids) - set(wanted.ids))
    if gone:
        n_new = len(set(wanted.ids) - set(cache.ids))
        found = f"holds other images ({n_new} are new, {len(gone)} are gone: {listed(gone)})"
        msg = f"{cache.path}: {found}. Put them back (or leave out --limit). {ways_out}"
        raise OutputExists(msg)
    _require_same_parents(cache, wanted, ways_out)
    named = {block.name for block in wanted.blocks}
    others = (block for block in cache.blocks if block.name not in named)
    return dataclasses.replace(
        wanted,
        n_views=max(wanted.n_views, cache.n_views),
        blocks=_side_by_side([*wanted.blocks, *others]),
        base=cache.seal.checksum.hex(),
    )


def _require_same_parents(cache: FeatureCache, wanted: Plan, ways_out: str) -> None:
    """Check that what each image was cut from is what the cache says."""
    if (cache.parents is None) == bool(len(wanted.parents)):
        found, asked = ("no parents", "some") if cache.parents is None else ("parents of its images", "none")
        msg = f"{cache.path}: holds {found}; {asked} are asked for (`--cells` makes them). {ways_out}"
        raise ImageChanged(msg)
    if cache.parents is None:
        return
    parent_of = dict(zip(wanted.ids, wanted.parents, strict=True))
    moved = [name for name, parent in zip(cache.ids, cache.parents, strict=True) if parent_of[name] != parent]
    if moved:
        msg = f"{cache.path}: {len(moved)} images have another parent than the one that they had ({listed(moved)}). {ways_out}"
        raise ImageChanged(msg)


def _side_by_side(blocks: list[Block]) -> tuple[Block, ...]:
    starts = itertools.accumulate((block.columns for block in blocks), initial=0)
    return tuple(dataclasses.replace(block, start=start) for block, start in zip(blocks, starts, strict=False))


def base_of(path: Path, plan: Plan) -> FeatureCache | None:
    """Open the cache that a plan extends; None where it extends none.

    Parameters
    ----------
    path : Path
        Where the cache lies.
    plan : Plan

    Raises
    ------
    OutputExists
        If another file has taken its place.
    """
    if not plan.base:
        return None
    cache = FeatureCache(path)
    if cache.seal.checksum.hex() != plan.base:
        cache.close()
        msg = f"{path}: is not the file that the parts extend; run `cli featurize` with the options that they were made with"
        raise OutputExists(msg)
    return cache


def is_published(cache: FeatureCache, plan: Plan, ledger: Ledger) -> bool:
    """Whether a cache is what came of a plan, so that its parts have served.

    A plan that repairs or overwrites describes the old file as well as the new one: what counts is that every part's rows are
    in the file, and that nothing is left to do.

    Parameters
    ----------
    cache : FeatureCache
    plan : Plan
        With the images, views and blocks of the cache.
    ledger : Ledger
        Of the parts that are there.
    """
    if not ledger.done or plan.base == cache.seal.checksum.hex() or cache.checksum is None:
        return False
    if not plan.base and ledger.missing:
        return False
    rows = np.concatenate([np.array(plan.rows_of(unit)) for unit in sorted(ledger.done)])
    return all(
        np.array_equal(ours[rows], theirs[rows])
        for ours, theirs in (
            (ledger.checksum, cache.checksum),
            (ledger.status, cache.status),
            (ledger.content_hash, cache.content_hash),
        )
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit before its missing cells are computed.

    Parameters
    ----------
    number : int
        0 to ``plan.n_units - 1``.
    missing : bool array, shape (images, views, blocks)
        Cells to be computed.
    is_held : bool array, shape (images,)
        Which images are held, in part or wholly.
    start : callable
        Reads what is held.
    """

    number: int
    missing: NDArray[np.bool_]
    is_held: NDArray[np.bool_]
    start: Callable[[], Rows]

    @property
    def n_images(self) -> int:
        """Images of which a cell is missing."""
        return int(self.missing.any(axis=(1, 2)).sum())


class Held:
    """The cells (image, view, block) of a plan that an earlier cache holds; none, where there is no earlier cache.

    Parameters
    ----------
    plan : Plan
        Made by :func:`extended_plan` from the cache.
    cache : FeatureCache, optional
        Open for as long as this is used.
    """

    def __init__(self, plan: Plan, cache: FeatureCache | None = None) -> None:
        self._plan = plan
        self._cache = cache
        self._row_of = np.full(len(plan.ids), -1)
        self._blocks: dict[str, Block] = {}
        if cache is None:
            return
        places = {image_id: row for row, image_id in enumerate(cache.ids) if cache.good[row]}
        for image_id in plan.anew:
            places.pop(image_id, None)
        self._row_of = np.array([places.get(image_id, -1) for image_id in plan.ids])
        self._blocks = {block.name: block for block in cache.blocks}

    def unit(self, number: int) -> Unit:
        """Return what is held, and what is missing, of a unit."""
        return Unit(
            number=number,
            missing=self.missing(number),
            is_held=self._is_held(number),
            start=functools.partial(self.start, number),
        )

    def _is_held(self, unit: int) -> NDArray[np.bool_]:
        here = self._plan.rows_of(unit)
        return self._row_of[here.start : here.stop] >= 0

    def missing(self, unit: int) -> NDArray[np.bool_]:
        """Which cells of a unit have to be computed, shape (images, views, blocks)."""
        views = np.arange(self._plan.n_views) < (self._cache.n_views if self._cache else 0)
        blocks = np.array([block.name in self._blocks for block in self._plan.blocks])
        held: NDArray[np.bool_] = self._is_held(unit)[:, None, None] & views[:, None] & blocks
        return ~held

    def is_whole(self, unit: int) -> bool:
        """Whether nothing of a unit has to be computed."""
        return not self.missing(unit).any()

    def missing_blocks(self) -> set[str]:
        """Names of the blocks that have to be computed for any image."""
        missing = np.zeros(len(self._plan.blocks), bool)
        for unit in range(self._plan.n_units):
            missing |= self.missing(unit).any(axis=(0, 1))
        return {block.name for block, is_missing in zip(self._plan.blocks, missing, strict=True) if is_missing}

    def start(self, unit: int) -> Rows:
        """Return a unit's rows as far as they are held, zeros in all other cells.

        Raises
        ------
        CacheDamaged
            If a row that is held is not what was written.
        """
        here = self._plan.rows_of(unit)
        features = np.zeros((len(here), self._plan.n_views, self._plan.n_columns), self._plan.storage)
        hashes = np.zeros((len(here), HASH_BYTES), np.uint8)
        held = self._is_held(unit)
        if self._cache is not None and held.any():
            rows = self._row_of[here.start : here.stop][held]
            self._cache.require_sound(rows)
            stored = self._cache.stored(rows)
            hashes[held] = self._cache.content_hash[rows]
            n_views = stored.shape[1]
            for block in self._plan.blocks:
                old = self._blocks.get(block.name)
                if old:
                    columns = stored[:, :, old.start : old.stop]
                    features[held, :n_views, block.start : block.stop] = columns
        return Rows(
            features=features,
            status=np.zeros(len(here), np.uint8),
            content_hash=hashes,
            reasons=("",) * len(here),
        )
