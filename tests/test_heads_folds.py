"""Folds never cut through an image or a group, and nothing is learned from what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from features_cache.errors import OptionError
from heads.choosing import fit_temperature
from heads.estimators.catalogue import HEADS
from heads.feature_rows import FeatureRows
from heads.folds import make_folds
from heads.nesting import nest
from heads.out_of_fold import out_of_fold
from heads.problem import TrainingData
from heads.sizes import POWER
from heads.targets import OneLabel
from tests.heads_data import draw_features

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=30, max_size=80).filter(lambda names: len(set(names)) >= 4),
    n_folds=st.integers(2, 4),
    seed=st.integers(0, 5),
)
def test_every_image_is_held_out_once_a_repeat_and_no_group_is_on_both_sides(groups, n_folds, seed):
    labels, groups = np.arange(len(groups)) % 3, np.array(groups)
    folds = make_folds(one(labels), groups, n_folds=n_folds, n_repeats=2, seed=seed)
    for repeat in (0, 1):
        held_out = np.concatenate([fold.held_out for fold in folds if fold.repeat == repeat])
        assert sorted(held_out.tolist()) == list(range(len(labels)))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.held_out])
        assert not set(fold.train.tolist()) & set(fold.held_out.tolist())


def test_seed_0_by_group_is_scikit_learns_stratified_group_k_fold():
    labels, groups = np.arange(90) % 3, np.arange(90) // 4
    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    for fold, (train, held_out) in zip(make_folds(one(labels), groups, n_folds=5), theirs, strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.held_out, held_out)


def test_more_folds_than_groups_is_an_error():
    with pytest.raises(OptionError, match=r"--folds 5: there are only 3 groups; .*Use --folds 3"):
        make_folds(one(np.arange(9) % 2), np.arange(9) // 3, n_folds=5)


def test_folds_that_cannot_be_filled_are_an_error_before_anything_is_fitted():
    with pytest.raises(OptionError, match=r"--folds 5: the largest class has only 3 images; .*Use --folds 3"):
        make_folds(one(np.arange(6) % 2), None, n_folds=5)


def learned(X, labels, groups=None, weights=None):
    """Images that heads may learn from, all of weight 1 unless given."""
    weights = np.ones(len(labels)) if weights is None else weights
    return TrainingData(rows=FeatureRows(X, POWER), targets=one(labels), groups=groups, weights=weights)


def one(labels):
    """Targets of one label an image."""
    return OneLabel(np.asarray(labels), 1 + int(np.max(labels)))


def drawn(seed=0, n_images=60, views=2):
    labels = np.arange(n_images) % 3
    return draw_features(labels, n_views=views, seed=seed, spread=2.0), labels, np.arange(n_images) // 3 % 12


def silent(_what, _done, _total):
    pass


@pytest.mark.parametrize("n_folds", [2, 3, 4])
@pytest.mark.parametrize("name", HEADS)
def test_what_is_held_out_changes_nothing_that_was_learned(name, n_folds):
    """Standardisation, whitening, alphas, C, epochs and temperatures come from the training images alone."""
    X, labels, groups = drawn()
    folds = make_folds(one(labels), groups, n_folds=n_folds)
    plain = out_of_fold({name: HEADS[name]}, learned(X, labels, groups), folds, n_averaged=2, seed=0, progress=silent)[
        name
    ]

    # All images that fold 0 holds out, but the first, become enormous and change their labels.
    spoiled, others = X.copy(), folds[0].held_out[1:]
    spoiled[others] *= 1000
    moved = labels.copy()
    moved[others] = (labels[others] + 1) % 3
    again = out_of_fold(
        {name: HEADS[name]}, learned(spoiled, moved, groups), folds, n_averaged=2, seed=0, progress=silent
    )[name]

    assert again.choices[0].settings == pytest.approx(plain.choices[0].settings, rel=1e-3)
    assert again.choices[1].settings != pytest.approx(plain.choices[1].settings, rel=1e-3), (
        "the others learned from them"
    )
    first = folds[0].held_out[0]
    np.testing.assert_allclose(again.predictions.averaged[0, first], plain.predictions.averaged[0, first], atol=1e-3)


@pytest.mark.parametrize(
    ("n_folds", "n_inner_folds", "n_sets"), [(5, 2, 15), (5, 1, 10), (2, 2, 8), (3, 1, 6), (6, 9, 21)]
)
def test_no_image_is_judged_by_a_head_that_saw_its_fold_or_its_group(n_folds, n_inner_folds, n_sets):
    _, labels, groups = drawn()
    folds = make_folds(one(labels), groups, n_folds=n_folds)
    nesting = nest(folds, one(labels), groups, n_inner_folds=n_inner_folds, seed=0)
    assert len(nesting.judgements()) == n_sets
    for nested in nesting.folds:
        held_out = set(nested.fold.held_out.tolist())
        outer_train = set(np.flatnonzero(np.isin(nesting.cells, list(nested.outer.learned))).tolist())
        assert outer_train == set(nested.fold.train.tolist())
        assert nested.inner
        for judgement in nested.inner:
            seen = np.flatnonzero(np.isin(nesting.cells, list(judgement.learned)))
            judged = np.flatnonzero(np.isin(nesting.cells, list(judgement.judged)))
            assert not held_out & {*seen.tolist(), *judged.tolist()}
            assert not set(groups[seen]) & set(groups[judged])
            assert set(seen.tolist()) | set(judged.tolist()) == outer_train


def test_a_fold_of_a_single_group_leaves_defaults():
    X, labels, _ = drawn()
    groups = np.arange(60) % 2
    folds = make_folds(one(labels), groups, n_folds=2)
    oof = out_of_fold(
        {"ridge": HEADS["ridge"]}, learned(X, labels, groups), folds, n_averaged=2, seed=0, progress=silent
    )["ridge"]
    assert oof.choices[0].candidates == ()
    assert oof.choices[0].settings["alpha"] == HEADS["ridge"].head().alpha
    assert len(oof.final.candidates) == len(HEADS["ridge"].grid)


@pytest.mark.parametrize("name", HEADS)
def test_out_of_fold_predictions_of_labels_without_meaning_are_no_better_than_chance(name):
    """Ten near copies of each image carry its label; as one group they cannot give it away."""
    rng = np.random.default_rng(0)
    original = np.arange(300) // 10
    X = (rng.normal(size=(30, 1, 16))[original] + 0.01 * rng.normal(size=(300, 1, 16))).astype(np.float32)
    labels = rng.permutation(np.arange(30) % 2)[original]
    accuracy = {}
    for groups in (original, None):
        folds = make_folds(one(labels), groups, n_folds=3)
        oof = out_of_fold(
            {name: HEADS[name]}, learned(X, labels, groups), folds, n_averaged=1, seed=0, progress=silent
        )[name]
        accuracy[groups is None] = np.mean(oof.predictions.averaged[0].argmax(axis=1) == labels)
    # Dropout on ten columns keeps the linear head from learning thirty labels by heart.
    assert accuracy[True] > (0.62 if name == "linear" else 0.78)
    assert accuracy[False] < 0.65


def test_predictions_average_the_views_asked_for_and_keep_view_0_beside():
    X, labels, groups = drawn(views=3)
    images = learned(X, labels, groups)
    folds = make_folds(one(labels), groups, n_folds=3)
    single = out_of_fold({"ridge": HEADS["ridge"]}, images, folds, n_averaged=1, seed=0, progress=silent)["ridge"]
    np.testing.assert_array_equal(single.predictions.averaged, single.predictions.view_0)
    all_views = out_of_fold({"ridge": HEADS["ridge"]}, images, folds, n_averaged=3, seed=0, progress=silent)["ridge"]
    assert np.abs(all_views.predictions.averaged - all_views.predictions.view_0).max() > 1e-4
    np.testing.assert_allclose(all_views.predictions.averaged.sum(axis=2), 1, atol=1e-5)


def test_the_temperature_undoes_scores_that_are_too_loud():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4000, 3))
    labels = np.array(
        [rng.choice(3, p=row) for row in np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)]
    )
    temperature, _ = fit_temperature((4 * logits)[:, :, None], one(labels))
    assert temperature == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("name", HEADS)
def test_a_class_that_an_inner_fold_never_saw_gets_no_probability_and_stops_nothing(name):
    labels = np.array([0, 1] * 20 + [2, 2])
    images = learned(draw_features(labels, n_views=1), labels)
    folds = make_folds(one(labels), None, n_folds=4)
    oof = out_of_fold({name: HEADS[name]}, images, folds, n_averaged=1, seed=0, progress=silent)[name]
    assert all(choice.settings["temperature"] > 0 for choice in oof.choices)
    assert np.isfinite(oof.predictions.averaged).all()
    np.testing.assert_allclose(oof.predictions.averaged.sum(axis=2), 1, atol=1e-5)


def test_a_few_images_predicted_right_do_not_make_the_temperature_fall_without_end():
    labels = np.arange(40) % 4
    logits = 3.0 * np.eye(4)[labels][None]
    temperature, losses = fit_temperature(logits[:, :, None], one(labels))
    # exp(-3 / T) of a mistake's probability is left: about one image in forty, and not one in 10^65 as at the lower bound.
    assert 0.3 < temperature < 2
    assert losses.max() < 0.1
