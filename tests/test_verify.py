"""Damage is found: in a cache by `cli verify`, in a part by the run that takes it up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_data import blocks
from damage_data import FEATURES, IDS, damage_caches, damage_parts

from features_cache.errors import CacheDamaged, ForeignCache
from features_cache.seal import CACHE_MAGIC, check_bytes
from features_cache.verify import verify
from features_cache.writer import write_cache


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
