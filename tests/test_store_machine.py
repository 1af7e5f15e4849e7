"""The store through any sequence of beginnings, kills, damage and extensions: a reader sees a whole cache of some moment, or none."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from cache_data import KilledError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_trials import FAULTS, VIEWS, FaultyDisk, make, undisturbed

from features_cache.errors import PermafeatError
from features_cache.files import Disk
from features_cache.plan import parts_folder
from features_cache.verify import verify


class Store(RuleBasedStateMachine):
    """One cache; what is asked of it only grows."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="permafeat-machine-"))
        self.path = self.folder / "train.h5"
        self.whole = {n_views: undisturbed(self.folder / "whole", n_views) for n_views in range(1, VIEWS + 1)}
        self.asked = 1
        self.published = 0

    @rule(fail_at=st.integers(1, 80), fault=st.sampled_from(FAULTS))
    def run_into_a_fault(self, fail_at: int, fault) -> None:
        with contextlib.suppress(KilledError, OSError, PermafeatError):
            make(self.path, FaultyDisk(fail_at, fault), self.asked)

    @rule()
    def run_through(self) -> None:
        make(self.path, Disk(), self.asked)
        assert self.path.read_bytes() == self.whole[max(self.asked, self.published)]
        assert not parts_folder(self.path).exists()

    @precondition(lambda self: self.asked < VIEWS and self.path.exists() and not parts_folder(self.path).exists())
    @rule()
    def ask_for_more(self) -> None:
        self.asked += 1

    @precondition(lambda self: list(parts_folder(self.path).glob("*.h5")))
    @rule(place=st.floats(0, 1, exclude_max=True), which=st.integers(0, 9))
    def damage_a_part(self, place: float, which: int) -> None:
        parts = sorted(parts_folder(self.path).glob("*.h5"))
        part = parts[which % len(parts)]
        raw = bytearray(part.read_bytes())
        raw[int(place * len(raw))] ^= 0x40
        part.write_bytes(raw)

    @precondition(lambda self: list(parts_folder(self.path).glob("*.h5")))
    @rule(which=st.integers(0, 9))
    def lose_a_part(self, which: int) -> None:
        parts = sorted(parts_folder(self.path).glob("*.h5"))
        parts[which % len(parts)].unlink()

    @invariant()
    def a_reader_sees_a_whole_cache_or_none(self) -> None:
        if not hasattr(self, "path") or not self.path.exists():
            assert getattr(self, "published", 0) == 0
            return
        raw = self.path.read_bytes()
        found = next((n_views for n_views, whole in self.whole.items() if whole == raw), None)
        assert found is not None, "a file that no run should have left"
        assert found >= self.published, "what was published is gone"
        assert not verify(self.path).faults
        self.published = found

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


Store.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStore = Store.TestCase
