"""Caches and parts that are damaged in many ways, and how often that is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cache_data import blocks

from features_cache.errors import CacheDamaged, ForeignCache
from features_cache.layout import Rows
from features_cache.parts import Parts
from features_cache.plan import Execution, Plan
from features_cache.settle import settle_plan
from features_cache.sources import SourceFile
from features_cache.verify import verify
from features_cache.writer import write_cache

IDS = tuple(f"image-{index:02d}" for index in range(12))
FEATURES = np.random.default_rng(0).normal(size=(12, 2, 8)).astype(np.float16)


def flip(raw: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    place, bit = int(rng.integers(len(raw))), 1 << int(rng.integers(8))
    return raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]


def cut(raw: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return raw[: int(rng.integers(len(raw)))]


def zero(raw: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Zero a block, of a place where not all is zero."""
    while True:
        start = int(rng.integers(len(raw)))
        stop = min(len(raw), start + int(rng.integers(1, 512)))
        if any(raw[start:stop]):
            return raw[:start] + bytes(stop - start) + raw[stop:]


def append(raw: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return raw + rng.bytes(int(rng.integers(1, 600)))


def swap(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Put a sound file, or a piece of one, of the same kind in its place."""
    if rng.random() < 0.5:
        return other
    while True:
        start = int(rng.integers(len(raw)))
        stop = min(len(raw), start + int(rng.integers(1, 512)))
        mixed = raw[:start] + other[start:stop] + raw[stop:]
        if mixed != raw:
            return mixed


DAMAGES = (flip, cut, zero, append)


def damage_caches(folder: Path, n_trials: int) -> int:
    """Damage a cache in many ways; return how often `verify` said so."""
    path = folder / "c.h5"
    write_cache(path, ids=IDS, features=FEATURES, blocks=blocks(3, 5))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    n_found = 0
    for trial in range(n_trials):
        path.write_bytes(DAMAGES[trial % len(DAMAGES)](whole, rng, b""))
        try:
            n_found += bool(verify(path).faults)
        except (CacheDamaged, ForeignCache):
            n_found += 1
    return n_found


def damage_parts(folder: Path, n_trials: int) -> int:
    """Damage or swap a part in many ways; return how often reading it said so."""
    plan = Plan(
        ids=IDS,
        sources=tuple((SourceFile(path=name, n_bytes=1, sign=1),) for name in IDS),
        n_views=2,
        blocks=blocks(3, 5),
        unit_images=6,
        execution=Execution(device="cpu", micro_batch=16, n_threads=2),
    )
    parts = Parts(folder, settle_plan(folder, plan))
    for unit in range(2):
        rows = Rows(
            features=FEATURES[6 * unit : 6 * unit + 6],
            status=np.zeros(6, np.uint8),
            content_hash=np.zeros((6, 16), np.uint8),
            reasons=("",) * 6,
        )
        parts.commit(unit, rows)
    one, other = (parts.path_of(unit).read_bytes() for unit in range(2))
    rng = np.random.default_rng(2)
    n_found = 0
    for trial in range(n_trials):
        parts.path_of(0).write_bytes((*DAMAGES, swap)[trial % (1 + len(DAMAGES))](one, rng, other))
        try:
            parts.read(0)
        except CacheDamaged:
            n_found += 1
    return n_found
