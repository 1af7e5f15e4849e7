"""Folds never cut through an image or a group, and nothing is learned from what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from features_cache.errors import OptionError
from heads.catalogue import HEADS
from heads.choosing import TrainingImages, choose, fit_temperature
from heads.folds import Fold, make_folds
from heads.out_of_fold import out_of_fold
from tests.heads_data import draw_features


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=30, max_size=80).filter(lambda names: len(set(names)) >= 4),
    n_folds=st.integers(2, 4),
    seed=st.integers(0, 5),
)
def test_every_image_is_held_out_once_a_repeat_and_no_group_is_on_both_sides(groups, n_folds, seed):
    labels, groups = np.arange(len(groups)) % 3, np.array(groups)
    folds = make_folds(labels, groups, n_folds=n_folds, n_repeats=2, seed=seed)
    for repeat in (0, 1):
        held_out = np.concatenate([fold.held_out for fold in folds if fold.repeat == repeat])
        assert sorted(held_out.tolist()) == list(range(len(labels)))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.held_out])
        assert not set(fold.train.tolist()) & set(fold.held_out.tolist())


def test_seed_0_by_group_is_scikit_learns_stratified_group_k_fold():
    labels, groups = np.arange(90) % 3, np.arange(90) // 4
    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    for fold, (train, held_out) in zip(make_folds(labels, groups, n_folds=5), theirs, strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.held_out, held_out)


def test_more_folds_than_groups_is_an_error():
    with pytest.raises(OptionError, match=r"--folds 5: there are only 3 groups; .*Use --folds 3"):
        make_folds(np.arange(9) % 2, np.arange(9) // 3, n_folds=5)


def test_folds_that_cannot_be_filled_are_an_error_before_anything_is_fitted():
    with pytest.raises(OptionError, match=r"--folds 5: the largest class has only 3 images; .*Use --folds 3"):
        make_folds(np.arange(6) % 2, None, n_folds=5)


def images_with(seed=0, n_images=60, views=2):
    labels = np.arange(n_images) % 3
    X = draw_features(labels, n_views=views, seed=seed, spread=2.0)
    groups = np.arange(n_images) // 3 % 12
    return TrainingImages(X=X, labels=labels, groups=groups, n_classes=3, class_weight="balanced")


def silent(_what, _done, _total):
    pass


@pytest.mark.parametrize("name", HEADS)
def test_what_is_held_out_changes_nothing_that_was_learned(name):
    """Standardisation, alphas, C, epochs and temperatures come from the training images alone."""
    images = images_with()
    (fold, *_) = make_folds(images.labels, images.groups, n_folds=3)
    one_fold = [Fold(repeat=0, number=0, train=fold.train, held_out=fold.held_out)]
    plain = out_of_fold([name], images, one_fold, n_averaged=2, seed=0, progress=silent)[name]

    # All held-out images but the first become enormous and change their labels.
    spoiled, others = images.X.copy(), fold.held_out[1:]
    spoiled[others] *= 1000
    labels = images.labels.copy()
    labels[others] = 0
    moved = TrainingImages(X=spoiled, labels=labels, groups=images.groups, n_classes=3, class_weight="balanced")
    again = out_of_fold([name], moved, one_fold, n_averaged=2, seed=0, progress=silent)[name]

    assert again.choices == plain.choices
    first = fold.held_out[0]
    np.testing.assert_allclose(again.averaged[0, first], plain.averaged[0, first], atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_out_of_fold_predictions_of_labels_without_meaning_are_no_better_than_chance(name):
    """Ten near copies of each image carry its label; as one group they cannot give it away."""
    rng = np.random.default_rng(0)
    original = np.arange(300) // 10
    X = (rng.normal(size=(30, 1, 16))[original] + 0.01 * rng.normal(size=(300, 1, 16))).astype(np.float32)
    labels = rng.permutation(np.arange(30) % 2)[original]
    accuracy = {}
    for groups in (original, None):
        images = TrainingImages(X=X, labels=labels, groups=groups, n_classes=2, class_weight="none")
        folds = make_folds(labels, groups, n_folds=3)
        oof = out_of_fold([name], images, folds, n_averaged=1, seed=0, progress=silent)[name]
        accuracy[groups is None] = np.mean(oof.averaged[0].argmax(axis=1) == labels)
    assert accuracy[True] > 0.78
    assert accuracy[False] < 0.65


def test_settings_are_defaults_where_all_images_are_of_one_group():
    images = images_with()
    alone = TrainingImages(
        X=images.X, labels=images.labels, groups=np.zeros(60, dtype=np.int64), n_classes=3, class_weight="none"
    )
    choice = choose("ridge", alone, n_averaged=2, seed=0)
    assert choice.candidates == ()
    assert choice.settings["alpha"] == HEADS["ridge"].head().alpha


def test_predictions_average_the_views_asked_for_and_keep_view_0_beside():
    images = images_with(views=3)
    folds = make_folds(images.labels, images.groups, n_folds=3)
    one = out_of_fold(["ridge"], images, folds, n_averaged=1, seed=0, progress=silent)["ridge"]
    np.testing.assert_array_equal(one.averaged, one.view_0)
    all_views = out_of_fold(["ridge"], images, folds, n_averaged=3, seed=0, progress=silent)["ridge"]
    assert np.abs(all_views.averaged - all_views.view_0).max() > 1e-4
    np.testing.assert_allclose(all_views.averaged.sum(axis=2), 1, atol=1e-5)


def test_the_temperature_undoes_scores_that_are_too_loud():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4000, 3))
    labels = np.array(
        [rng.choice(3, p=row) for row in np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)]
    )
    temperature, _ = fit_temperature(4 * logits, labels, 1)
    assert temperature == pytest.approx(4, rel=0.15)


def test_a_class_that_an_inner_fold_never_saw_gets_no_probability_and_stops_nothing():
    labels = np.array([0, 1] * 20 + [2])
    images = TrainingImages(
        X=draw_features(labels, n_views=1), labels=labels, groups=None, n_classes=3, class_weight="balanced"
    )
    for name in HEADS:
        assert choose(name, images, n_averaged=1, seed=0).settings["temperature"] > 0


def test_a_few_images_predicted_right_do_not_make_the_temperature_fall_without_end():
    labels = np.arange(40) % 4
    logits = 3.0 * np.eye(4)[labels][None]
    temperature, losses = fit_temperature(logits, labels, 1)
    # exp(-3 / T) of a mistake's probability is left: about one image in forty, and not one in 10^65 as at the lower bound.
    assert 0.3 < temperature < 2
    assert losses.max() < 0.1
