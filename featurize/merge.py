"""Publish what shards have computed, where none of them was left to do it."""

from __future__ import annotations

import time
from pathlib import Path

from features_cache.errors import CacheIncomplete, CacheMissing, listed
from features_cache.extend import Held, base_of
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import parts_folder, plan_in
from features_cache.reader import FeatureCache
from featurize.finish import finish, tidy_up


def merge(out: Path) -> dict[Path, int]:
    """Join the parts in a folder to its caches; no image and no network is needed.

    Parameters
    ----------
    out : Path
        Folder of the caches.

    Returns
    -------
    dict of Path to int
        The caches that were published, and how many of their images are quarantined.

    Raises
    ------
    CacheMissing
        If there are no parts.
    CacheIncomplete, CacheDamaged
        If a part is missing or damaged.
    OutputExists
        If the file that was to be extended is no longer there.
    """
    began = time.monotonic()
    published: dict[Path, int] = {}
    for folder in sorted(out.glob("*.parts")):
        path = folder.with_suffix(".h5")
        plan = plan_in(folder)
        if plan is None or folder != parts_folder(path):
            continue
        if tidy_up(path):
            published[path] = _quarantined(path)
            continue
        base = base_of(path, plan)
        try:
            parts, ledger, held = Parts(folder, plan), Ledger(plan), Held(plan, base)
            _require_all(parts, held)
            finish(path, parts, ledger, held, weights={}, n_computed=0, began=began)
        finally:
            if base is not None:
                base.close()
        published[path] = _quarantined(path)
    if not published:
        msg = f"{out}: no parts to merge; expected a folder in which `cli featurize --shard i/n` ran (--out)"
        raise CacheMissing(msg)
    return published


def _quarantined(path: Path) -> int:
    with FeatureCache(path) as cache:
        return int((~cache.good).sum())


def _require_all(parts: Parts, held: Held) -> None:
    missing = [unit for unit in range(parts.plan.n_units) if not held.is_whole(unit) and not parts.has(unit)]
    if missing:
        shown = listed([str(unit) for unit in missing])
        msg = f"{parts.folder}: {len(missing)} of {parts.plan.n_units} parts are missing ({shown}); run the shards that make them"
        raise CacheIncomplete(msg)
