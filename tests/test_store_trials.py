"""The quick share of the store's trials on every run, all of them in `make test-slow`; `make bench-store` prints the figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_data import QUICK
from store_trials import FAULTS, Fault, fault_points, power_cuts, sigkill_chain

QUICK_SHARE = {
    ("kill", False),
    ("disk full", False),
    ("kill", True),
    ("error at fsync", False),
    ("no hard links", True),
}
TRIALS = [
    pytest.param(
        fault,
        extend,
        id=f"{fault.name}, {'extended' if extend else 'made'}",
        marks=() if (fault.name, extend) in QUICK_SHARE else pytest.mark.slow,
    )
    for fault in FAULTS
    for extend in (False, True)
]


@pytest.mark.parametrize(("fault", "extend"), TRIALS)
def test_a_fault_at_any_operation_is_survived_with_the_same_bytes(tmp_path: Path, fault: Fault, extend: bool) -> None:
    points = list(fault_points(tmp_path, fault, extend=extend))
    assert len(points) >= (4 if fault.only else 50)
    assert all(points), f"not survived: operation {1 + points.index(False)}"


def test_a_power_cut_loses_nothing_that_was_reported_as_saved(tmp_path: Path) -> None:
    assert power_cuts(tmp_path, 40) == (40, 40)


@pytest.mark.slow
def test_two_hundred_power_cuts_lose_nothing_that_was_reported_as_saved(tmp_path: Path) -> None:
    assert power_cuts(tmp_path, 300) == (300, 300)


@pytest.mark.slow
def test_fifty_kills_of_the_real_command_lose_no_committed_part(tmp_path: Path) -> None:
    n_kills, n_lost, is_same = sigkill_chain(tmp_path, 120, QUICK)
    assert n_kills >= 50
    assert (n_lost, is_same) == (0, True)
