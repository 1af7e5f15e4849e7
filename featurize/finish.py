"""The end of a run: publish the cache, write what stands beside it, and only then remove the parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from features_cache.errors import CacheError, Refused
from features_cache.extend import Held, is_published
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.writer import publish_cache
from featurize.provenance import write_provenance, write_quarantine


def finish(
    path: Path,
    parts: Parts,
    ledger: Ledger,
    held: Held,
    *,
    weights: Mapping[str, str],
    n_computed: int,
    began: float,
    replace: bool = False,
) -> None:
    """Publish a cache with its quarantine list and its provenance, and remove the parts.

    Parameters
    ----------
    path : Path
        The cache.
    parts, ledger, held
        As of :func:`features_cache.writer.publish_cache`.
    weights : mapping of str to str
        The weights file of each block, as far as known.
    n_computed : int
        Images that this run computed.
    began : float
        When it began, by ``time.monotonic()``.
    replace : bool
        Whether any file at the path gives way, and not just the one that is extended.

    Raises
    ------
    CacheIncomplete, CacheDamaged, OutputExists, DiskFull
        As :func:`features_cache.writer.publish_cache`.
    """
    publish_cache(path, parts, ledger, held, replace=replace)
    _write_beside(path, parts, ledger, weights=weights, n_computed=n_computed, wall_s=time.monotonic() - began)
    parts.remove()


def tidy_up(path: Path) -> bool:
    """Finish what a run left that was killed between publishing and removing its parts.

    Returns
    -------
    bool
        Whether there was anything to do.
    """
    folder = parts_folder(path)
    try:
        plan = plan_in(folder)
        if plan is None or not path.is_file():
            return False
        with FeatureCache(path) as cache:
            if not cache.is_made_of(plan):
                return False
            parts, ledger = Parts(folder, plan), Ledger(plan)
            for unit in range(plan.n_units):
                if parts.has(unit):
                    ledger.enter(unit, parts.read(unit))
            if not is_published(cache, plan, ledger):
                return False
    except (CacheError, Refused):
        # Whatever cannot be read here is looked at, and told, by the run that follows.
        return False
    n_computed = sum(len(plan.rows_of(unit)) for unit in ledger.done)
    _write_beside(path, parts, ledger, weights={}, n_computed=n_computed, wall_s=None)
    parts.remove()
    return True


def _write_beside(
    path: Path, parts: Parts, ledger: Ledger, *, weights: Mapping[str, str], n_computed: int, wall_s: float | None
) -> None:
    write_quarantine(path, parts.plan, ledger)
    write_provenance(
        path, parts.plan, weights=weights, n_computed=n_computed, wall_s=wall_s, conversions=ledger.conversions
    )
