"""Parts: a run that dies loses at most the part in flight, and ends in the same bytes as one that never died."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from cache_data import blocks
from store_trials import FAULTS, FEATURES, FaultyDisk, make, plan, rows_of

from features_cache.errors import (
    CacheDamaged,
    CacheIncomplete,
    DiskFull,
    ImageChanged,
    InputError,
    OutputExists,
    RecipeMismatch,
)
from features_cache.extend import Held
from features_cache.files import Disk, publish
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import Execution, parts_folder
from features_cache.reader import FeatureCache
from features_cache.settle import settle_plan
from features_cache.sources import SourceFile
from features_cache.writer import publish_cache, write_cache


def test_parts_and_one_piece_give_the_same_file(tmp_path: Path) -> None:
    make(tmp_path / "parts.h5", Disk())
    write_cache(tmp_path / "whole.h5", ids=plan().ids, features=FEATURES[:, :2], blocks=blocks(3, 5))
    assert (tmp_path / "parts.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not (tmp_path / "parts.parts").exists()


def test_a_resumed_run_keeps_what_was_committed_and_its_own_way_of_running(tmp_path: Path) -> None:
    folder = tmp_path / "train.parts"
    first = Parts(folder, settle_plan(folder, plan()))
    first.commit(1, rows_of(1))
    taken_up = settle_plan(folder, plan(unit_images=2, execution=Execution(device="cpu", micro_batch=4, n_threads=1)))
    assert taken_up == plan()
    found = {unit: rows is not None for unit, rows in Parts(folder, taken_up).check()}
    assert found == {0: False, 1: True, 2: False}


def test_the_first_writer_of_a_unit_stays(tmp_path: Path) -> None:
    folder = tmp_path / "train.parts"
    one, two = (Parts(folder, settle_plan(folder, plan())) for _ in "12")
    assert one.commit(0, rows_of(0)) is True
    before = one.path_of(0).read_bytes()
    others = dataclasses.replace(rows_of(0), features=rows_of(0).features + 1)
    assert two.commit(0, others) is False
    assert one.path_of(0).read_bytes() == before


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "text"])
def test_a_damaged_or_swapped_part_is_set_aside_and_done_again(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "train.parts"
    parts = Parts(folder, settle_plan(folder, plan()))
    parts.commit(0, rows_of(0))
    parts.commit(1, rows_of(1))
    raw = parts.path_of(0).read_bytes()
    bad = {
        "flip": raw[:2000] + bytes([raw[2000] ^ 1]) + raw[2001:],
        "cut": raw[:-7],
        "swap": parts.path_of(1).read_bytes(),
        "text": b"hello",
    }[damage]
    parts.path_of(0).write_bytes(bad)
    with pytest.raises(CacheDamaged, match=r"00000000-\w{12}\.h5"):
        parts.read(0)
    assert [unit for unit, rows in parts.check() if rows is None] == [0, 2]
    assert [path.name for path in (folder / "quarantine").iterdir()] == [parts.path_of(0).name]


def test_a_cache_is_read_back_before_it_takes_its_name(tmp_path: Path) -> None:
    class Forgetful(Disk):
        """A disk that loses a byte in the middle of a large write."""

        def write(self, descriptor: int, data: memoryview) -> int:
            whole = bytes(data)
            return super().write(
                descriptor, memoryview(whole[:300] + b"?" + whole[301:] if len(whole) > 300 else whole)
            )

    path = tmp_path / "whole.h5"
    write_cache(path, ids=plan().ids, features=FEATURES[:, :2], blocks=blocks(3, 5))
    before = path.read_bytes()
    with pytest.raises(CacheDamaged):
        write_cache(path, ids=plan().ids, features=FEATURES[:, :2], blocks=blocks(3, 5), replace=True, disk=Forgetful())
    assert path.read_bytes() == before
    assert [name.name for name in tmp_path.iterdir()] == ["whole.h5"]


def test_an_extension_does_not_replace_what_another_one_published_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "whole.h5"
    write_cache(path, ids=plan().ids, features=FEATURES[:, :2], blocks=blocks(3, 5))
    with FeatureCache(path) as base:
        wanted = plan(n_views=3, base=base.seal.checksum.hex())
        parts = Parts(parts_folder(path), settle_plan(parts_folder(path), wanted))
        for unit in range(wanted.n_units):
            parts.commit(unit, rows_of(unit, 3))
        write_cache(path, ids=plan().ids, features=FEATURES, blocks=blocks(3, 5), replace=True)
        others = path.read_bytes()
        with pytest.raises(OutputExists, match="another process extended it meanwhile"):
            publish_cache(path, parts, Ledger(wanted), Held(wanted, base))
    assert path.read_bytes() == others


def test_finishing_too_early_publishes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train.h5"
    parts = Parts(parts_folder(path), settle_plan(parts_folder(path), plan()))
    parts.commit(0, rows_of(0))
    with pytest.raises(CacheIncomplete, match="run `cli featurize` again to resume"):
        publish_cache(path, parts, Ledger(plan()), Held(plan()))
    assert not path.exists()


def test_an_image_changed_since_the_plan_is_named(tmp_path: Path) -> None:
    Parts(tmp_path / "p", settle_plan(tmp_path / "p", plan())).commit(0, rows_of(0))
    sources = list(plan().sources)
    sources[3] = (SourceFile(path="image-03.png", n_bytes=9, sign=6),)
    with pytest.raises(ImageChanged, match=r"1 images changed since the run began: 'image-03'"):
        settle_plan(tmp_path / "p", plan(sources=tuple(sources)))


def test_another_job_does_not_take_up_the_parts_of_this_one(tmp_path: Path) -> None:
    Parts(tmp_path / "p", settle_plan(tmp_path / "p", plan())).commit(0, rows_of(0))
    with pytest.raises(RecipeMismatch, match="seed: 4 asked for, 0 found"):
        settle_plan(tmp_path / "p", plan(blocks=blocks(3, 5, seed=4)))
    with pytest.raises(OutputExists, match="makes 2 views an image; 7 are asked for"):
        settle_plan(tmp_path / "p", plan(n_views=7))
    fewer = plan(ids=plan().ids[:-1], sources=plan().sources[:-1])
    with pytest.raises(OutputExists, match=r"other images \(0 are new, 1 are gone\)"):
        settle_plan(tmp_path / "p", fewer)


def test_a_full_disk_is_said_so_and_leaves_no_file(tmp_path: Path) -> None:
    disk = FaultyDisk(2, FAULTS[1])
    with pytest.raises(DiskFull, match="free some space and type the same command again"):
        publish(tmp_path / "x", [b"data"], disk=disk)
    assert list(tmp_path.iterdir()) == []
    assert DiskFull.exit_code == 75


def test_nothing_is_published_before_its_fsync(tmp_path: Path) -> None:
    done: list[str] = []

    class Watched(Disk):
        def fsync(self, descriptor: int) -> None:
            done.append("fsync")
            super().fsync(descriptor)

        def link(self, source: Path, target: Path) -> None:
            done.append("link")
            super().link(source, target)

        def fsync_folder(self, path: Path) -> None:
            done.append("fsync folder")
            super().fsync_folder(path)

    publish(tmp_path / "x", [b"data"], disk=Watched())
    assert done == ["fsync", "link", "fsync folder"]


def test_without_hard_links_a_file_is_published_by_renaming(tmp_path: Path) -> None:
    disk = FaultyDisk(1, next(fault for fault in FAULTS if fault.name == "no hard links"))
    assert publish(tmp_path / "x", [b"d"], disk=disk) is True
    assert (tmp_path / "x").read_bytes() == b"d"


def test_a_plan_under_which_nothing_was_committed_binds_nobody(tmp_path: Path) -> None:
    settle_plan(tmp_path / "p", plan())
    assert settle_plan(tmp_path / "p", plan(n_views=7)).n_views == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="choose another folder with --out"):
        publish(tmp_path / "sub" / "x", [b"d"])
