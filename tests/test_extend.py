"""Extension and repair: only what is missing is computed, and the bytes are those of a cache made at once."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cache_data import QUICK, KilledError, picture, quarantine

from features_cache.errors import CacheDamaged
from features_cache.reader import FeatureCache
from featurize.engine import Engine

Run = Callable[..., tuple[int, str, str]]
TWO = (*QUICK[:1], "squeezenet1_1,resnet18", *QUICK[2:])
RESNET = (*QUICK[:1], "resnet18", *QUICK[2:])
TRAIN = Path("features/train.h5")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, str, int]]]:
    """Count how often each (block, image, view) goes through a network."""
    counted: Counter[tuple[str, str, int]] = Counter()
    whole = Engine.features

    def counting(self, images, ids, views, blocks=None):
        names = list(blocks or self._networks)
        counted.update((name, image, view) for name in names for image, view in zip(ids, views, strict=True))
        return whole(self, images, ids, views, blocks)

    monkeypatch.setattr(Engine, "features", counting)
    return counted


def made_at_once(run_cli: Run, *words: str) -> bytes:
    """Make the training cache in one go, elsewhere, with the same statistics of random weights."""
    if Path("features/random-weights").exists():
        shutil.copytree("features/random-weights", "at-once/random-weights")
    code, _, err = run_cli("featurize", *words, "--out", "at-once")
    assert code in {0, 4}, err
    return Path("at-once/train.h5").read_bytes()


def add_images(*names: str) -> None:
    for number, name in enumerate(names):
        picture(50 + number).save(f"data/train/{name}.png")
    with Path("data/train.csv").open("a") as file:
        file.writelines(f"{name},a\n" for name in names)


def test_more_images_are_computed_alone_and_take_their_places(project: Path, run_cli: Run, passes: Counter) -> None:
    words = (*QUICK, "--augment", "1", "--batch-size", "4")
    assert run_cli("featurize", *words)[0] == 0
    passes.clear()
    add_images("aaa", "train2b", "zzz")
    code, _, err = run_cli("featurize", *words)
    assert code == 0, err
    assert set(passes) == {("squeezenet1_1", name, view) for name in ("aaa", "train2b", "zzz") for view in (0, 1)}
    assert "3 computed" in err
    extended = TRAIN.read_bytes()
    assert extended == made_at_once(run_cli, *words)
    assert not Path("features/train.parts").exists()


def test_more_views_are_computed_alone(project: Path, run_cli: Run, passes: Counter) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1", "--tta", "0")[0] == 0
    passes.clear()
    assert run_cli("featurize", *QUICK, "--augment", "3", "--tta", "0")[0] == 0
    assert set(passes) == {("squeezenet1_1", f"train{index}", view) for index in range(6) for view in (2, 3)}
    assert max(passes.values()) == 1
    assert TRAIN.read_bytes() == made_at_once(run_cli, *QUICK, "--augment", "3", "--tta", "0")


@pytest.mark.parametrize("order", ["squeezenet1_1,resnet18", "resnet18,squeezenet1_1"])
def test_one_more_backbone_is_computed_alone_wherever_it_is_named(
    project: Path, run_cli: Run, passes: Counter, order: str
) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    passes.clear()
    words = ("--backbone", order, *QUICK[2:], "--augment", "1")
    code, _, err = run_cli("featurize", *words)
    assert code == 0, err
    assert {name for name, _, _ in passes} == {"resnet18"}
    assert TRAIN.read_bytes() == made_at_once(run_cli, *words)


def test_all_three_at_once_compute_each_missing_cell_once(project: Path, run_cli: Run, passes: Counter) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1", "--batch-size", "4")[0] == 0
    passes.clear()
    add_images("new")
    words = (*TWO, "--augment", "2", "--batch-size", "4")
    assert run_cli("featurize", *words)[0] == 0
    old = [f"train{index}" for index in range(6)]
    expected = {("resnet18", name, view) for name in [*old, "new"] for view in range(3)}
    expected |= {("squeezenet1_1", name, 2) for name in old} | {("squeezenet1_1", "new", view) for view in range(3)}
    train = {cell: count for cell, count in passes.items() if not cell[1].startswith("test")}
    assert set(train) == expected
    assert set(train.values()) == {1}
    assert TRAIN.read_bytes() == made_at_once(run_cli, *words)


def test_fewer_views_or_backbones_compute_nothing_and_change_nothing(
    project: Path, run_cli: Run, passes: Counter
) -> None:
    assert run_cli("featurize", *TWO, "--augment", "2")[0] == 0
    before = TRAIN.read_bytes()
    passes.clear()
    for words in ((*TWO, "--augment", "1"), (*QUICK, "--augment", "2"), (*RESNET,)):
        code, _, err = run_cli("featurize", *words)
        assert code == 0, err
        assert "nothing to compute" in err
    assert not passes
    assert TRAIN.read_bytes() == before


def test_a_block_alone_is_added_to_those_that_are_there(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    assert run_cli("featurize", *RESNET)[0] == 0
    with FeatureCache(TRAIN) as cache:
        assert [block.name for block in cache.blocks] == ["resnet18", "squeezenet1_1"]


def test_cells_of_a_network_that_was_not_named_are_told(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *TWO)[0] == 0
    add_images("new")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "Name them all (--backbone squeezenet1_1,resnet18)" in err


def test_another_recipe_is_told_side_by_side_with_the_ways_out(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--seed", "5", "--augment", "2")
    assert code == 2
    assert "seed: 5 asked for, 0 found" in err
    assert "--overwrite" in err and "--out" in err


def test_images_that_are_gone_are_told(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--limit", "2")
    assert code == 2
    assert "4 are gone" in err


def test_the_old_file_is_there_until_the_new_one_is_and_a_killed_extension_goes_on(
    project: Path, run_cli: Run, passes: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*QUICK, "--augment", "1", "--batch-size", "2")
    assert run_cli("featurize", *QUICK, "--batch-size", "2")[0] == 0
    before = TRAIN.read_bytes()
    counting, calls = Engine.features, 0

    def dying(self, *given):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KilledError
        return counting(self, *given)

    monkeypatch.setattr(Engine, "features", dying)
    with pytest.raises(KilledError):
        run_cli("featurize", *words)
    assert TRAIN.read_bytes() == before
    passes.clear()
    monkeypatch.setattr(Engine, "features", counting)
    assert run_cli("featurize", *words)[0] == 0
    assert {image for _, image, _ in passes if image.startswith("train")} == {"train4", "train5"}
    assert TRAIN.read_bytes() == made_at_once(run_cli, *words)


def test_an_image_changed_since_then_is_told_and_repaired(project: Path, run_cli: Run, passes: Counter) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    picture(77).save("data/train/train3.png")
    for words in (QUICK, (*QUICK, "--augment", "1")):
        code, _, err = run_cli("featurize", *words)
        assert code == 2
        assert "1 images are not those that it was made from ('train3')" in err and "--repair" in err
    passes.clear()
    assert run_cli("featurize", *QUICK, "--repair")[0] == 0
    assert set(passes) == {("squeezenet1_1", "train3", 0)}
    assert TRAIN.read_bytes() == made_at_once(run_cli, *QUICK)


def test_copied_images_with_other_times_extend_without_complaint(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    for path in Path("data/train").iterdir():
        os.utime(path, (1, 1))
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0


def test_repair_mends_damaged_and_quarantined_rows_and_no_others(project: Path, run_cli: Run, passes: Counter) -> None:
    Path("data/train/train1.png").write_text("not yet an image")
    assert run_cli("featurize", *QUICK, "--max-bad", "0.5")[0] == 4
    assert set(quarantine()) == {"train1"}
    picture(1).save("data/train/train1.png")
    with FeatureCache(TRAIN) as cache:
        at = cache.seal.features_at + 4 * cache.n_columns * 2 + 7
    raw = bytearray(TRAIN.read_bytes())
    raw[at] ^= 1
    TRAIN.write_bytes(raw)
    code, _, err = run_cli("featurize", *QUICK, "--repair")
    assert code == 0, err
    assert {image for _, image, _ in passes if passes[("squeezenet1_1", image, 0)] > 1} == {"train4"}
    assert TRAIN.read_bytes() == made_at_once(run_cli, *QUICK)
    assert not Path("features/train.quarantine.csv").exists()


def test_an_extension_of_damaged_rows_is_refused(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    with FeatureCache(TRAIN) as cache:
        at = cache.seal.features_at + 2 * cache.n_columns * 2
    raw = bytearray(TRAIN.read_bytes())
    raw[at] ^= 1
    TRAIN.write_bytes(raw)
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert code == CacheDamaged.exit_code
    assert "the features of 'train2' are damaged; run `cli verify`, then `cli featurize --repair`" in err


def test_an_extension_runs_as_the_cache_was_made(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    record = Path("features/train.json")
    provenance = json.loads(record.read_text())
    provenance["execution"]["micro_batch"] = 5
    record.write_text(json.dumps(provenance))
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    assert json.loads(record.read_text())["execution"]["micro_batch"] == 5


def test_an_image_whose_features_overflow_stands_in_the_way_of_no_extension_nor_repair(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine.features

    def overflowing(self, images, ids, views, blocks=None):
        found = whole(self, images, ids, views, blocks)
        found[[name == "train3" for name in ids]] = 1e6
        return found

    monkeypatch.setattr(Engine, "features", overflowing)
    words = (*QUICK, "--batch-size", "2", "--max-bad", "0.5")
    assert run_cli("featurize", *words)[0] == 4
    assert set(quarantine()) == {"train3"}
    assert run_cli("featurize", *words)[0] == 4
    code, _, err = run_cli("featurize", *words, "--repair")
    assert code == 4, err
    add_images("train6")
    code, _, err = run_cli("featurize", *words)
    assert code == 4, err
    assert set(quarantine()) == {"train3"}


def test_a_quarantined_image_stays_one_in_an_extension(project: Path, run_cli: Run) -> None:
    Path("data/train/train1.png").write_text("no image")
    assert run_cli("featurize", *QUICK, "--max-bad", "0.5")[0] == 4
    words = (*QUICK, "--augment", "1", "--max-bad", "0.5")
    assert run_cli("featurize", *words)[0] == 4
    assert TRAIN.read_bytes() == made_at_once(run_cli, *words)
    with FeatureCache(TRAIN) as cache:
        assert not np.any(cache.load(rows=np.array([1])))
