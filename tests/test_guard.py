"""The leak guard in a run: told, listed, grouped; and the estimate that it mends."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from features_cache.recipe import Block
from features_cache.writer import write_cache
from heads.evaluate import EvaluateSettings, evaluate
from heads.gather import gather
from heads.leaks.guard import guarded
from heads.run import FitSettings, fit_heads
from heads.run_folder import read_run
from tests.heads_data import draw_features, make_blocks, make_project, make_recipe, write_csv
from tests.leak_data import make_leaky_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Each original ten times, augmented and unnamed; the test images are new."""
    folder = tmp_path_factory.mktemp("leaky")
    made = make_leaky_data(seed=1, n_test=400)
    blocks = (Block(name="tiny", start=0, columns=made.X.shape[2], recipe=make_recipe()),)
    write_cache(folder / "train.h5", ids=made.ids, features=made.X, blocks=blocks)
    write_cache(folder / "test.h5", ids=made.new_ids, features=made.new, blocks=blocks)
    for name, ids, labels in (("train", made.ids, made.labels), ("test", made.new_ids, made.new_labels)):
        write_csv(folder / f"{name}.csv", ["id", "label"], [[i, f"class{k}"] for i, k in zip(ids, labels, strict=True)])
    return folder


@pytest.fixture(scope="module")
def settings(leaky):
    return FitSettings(
        features=leaky / "train.h5",
        labels=leaky / "train.csv",
        heads=("ridge",),
        out=leaky / "plain",
        test_features=leaky / "test.h5",
    )


@pytest.fixture(scope="module")
def plain(settings):
    return fit_heads(settings)


@pytest.fixture(scope="module")
def grouped(settings, leaky):
    return fit_heads(dataclasses.replace(settings, group_near_duplicates=True, out=leaky / "grouped"))


def balanced_accuracy(metrics):
    return metrics["heads"]["ridge"]["balanced_accuracy"]


def test_copies_flatter_the_plain_estimate_by_ten_points_and_the_guarded_interval_holds_the_true_score(
    leaky, plain, grouped
):
    new = evaluate(EvaluateSettings(run=grouped.folder, features=leaky / "test.h5", labels=leaky / "test.csv"))
    true = balanced_accuracy(new)["value"]
    assert balanced_accuracy(plain.metrics)["value"] > true + 0.10
    found = balanced_accuracy(grouped.metrics)
    assert found["low"] <= true <= found["high"]
    assert grouped.metrics["n_groups"] == 160


def test_copies_on_both_sides_of_a_fold_are_told_with_examples_and_what_to_type(plain):
    (told,) = [text for text in plain.warnings if "stand in different folds" in text]
    assert "pairs of near-duplicate images (1600 of 1600 images)" in told
    assert "type --group-near-duplicates" in told
    assert told.count("cosine") == 5
    described = read_run(plain.folder)["near_duplicates"]
    assert described["n_pairs"] == pytest.approx(160 * 45, rel=0.001)
    assert described["n_pairs_across_folds"] > 5000
    assert described["n_pairs_with_test"] == 0


def test_all_pairs_are_listed_with_their_folds(plain, grouped):
    table = pd.read_csv(plain.folder / "near_duplicates.csv")
    assert list(table.columns) == ["id", "other_id", "where", "cosine", "fold", "other_fold"]
    assert len(table) == pytest.approx(160 * 45, rel=0.001)
    assert (table["fold"] != table["other_fold"]).any()
    kept = pd.read_csv(grouped.folder / "near_duplicates.csv")
    assert (kept["fold"] == kept["other_fold"]).all()
    assert read_run(grouped.folder)["near_duplicates"]["n_pairs_across_folds"] == 0
    assert not [text for text in grouped.warnings if "different folds" in text]


def test_test_images_that_are_like_training_images_are_not_told_apart_and_the_run_says_so(grouped):
    shift = read_run(grouped.folder)["shift"]
    assert shift["low"] <= 0.5 <= shift["high"]
    assert grouped.notes == (shift["sentence"],)


def test_a_copy_among_the_test_images_is_told(settings, leaky, tmp_path):
    made = make_leaky_data(seed=1, n_test=400)
    X = made.new.copy()
    X[7] = made.X[3] * 1.01
    blocks = (Block(name="tiny", start=0, columns=X.shape[2], recipe=make_recipe()),)
    write_cache(tmp_path / "test.h5", ids=made.new_ids, features=X, blocks=blocks)
    copied = dataclasses.replace(settings, test_features=tmp_path / "test.h5")
    _, seen = guarded(copied, gather(copied))
    (told,) = [text for text in seen.warnings if "training and a test image" in text]
    assert "(1 of 400 test images)" in told
    assert "'new00007'" in told


def test_groups_that_copies_link_become_one_and_keep_a_name(tmp_path):
    made = make_leaky_data(n_originals=120, n_copies=1)
    one, other = 5, 49
    made.X[one] = made.X[other] * 1.01
    blocks = (Block(name="tiny", start=0, columns=made.X.shape[2], recipe=make_recipe()),)
    write_cache(tmp_path / "train.h5", ids=made.ids, features=made.X, blocks=blocks)
    records = [[i, f"class{k}", f"w{n % 12}"] for n, (i, k) in enumerate(zip(made.ids, made.labels, strict=True))]
    labels = write_csv(tmp_path / "train.csv", ["id", "label", "well"], records)
    settings = FitSettings(
        features=tmp_path / "train.h5", labels=labels, group_column="well", folds=3, group_near_duplicates=True
    )
    before = gather(settings)
    after, _ = guarded(settings, before)
    wells = before.images.groups
    assert wells[one] != wells[other]
    groups = after.images.groups
    assert groups[one] == groups[other]
    for well in np.unique(wells):
        assert len(np.unique(groups[wells == well])) == 1
    assert len(after.images.group_names) == groups.max() + 1 == len(set(after.images.group_names))
    number = np.zeros(120, dtype=int)
    for fold in after.folds:
        number[fold.held_out] = fold.number
    assert number[one] == number[other]


def test_test_features_of_another_recipe_are_told_and_stop_nothing(tmp_path):
    project = make_project(tmp_path)
    write_cache(
        tmp_path / "other.h5",
        ids=["a", "b"],
        features=draw_features(np.array([0, 1])),
        blocks=make_blocks(seed=9),
    )
    settings = FitSettings(features=project.train, labels=project.csv, test_features=tmp_path / "other.h5")
    _, seen = guarded(settings, gather(settings))
    assert "training and test images were not compared, and `cli submit` would refuse" in seen.warnings[0]
    assert seen.description["shift"] is None
    assert seen.notes == ()
