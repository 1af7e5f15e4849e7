"""Writers and readers of one cache as processes of their own, without networks: what is tried is the store."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from pathlib import Path

import numpy as np
from cache_data import blocks

from features_cache.errors import CacheIncomplete, CacheMissing, OutputExists
from features_cache.extend import Held
from features_cache.layout import Rows
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import Execution, Plan, parts_folder
from features_cache.reader import FeatureCache
from features_cache.settle import settle_plan
from features_cache.sources import SourceFile
from features_cache.writer import publish_cache

N_IMAGES = 64


def _plan(n_views: int) -> Plan:
    ids = tuple(f"image-{index:03d}" for index in range(N_IMAGES))
    return Plan(
        ids=ids,
        sources=tuple((SourceFile(path=name, n_bytes=1, sign=1),) for name in ids),
        n_views=n_views,
        blocks=blocks(3, 5),
        unit_images=4,
        execution=Execution(device="cpu", micro_batch=16, n_threads=1),
    )


def drawn_features(n_views: int) -> np.ndarray:
    """Values that say which cell they are of."""
    image, view, column = np.ogrid[:N_IMAGES, :n_views, :8]
    return (1 + image + view / 8 + column / 64).astype(np.float16)


def _without_locks() -> None:
    import fcntl

    fcntl.flock = fcntl.lockf = lambda *_: None  # as some network file systems do: yes to everyone


def _write(path: Path, n_generations: int, seed: int) -> None:
    """Make a cache with one view, then extend it view by view, all writers on the same units in different orders."""
    _without_locks()
    rng = np.random.default_rng(seed)
    for n_views in range(1, 1 + n_generations):
        while not _holds(path, n_views):
            _try_to_write(path, n_views, rng)


def _holds(path: Path, n_views: int) -> bool:
    try:
        with FeatureCache(path) as cache:
            return cache.n_views >= n_views
    except (CacheMissing, CacheIncomplete):
        return False


def _try_to_write(path: Path, n_views: int, rng: np.random.Generator) -> None:
    folder, base = parts_folder(path), None
    try:
        plan = _plan(n_views)
        if n_views > 1:
            base = FeatureCache(path)
            if base.n_views >= n_views:
                return
            plan = dataclasses.replace(plan, base=base.seal.checksum.hex())
        plan = settle_plan(folder, plan, shared=True)
        parts, ledger, held = Parts(folder, plan), Ledger(plan), Held(plan, base)
        for unit in rng.permutation(plan.n_units).tolist():
            if not parts.has(unit):
                here = plan.rows_of(unit)
                start = held.start(unit)
                features = drawn_features(n_views)[here.start : here.stop]
                if n_views > 1:
                    assert np.array_equal(start.features[:, :-1], features[:, :-1])
                parts.commit(
                    unit,
                    Rows(
                        features=features, status=start.status, content_hash=start.content_hash, reasons=start.reasons
                    ),
                )
        publish_cache(path, parts, ledger, held)
        parts.remove()
    except (CacheIncomplete, OutputExists, FileNotFoundError):
        time.sleep(0.001)  # another writer published, and removed the parts
    finally:
        if base is not None:
            base.close()


def _read(path: Path, n_generations: int, least: int, seed: int, counts: multiprocessing.Queue) -> None:
    """Read rows at random until the last generation is there and then some; every value is checked."""
    _without_locks()
    rng = np.random.default_rng(seed)
    n_reads = n_torn = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with FeatureCache(path) as cache:
                for _ in range(20):
                    rows = rng.integers(0, N_IMAGES, 8)
                    n_torn += not np.array_equal(cache.stored(rows), drawn_features(cache.n_views)[rows])
                    n_reads += 1
                if cache.n_views == n_generations and n_reads >= least:
                    break
        except (CacheMissing, CacheIncomplete):
            time.sleep(0.001)
    counts.put((n_reads, n_torn))


def concurrent_reads(folder: Path, n_generations: int, least: int) -> tuple[int, int]:
    """Let four writers and two readers at one cache; return how many reads there were, and how many were torn.

    Each reader goes on until the last generation is there, and it has read at least so often.
    """
    path = folder / "train.h5"
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    writers = [context.Process(target=_write, args=(path, n_generations, seed)) for seed in range(4)]
    readers = [context.Process(target=_read, args=(path, n_generations, least, 10 + seed, counts)) for seed in range(2)]
    for process in [*readers, *writers]:
        process.start()
    found = [counts.get(timeout=120) for _ in readers]
    for process in [*readers, *writers]:
        process.join(timeout=60)
        assert process.exitcode == 0
    return sum(reads for reads, _ in found), sum(torn for _, torn in found)
