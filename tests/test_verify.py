"""Damage is found: in a cache by `cli verify`, in a part by the run that takes it up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import blocks

from features_cache.errors import CacheDamaged, ForeignCache
from features_cache.layout import Rows
from features_cache.parts import Parts
from features_cache.plan import Execution, Plan
from features_cache.seal import CACHE_MAGIC, check_bytes
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
        sources=tuple((SourceFile(path=name, n_bytes=1, mtime_ns=1),) for name in IDS),
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


def test_damage_is_found_in_a_thousand_trials_of_a_thousand(tmp_path: Path) -> None:
    assert damage_caches(tmp_path, 500) == 500
    assert damage_parts(tmp_path / "p", 500) == 500


def test_every_single_byte_of_a_cache_counts(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    write_cache(path, ids=IDS[:2], features=FEATURES[:2, :1], blocks=blocks(3, 5))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises((CacheDamaged, ForeignCache), match=r"c\.h5"):
            check_bytes(path, CACHE_MAGIC)


def test_damaged_images_are_named_and_the_way_to_mend_them(
    tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "c.h5"
    write_cache(path, ids=IDS, features=FEATURES, blocks=blocks(3, 5))
    code, out, _ = run_cli("verify", path)
    assert code == 0
    assert "sound" in out and "12 images (0 quarantined), all as they were written" in " ".join(out.split())
    raw = bytearray(path.read_bytes())
    at = raw.index(FEATURES[7].tobytes())
    raw[at + 3] ^= 4
    path.write_bytes(raw)
    code, out, _ = run_cli("verify", path)
    assert code == 2
    assert "the features of 1 images ('image-07') are not what was written" in out
    assert "`cli featurize --repair`" in out
    code, out, _ = run_cli("verify", path, "--json")
    assert code == 2
    answer = json.loads(out)
    assert (answer["ok"], answer["damaged"]) == (False, ["image-07"])


def test_values_that_no_run_writes_are_told_even_if_their_bytes_are_right(tmp_path: Path) -> None:
    features = FEATURES.copy()
    features[3, 1, 2] = np.nan
    write_cache(tmp_path / "nan.h5", ids=IDS, features=features, blocks=blocks(3, 5))
    assert verify(tmp_path / "nan.h5").faults == ("the features of 1 images ('image-03') are not all finite",)
    status = np.zeros(12, np.uint8)
    status[5] = 2
    write_cache(tmp_path / "status.h5", ids=IDS, features=FEATURES, blocks=blocks(3, 5), status=status)
    assert verify(tmp_path / "status.h5").faults == ("1 images ('image-05') are quarantined, and yet have features",)
