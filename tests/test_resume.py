"""Runs that are taken up, and runs that are not: what binds, what is refused, what is the same for every process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_data import QUICK, KilledError, quarantine

from features_cache.interrupt import StopFlag
from features_cache.layout import Rows
from features_cache.parts import Parts
from features_cache.plan import plan_in
from features_cache.reader import FeatureCache
from features_cache.settle import settle_plan
from featurize.engine import Engine
from featurize.run import _Job, _jobs_to_do  # the mark of an unfinished --overwrite is private to the story
from featurize.settings import FeaturizeSettings
from featurize.work import plan_work

Run = Callable[..., tuple[int, str, str]]


def quick_settings(**changes: object) -> FeaturizeSettings:
    """What QUICK says, as settings."""
    quick = {"backbones": ("squeezenet1_1",), "weights": ("random",), "size_px": 64, "device": "cpu"}
    return FeaturizeSettings.from_options(**(quick | changes))


def test_an_overwrite_stopped_on_the_way_goes_on_where_it_stopped(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    # As a kill after the training images leaves it: the test images' plan and parts wait.
    cache_bytes = Path("features/train.h5").read_bytes()
    options = quick_settings(overwrite=True)
    work = plan_work(options)
    jobs = [
        _Job(
            split,
            options.out / f"{split}.h5",
            manifest.root,
            work.plans[split],
            work.reading,
            options,
            StopFlag(),
            lambda *_: None,
        )
        for split, manifest in work.manifests.items()
    ]
    assert [job.settings.overwrite for job in _jobs_to_do(jobs)] == [True, True]
    assert plan_in(Path("features/train.parts")) == jobs[0].wanted
    Parts(Path("features/train.parts"), jobs[0].wanted).remove()
    assert [job.settings.overwrite for job in _jobs_to_do(jobs)] == [False, True]
    code, _, err = run_cli("featurize", *QUICK, "--overwrite")
    assert code == 0
    assert "features/train.h5: 6 images x 1 views x 512 columns, 0.0 MB; complete, nothing to compute" in err
    assert "3 computed" in err
    assert Path("features/train.h5").read_bytes() == cache_bytes
    with FeatureCache(Path("features/test.h5")) as cache:
        assert cache.n_images == 3


def test_a_block_that_is_zero_everywhere_ends_the_run_or_quarantines_one_image(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine.features
    dead = {f"train{index}" for index in range(6)}

    def silenced(self, images, ids, views, blocks=None):
        vectors = whole(self, images, ids, views, blocks)
        vectors[[name in dead for name in ids]] = 1e-9  # zero in float16
        return vectors

    monkeypatch.setattr(Engine, "features", silenced)
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "features of squeezenet1_1 are zero everywhere, in view 0, as in all of the first 6 images" in err
    dead.clear()
    dead.add("train3")
    assert run_cli("featurize", *QUICK)[0] == 4
    assert quarantine()["train3"][0] == "features are zero everywhere"


def test_statistics_of_random_weights_are_the_same_for_the_process_that_set_them_and_the_next(
    project: Path, run_cli: Run
) -> None:
    words = ("--backbone", "resnet18", *QUICK[2:])
    assert run_cli("featurize", *words)[0] == 0
    code, _, err = run_cli("featurize", *words)
    assert code == 0, err
    assert "nothing to compute" in err


def test_a_plan_without_parts_gives_way_to_one_of_another_number_of_threads(project: Path) -> None:
    plan = plan_work(quick_settings()).plans["train"]
    other = dataclasses.replace(plan, execution=dataclasses.replace(plan.execution, n_threads=64))
    folder = Path("features/train.parts")
    assert settle_plan(folder, other) == other
    assert settle_plan(folder, plan) == plan
    # Shards that begin together follow the one that came first.
    assert settle_plan(folder, other, shared=True) == plan


def test_a_run_with_other_backbones_than_the_unfinished_one_is_refused(project: Path, run_cli: Run) -> None:
    plan = plan_work(quick_settings(backbones=("squeezenet1_1", "resnet18"))).plans["train"]
    folder = Path("features/train.parts")
    settle_plan(folder, plan)
    rows = Rows(
        features=np.ones((6, 1, plan.n_columns), np.float16),
        status=np.zeros(6, np.uint8),
        content_hash=np.zeros((6, 16), np.uint8),
        reasons=("",) * 6,
    )
    Parts(folder, plan).commit(0, rows)
    for names in ("resnet18,squeezenet1_1", "resnet18"):
        code, _, err = run_cli("featurize", "--backbone", names, *QUICK[2:])
        assert code == 2
        assert f"the unfinished run has the blocks squeezenet1_1,resnet18; {names} are asked for" in err


def test_a_kill_while_parts_are_removed_loses_no_list_of_quarantined_images(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data/train/train1.png").write_text("no image")
    words = (*QUICK, "--batch-size", "2", "--max-bad", "0.5")

    def dying(folder, **_):
        assert not Path("features/train.parts").exists(), "the folder's name goes before its files"
        next(Path(folder).glob("00000000-*.h5")).unlink()
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("features_cache.files.shutil.rmtree", dying)
        with pytest.raises(KilledError):
            run_cli("featurize", *words)
    listed = Path("features/train.quarantine.csv").read_text()
    assert "train1" in listed
    assert run_cli("featurize", *words)[0] == 4
    assert Path("features/train.quarantine.csv").read_text() == listed
    assert not Path("features/train.parts").exists()


def test_a_kill_before_parts_are_removed_is_tidied_up(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data/train/train1.png").write_text("no image")
    words = (*QUICK, "--batch-size", "2", "--max-bad", "0.5")

    def dying(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("featurize.finish.write_quarantine", dying)
        with pytest.raises(KilledError):
            run_cli("featurize", *words)
    assert Path("features/train.h5").exists() and Path("features/train.parts").exists()
    assert not Path("features/train.quarantine.csv").exists()
    assert not Path("features/train.json").exists()
    code, _, err = run_cli("featurize", *words)
    assert code == 4
    assert "features/train.h5: 6 images x 1 views x 512 columns, 0.0 MB; complete, nothing to compute" in err
    assert set(quarantine()) == {"train1"}
    assert not Path("features/train.parts").exists()
    record = json.loads(Path("features/train.json").read_text())
    assert record["execution"]["micro_batch"] and record["weights"] and record["sources_digest"]
    assert record["seconds_of_the_last_run"] is None


def test_a_kill_before_parts_are_removed_stands_in_the_way_of_no_other_command(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("featurize.finish.write_quarantine", dying)
        with pytest.raises(KilledError):
            run_cli("featurize", *QUICK)
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.n_views == 2


def damage(path: Path, row: int) -> None:
    """Flip a bit in the features of an image."""
    with FeatureCache(path) as cache:
        at = cache.seal.features_at + row * cache.n_views * cache.n_columns * 2 + 4
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_an_extension_of_a_damaged_cache_leaves_the_way_to_its_repair_open(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    whole = Path("features/train.h5").read_bytes()
    damage(Path("features/train.h5"), 2)
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 2
    assert not Path("features/train.parts").exists()
    assert run_cli("featurize", *QUICK, "--repair")[0] == 0
    assert Path("features/train.h5").read_bytes() == whole


@pytest.mark.parametrize("way", ["--repair", "--overwrite"])
def test_a_plain_command_between_two_of_an_unfinished_repair_leaves_its_parts(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    words = (*QUICK, "--batch-size", "1")
    assert run_cli("featurize", *words)[0] == 0
    whole = Path("features/train.h5").read_bytes()
    for row in (0, 1, 2):
        damage(Path("features/train.h5"), row)
    commit = Parts.commit

    def dying(self, unit, rows):
        commit(self, unit, rows)
        if unit == 1:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "commit", dying)
        with pytest.raises(KilledError):
            run_cli("featurize", *words, way)
    parts = sorted(path.name for path in Path("features/train.parts").glob("*.h5"))
    assert len(parts) == 2
    run_cli("featurize", *words)
    assert sorted(path.name for path in Path("features/train.parts").glob("*.h5")) == parts
    code, _, err = run_cli("featurize", *words, way)
    assert code == 0
    assert f"{1 if way == '--repair' else 4} computed" in err
    assert Path("features/train.h5").read_bytes() == whole
    assert not Path("features/train.parts").exists()


def test_what_speaks_against_the_test_images_is_said_before_the_training_images_are_computed(
    project: Path, run_cli: Run
) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    before = Path("features/train.h5").read_bytes()
    Path("data/test/test1.png").write_bytes(Path("data/test/test0.png").read_bytes())
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert code == 2
    assert "features/test.h5: 1 images are not those that it was made from ('test1')" in err
    assert Path("features/train.h5").read_bytes() == before
