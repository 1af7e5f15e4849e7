"""What stands at the output's place already, and what is left to do there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from features_cache.errors import CacheError, ImageChanged, OutputExists, RecipeMismatch, Refused, listed
from features_cache.extend import Held, extended_plan
from features_cache.plan import Plan
from features_cache.reader import FeatureCache
from features_cache.recipe import IMPORTED
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.provenance import changed_rows, execution_of
from featurize.settings import FeaturizeSettings

WAYS_OUT = "Type --overwrite to compute it anew, or choose another --out"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a run finds.

    Parameters
    ----------
    cache : FeatureCache or None
        Open; None where there is nothing, or nothing that will stay.
    plan : Plan
        What is to be there in the end.
    """

    cache: FeatureCache | None
    plan: Plan

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        if self.cache is None or self.plan.anew:
            return False
        there = {block.name for block in self.cache.blocks}
        return (
            self.cache.ids == self.plan.ids
            and self.cache.n_views == self.plan.n_views
            and there == {block.name for block in self.plan.blocks}
        )


@contextlib.contextmanager
def look(path: Path, root: Place, wanted: Plan, reading: Reading, settings: FeaturizeSettings) -> Iterator[Standing]:
    """Look at what is there, with the cache open for as long as the block runs.

    Parameters
    ----------
    path : Path
        The cache.
    root : Place
        Folder of the images.
    wanted : Plan
        What is asked for.
    reading : Reading
        How images are read.
    settings : FeaturizeSettings

    Raises
    ------
    OutputExists
        If the file is no cache of ours, damaged, or of other images.
    RecipeMismatch
        If a block is there with another recipe, or cells are missing whose network was not named.
    ImageChanged
        If an image is not the one that its features were made from.
    """
    if settings.overwrite or not path.exists():
        yield Standing(cache=None, plan=wanted)
        return
    try:
        cache = FeatureCache(path)
    except (CacheError, Refused) as error:
        msg = str(error) if "--overwrite" in str(error) else f"{error}. {WAYS_OUT}"
        raise OutputExists(msg) from error
    with cache:
        if all(block.recipe.decoding == IMPORTED for block in cache.blocks):
            msg = f"{path}: holds only features that were made elsewhere, of unknown images. Featurize into another --out, and import them there"
            raise OutputExists(msg)
        plan = extended_plan(cache, wanted, WAYS_OUT)
        execution = execution_of(path, plan.execution)
        plan = dataclasses.replace(
            plan,
            execution=execution,
            anew=_anew(cache, root, plan, reading, repair=settings.repair),
        )
        standing = Standing(cache=cache, plan=plan)
        if not standing.is_complete:
            _require_named(cache, plan, wanted)
            _require_same_runtime(cache, execution.runtime, wanted.execution.runtime)
        if (
            not standing.is_complete and not settings.repair
        ):  # a repair has looked at every row, and computes the damaged ones
            # Before a part is made: damage found on the way would leave an extension that cannot be finished.
            cache.require_sound(np.flatnonzero(cache.good))
        yield standing


def _anew(cache: FeatureCache, root: Place, plan: Plan, reading: Reading, *, repair: bool) -> tuple[str, ...]:
    """Find the images that are to be computed although the cache holds them: none, but for ``--repair``."""
    changed = changed_rows(cache, root, plan, reading)
    if repair:
        damaged = cache.damaged(np.arange(cache.n_images))
        return tuple(cache.ids[row] for row in np.flatnonzero(changed | damaged | ~cache.good))
    if changed.any():
        names = listed([cache.ids[row] for row in np.flatnonzero(changed)])
        other_files = (
            "Were other channel files named then? Name the same ones again (--planes). " if reading.by_file else ""
        )
        msg = (
            f"{cache.path}: {int(changed.sum())} images are not those that it was made from ({names}). {other_files}"
            f"Add --repair to compute these anew. {WAYS_OUT}"
        )
        raise ImageChanged(msg)
    return ()


def _require_same_runtime(cache: FeatureCache, found: str, wanted: str) -> None:
    if found != wanted:
        msg = f"{cache.path}: {found} ran its networks; --runtime {wanted} is asked for. Leave --runtime away to go on with {found}. {WAYS_OUT}"
        raise OutputExists(msg)


def _require_named(cache: FeatureCache, plan: Plan, wanted: Plan) -> None:
    """Check that every missing cell belongs to a network of this run."""
    named = [block.name for block in wanted.blocks]
    lost = Held(plan, cache).missing_blocks() - set(named)
    imported = [block.name for block in cache.blocks if block.recipe.decoding == IMPORTED]
    if lost & set(imported):
        msg = (
            f"{cache.path}: holds {listed(imported)}, made elsewhere, and what is missing is missing of it too. Featurize into another --out, "
            f"then `cli import` all of it there. {WAYS_OUT}"
        )
        raise RecipeMismatch(msg)
    if lost:
        there = ", ".join(block.name for block in cache.blocks)
        every = ",".join([*named, *sorted(lost)])
        msg = (
            f"{cache.path}: holds the blocks {there}, and what is missing is missing of {listed(sorted(lost))} too. "
            f"Name them all (--backbone {every}). {WAYS_OUT}"
        )
        raise RecipeMismatch(msg)
