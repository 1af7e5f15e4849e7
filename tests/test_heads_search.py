"""The search for settings: inside training images, by groups, the same for the same seed, and told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from features_cache.errors import OptionError
from heads.estimators.catalogue import HEADS
from heads.estimators.own_heads import own_kinds
from heads.feature_rows import FeatureRows
from heads.folds import make_folds
from heads.ladder import make_ladder
from heads.out_of_fold import fit_final, out_of_fold
from heads.problem import TrainingData
from heads.run import FitSettings
from heads.run_folder import read_run
from heads.search import draw_settings, search_heads, with_drawn
from heads.sizes import POWER
from heads.targets import ManyLabels, OneLabel
from tests.heads_data import draw_features, make_project

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {
    "mlp": dataclasses.replace(HEADS["mlp"], grid=(2,), watched=(1,), settings={"schedule_epochs": 2}),
    "linear": dataclasses.replace(HEADS["linear"], grid=(2, 4)),
}
KINDS = {**HEADS, **QUICK}


def silent(_what, _done, _total):
    pass


def learned(X, labels, groups=None):
    targets = OneLabel(labels, 1 + int(labels.max()))
    return TrainingData(rows=FeatureRows(X, POWER), targets=targets, groups=groups, weights=np.ones(len(labels)))


def drawn_images(n_images=108, views=2):
    labels = np.arange(n_images) % 3
    return draw_features(labels, n_views=views, spread=2.0), labels, np.arange(n_images) // 3 % 36


def searched(kinds, data, folds, *, n_settings=4, seed=0, progress=silent):
    return search_heads(
        kinds, data, folds, n_settings=n_settings, n_averaged=2, prior="balanced", seed=seed, progress=progress
    )


@pytest.mark.parametrize("name", KINDS)
def test_what_a_fold_holds_out_changes_nothing_of_its_search(name):
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3)
    kinds = {name: KINDS[name]}
    plain = searched(kinds, data, folds)[name]

    # All images that fold 0 holds out become enormous and change their labels.
    spoiled, moved, others = X.copy(), labels.copy(), folds[0].held_out
    spoiled[others] *= 1000
    moved[others] = (labels[others] + 1) % 3
    again = searched(kinds, learned(spoiled, moved, groups), folds)[name]

    losses, losses_again = ([trial.loss for trial in each.in_folds[0, 0].trials] for each in (plain, again))
    # Sums are about a median over all rows: the last digits move, and a network's steps make more of them.
    np.testing.assert_allclose(losses_again, losses, atol=5e-3)
    assert again.in_folds[0, 0].won == plain.in_folds[0, 0].won
    for key in ((0, 1), (0, 2)):
        told, told_again = ([trial.loss for trial in each.in_folds[key].trials] for each in (plain, again))
        assert not np.allclose(told, told_again, atol=2e-2), "the others learned from them"


@pytest.mark.parametrize("grouped", [True, False])
def test_a_ladder_holds_training_images_alone_and_never_cuts_through_a_group(grouped):
    X, labels, groups = drawn_images(n_images=324)
    groups = np.arange(324) // 3 if grouped else None
    data = learned(X, labels, groups)
    fold = make_folds(data.targets, groups, n_folds=3)[1]
    ladder = make_ladder(data, fold.train, seed=0)
    judged = np.flatnonzero(np.isin(ladder.cells, list(ladder.judged)))
    below = np.arange(0)
    for rung, share in zip(ladder.rungs, (1 / 9, 1 / 3, 1), strict=True):
        seen = np.flatnonzero(np.isin(ladder.cells, list(rung)))
        assert set(below.tolist()) < set(seen.tolist())
        assert not {*seen.tolist(), *judged.tolist()} & set(fold.held_out.tolist())
        assert not set(seen.tolist()) & set(judged.tolist())
        if grouped:
            assert not set(groups[seen]) & set(groups[judged])
        assert len(seen) == pytest.approx(share * (len(fold.train) - len(judged)), rel=0.15)
        below = seen
    assert sorted({*below.tolist(), *judged.tolist()}) == fold.train.tolist()


def test_few_groups_make_a_short_ladder_and_one_makes_none():
    X, labels, _ = drawn_images(n_images=36)
    for n_groups, n_rungs in ((3, 2), (2, 1)):
        ladder = make_ladder(learned(X, labels, np.arange(36) // 3 % n_groups), np.arange(36), seed=0)
        assert len(ladder.rungs) == n_rungs
    data = learned(X, labels, np.zeros(36, dtype=int))
    assert make_ladder(data, np.arange(36), seed=0) is None


def test_images_beside_the_scored_ones_are_learned_from_on_the_highest_rung_alone():
    X, labels, _ = drawn_images()
    data = dataclasses.replace(learned(X, labels), n_scored=90)
    ladder = make_ladder(data, np.arange(60), seed=0)
    *lower, highest = ladder.rungs
    extra, held_out = ladder.cells[90:], ladder.cells[60:90]
    assert np.isin(extra, list(highest)).all()
    assert not np.isin(extra, [cell for rung in lower for cell in rung]).any()
    assert not np.isin(held_out, [*highest, *ladder.judged]).any()


def test_the_same_seed_gives_the_same_search_and_another_seed_another():
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3)
    kinds = {"logistic": HEADS["logistic"], "knn": HEADS["knn"]}
    first, second, other = (searched(kinds, data, folds, seed=seed) for seed in (0, 0, 1))
    for name in kinds:
        assert first[name] == second[name]
        drawn, others = ({json.dumps(trial.drawn) for trial in each[name].final.trials} for each in (first, other))
        assert drawn & others == {"{}"}


def test_the_default_is_tried_first_and_meets_the_winner_on_the_highest_rung():
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3)
    found = searched({"knn": HEADS["knn"]}, data, folds, n_settings=10)["knn"]
    for search in (*found.in_folds.values(), found.final):
        by_rung = [[trial for trial in search.trials if trial.rung == rung] for rung in range(3)]
        assert [len(trials) for trials in by_rung] == [10, 4, 2]
        assert all(trials[0].drawn == {} for trials in by_rung)
        best = min(by_rung[2], key=lambda trial: trial.loss)
        assert search.won == best.drawn
        assert search.kind == with_drawn(HEADS["knn"], best.drawn)
    assert found.n_fits == 4 * 16


def test_the_number_of_fits_is_told_before_the_first_one():
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3)
    heard = []
    found = searched(
        {"ridge": HEADS["ridge"], "knn": HEADS["knn"]},
        data,
        folds,
        n_settings=5,
        progress=lambda *said: heard.append(said),
    )
    n_fits = 2 * 4 * (5 + 2)
    assert heard[0] == (f"search of 5 settings a head: {n_fits} fits", 0, n_fits)
    assert heard[-1][1] == n_fits == sum(each.n_fits for each in found.values())


def test_where_the_default_is_bad_a_search_finds_settings_that_predict_held_out_images_better():
    """A weak signal in many columns wants a penalty far above the one that the head begins with."""
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 2
    X = (10 + 0.18 * (2 * labels - 1)[:, None, None] + rng.normal(size=(150, 1, 200))).astype(np.float32)
    data = learned(X, labels)
    folds = make_folds(data.targets, None, n_folds=3)
    bad = dataclasses.replace(HEADS["logistic"], grid=(100.0,))
    loss, C = {}, {}
    for n_settings in (0, 12):
        oof = out_of_fold({"logistic": bad}, data, folds, n_averaged=1, seed=0, progress=silent, n_settings=n_settings)[
            "logistic"
        ]
        loss[n_settings] = data.targets.losses(oof.predictions.averaged[0]).mean()
        C[n_settings] = oof.final.settings["C"]
    assert C[0] == 100
    assert C[12] < 1e-2
    assert loss[12] < loss[0] - 0.005


def test_each_fold_s_head_has_the_settings_that_its_own_search_found():
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3, n_repeats=2)
    kinds = {"knn": HEADS["knn"], "logistic": HEADS["logistic"]}
    found = out_of_fold(kinds, data, folds, n_averaged=2, seed=0, progress=silent, n_settings=6)
    for name, oof in found.items():
        searches = oof.search
        for fold, choice in zip(folds, oof.choices, strict=True):
            assert choice.settings | searches.in_folds[fold.repeat, fold.number].won == choice.settings
        assert oof.final.settings | searches.final.won == oof.final.settings
        assert len(oof.predictions.inner) == 6
        np.testing.assert_allclose(oof.predictions.averaged.sum(axis=2), 1, atol=1e-5)
        fitted = fit_final(kinds[name], data, oof.final)
        assert fitted.get_params() == oof.final.settings


def test_a_search_that_ends_at_the_default_gives_what_no_search_gives():
    X, labels, groups = drawn_images()
    data = learned(X, labels, groups)
    folds = make_folds(data.targets, groups, n_folds=3)
    # Nothing to draw: the default is all there is.
    fixed = dataclasses.replace(HEADS["ridge"], space={})
    plain, after = (
        out_of_fold({"ridge": fixed}, data, folds, n_averaged=2, seed=0, progress=silent, n_settings=n)["ridge"]
        for n in (0, 8)
    )
    np.testing.assert_array_equal(plain.predictions.averaged, after.predictions.averaged)
    assert plain.final == after.final
    assert after.search.n_fits == 0


def test_many_labels_are_searched_too():
    rng = np.random.default_rng(0)
    members = rng.random((120, 3)) < (0.6, 0.4, 0.2)
    X = (5 + members @ rng.normal(size=(3, 10)) + rng.normal(size=(120, 10)))[:, None].astype(np.float32)
    data = TrainingData(rows=FeatureRows(X, POWER), targets=ManyLabels(members), weights=np.ones(120))
    folds = make_folds(data.targets, None, n_folds=3)
    found = search_heads(
        {"ridge": HEADS["ridge"], "knn": HEADS["knn"]},
        data,
        folds,
        n_settings=4,
        n_averaged=1,
        prior="train",
        seed=0,
        progress=silent,
    )
    assert all(np.isfinite(trial.loss) for each in found.values() for trial in each.final.trials)


@pytest.mark.parametrize("name", HEADS)
def test_every_draw_is_a_setting_that_its_head_takes(name):
    kind = HEADS[name]
    drawn = draw_settings(name, kind, 50, seed=0)
    assert drawn[0] == {}
    assert len({json.dumps(each) for each in drawn}) > 40
    for each in drawn:
        own_kinds({name: each})


def test_what_the_project_s_own_table_says_is_not_looked_for():
    kinds = own_kinds({"mlp": {"width": 32, "dropout": 0.1}, "ridge": {"alpha": 3.0}})
    assert not {"width", "dropout"} & set(kinds["mlp"].space)
    assert draw_settings("ridge", kinds["ridge"], 9, seed=0) == [{}]


@pytest.mark.parametrize("search", [-1, 1])
def test_a_search_of_one_setting_is_refused(search):
    with pytest.raises(OptionError, match=f"--search {search}; expected 2 settings a head or more"):
        FitSettings(features=Path("f.h5"), labels=None, search=search)


def test_the_command_tells_what_was_tried_on_the_terminal_and_in_run_json(tmp_path, monkeypatch, run_cli):
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ("--labels", "train.csv", "--heads", "ridge,knn", "--folds", "2", "--search", "4", "--out", "run")
    code, out, err = run_cli("fit-heads", *words)
    assert code == 0, err
    assert "folds that left the default" in out
    told = read_run(Path("run"))["search"]
    assert set(told) == {"ridge", "knn"}
    assert told["ridge"]["n_fits"] == 3 * (4 + 2)
    assert [(fold["repeat"], fold["fold"]) for fold in told["ridge"]["folds"]] == [(0, 0), (0, 1)]
    trial = told["knn"]["final"]["trials"][1]
    assert set(trial) == {"drawn", "rung", "n_images", "loss"}
    assert set(trial["drawn"]) == {"closeness", "smoothing", "shrinkage"}
