"""Cells and images heard together: pooled, calibrated, weighed inside the folds."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import LogisticRegression

from features_cache.errors import OptionError
from heads.folds import make_folds
from heads.fusion import WEIGHTS, choose_weight, fuse, fuse_at, fused, pool_predictions
from heads.metrics.confidence import calibrated_loss
from heads.parents import mean_by_parent, shares
from heads.pooling import POOLS, pooled
from heads.predictions import Inner, Predictions
from heads.targets import ManyLabels, OneLabel

probabilities = arrays.arrays(np.float64, st.tuples(st.integers(0, 12), st.just(3)), elements=st.floats(0, 1, width=16))


def slow_pool(said, parents, n_images, pool, *, many):
    found = []
    for image in range(n_images):
        rows = [row for row, parent in zip(said.tolist(), parents, strict=True) if parent == image]
        if not rows:
            found.append([float("nan")] * 3)
            continue
        each = [sum(column) / len(column) if pool == "mean" else max(column) for column in zip(*rows, strict=True)]
        found.append(each if many or pool == "mean" else [value / sum(each) for value in each])
    return found


@given(said=probabilities, data=st.data(), pool=st.sampled_from(POOLS), many=st.booleans())
def test_cells_are_pooled_as_a_loop_over_images_would(said, data, pool, many):
    said = said + 1e-3
    parents = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(said), max_size=len(said))), dtype=np.int64)
    expected = slow_pool(said, parents, 5, pool, many=many)
    np.testing.assert_allclose(pooled(said, parents, 5, pool, many=many), expected, rtol=1e-12)


@given(said=probabilities, data=st.data(), pool=st.sampled_from(POOLS), weight=st.floats(0, 1))
def test_it_is_the_same_to_pool_cells_that_were_fused_and_to_fuse_cells_that_were_pooled(said, data, pool, weight):
    """So the estimate, of images, speaks of the confidences that a submission gives to cells."""
    parents = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(said), max_size=len(said))), dtype=np.int64)
    image = data.draw(arrays.arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
    first = pooled(weight * said + (1 - weight) * image[parents], parents, 5, pool, many=True)
    last = fused(image, pooled(said, parents, 5, pool, many=True), weight)
    has_cells = np.isin(np.arange(5), parents)
    np.testing.assert_allclose(last[has_cells], first[has_cells], atol=1e-12)
    np.testing.assert_array_equal(last[~has_cells], image[~has_cells])


def test_an_unknown_pool_is_an_error_with_the_nearest():
    with pytest.raises(OptionError, match="expected mean or maximum; did you mean 'maximum'"):
        pooled(np.zeros((0, 3)), np.zeros(0, np.int64), 1, "maxmum", many=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9)), min_size=1))
def test_the_rows_of_a_parent_count_one_together(rows):
    parents, values = (np.array(column) for column in zip(*rows, strict=True))
    by_parent = [[value for parent, value in rows if parent == one] for one in sorted(set(parents.tolist()))]
    np.testing.assert_allclose(mean_by_parent(values, parents), [np.mean(each) for each in by_parent], atol=1e-12)
    np.testing.assert_allclose(np.bincount(parents, shares(parents))[np.unique(parents)], 1)
    assert mean_by_parent(values, None) is values


# Confidence


def draw_said(n_images=400, seed=0, sharpness=1.0):
    """Probabilities that rank well, and labels."""
    rng = np.random.default_rng(seed)
    members = rng.uniform(size=(n_images, 3)) < (0.5, 0.3, 0.1)
    odds = sharpness * (1.5 * members + rng.normal(size=members.shape) - 1)
    return 1 / (1 + np.exp(-odds)), members


def test_the_calibrated_loss_of_many_labels_is_scikit_learns_after_a_regression_on_the_log_odds():
    said, members = draw_said()
    odds = np.log(said / (1 - said)).reshape(-1, 1)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(odds, members.reshape(-1))
    expected = -np.log(theirs.predict_proba(odds)[np.arange(odds.size), members.reshape(-1).astype(int)]).mean()
    assert calibrated_loss(said, ManyLabels(members)) == pytest.approx(expected, abs=1e-5)


def test_the_calibrated_loss_of_one_label_is_that_of_the_best_temperature():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 400)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(400, 3))

    def softmax(temperature):
        raised = np.exp(logits / temperature)
        return raised / raised.sum(axis=1, keepdims=True)

    losses = [-np.log(softmax(each)[np.arange(400), labels]).mean() for each in np.geomspace(0.05, 20, 500)]
    assert calibrated_loss(softmax(3.0), OneLabel(labels, 3)) == pytest.approx(min(losses), abs=1e-3)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 5.0])
def test_confidence_alone_does_not_move_the_calibrated_loss(sharpness):
    said, members = draw_said(sharpness=sharpness)
    plain, _ = draw_said()
    assert calibrated_loss(said, ManyLabels(members)) == pytest.approx(
        calibrated_loss(plain, ManyLabels(members)), abs=1e-4
    )


def test_what_ranks_the_wrong_way_round_is_worth_nothing_and_is_not_turned():
    said, members = draw_said()
    share = members.mean()
    chance = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert calibrated_loss(1 - said, ManyLabels(members)) == pytest.approx(chance, abs=1e-3)


# The weight


def test_the_weight_goes_to_those_who_know():
    said, members = draw_said()
    noise = np.random.default_rng(5).uniform(0.3, 0.6, said.shape)
    targets = ManyLabels(members)
    assert choose_weight(noise, said, targets) == 0.8
    assert choose_weight(said, noise, targets) == 0.2
    other, _ = draw_said()
    both = np.where([True, True, False], other, noise), np.where([False, False, True], other, noise)
    assert 0.2 < choose_weight(*both, targets) < 0.8


def test_timid_cells_that_know_more_are_not_silenced_for_being_timid():
    """Means over many cells are near the frequencies of classes: by the plain log-loss images would get nearly all."""
    said, members = draw_said(sharpness=2.0)
    timid, _ = draw_said(sharpness=0.1)
    image = said + np.random.default_rng(6).normal(scale=0.15, size=said.shape)
    image, targets = image.clip(0.01, 0.99), ManyLabels(members)
    plain = [targets.losses(fused(image, timid, weight)).mean() for weight in WEIGHTS]
    assert WEIGHTS[int(np.argmin(plain))] == 0.2
    assert choose_weight(image, timid, targets) > 0.4


def test_images_without_cells_have_no_say_in_the_weight_and_none_leave_it_in_the_middle():
    said, members = draw_said()
    targets = ManyLabels(members)
    nothing = np.full_like(said, np.nan)
    assert choose_weight(said, nothing, targets) == 0.5


def predictions_of(said, folds):
    """Predictions that say the same of an image wherever it is heard."""
    return Predictions(
        averaged=said[None],
        view_0=said[None],
        inner=tuple(Inner(fold.train, said[fold.train]) for fold in folds),
    )


@pytest.fixture
def folds():
    _, members = draw_said(90)
    return make_folds(ManyLabels(members), None, n_folds=3)


def test_each_fold_is_fused_by_its_own_weight_and_images_without_cells_speak_alone(folds):
    image, cells = (draw_said(90, seed=seed)[0] for seed in (0, 1))
    cells[[4, 40]] = np.nan
    found = fuse_at(predictions_of(image, folds), predictions_of(cells, folds), folds, [0.2, 0.5, 1.0])
    for place, image_place in itertools.product(range(3), range(90)):
        if image_place in folds[place].held_out:
            weight = (0.2, 0.5, 1.0)[place]
            alone = image_place in {4, 40}
            expected = image[image_place] if alone else weight * cells[image_place] + (1 - weight) * image[image_place]
            np.testing.assert_allclose(found.averaged[0, image_place], expected)
            np.testing.assert_allclose(found.view_0[0, image_place], expected)


def test_inside_a_fold_those_count_of_which_both_have_spoken_or_that_have_no_cells(folds):
    image, cells = (draw_said(90, seed=seed)[0] for seed in (0, 1))
    cells[[4, 40]] = np.nan
    both = predictions_of(image, folds), predictions_of(cells, folds)
    heard = tuple(Inner(each.images[::2], each.probabilities[::2]) for each in both[1].inner)
    few = dataclasses.replace(both[1], inner=heard)
    for fold, inner, own in zip(folds, fuse_at(both[0], few, folds, [0.5] * 3).inner, heard, strict=True):
        expected = sorted({*own.images.tolist(), *(place for place in (4, 40) if place in fold.train)})
        assert inner.images.tolist() == expected


def test_pooled_predictions_are_those_of_the_cells_that_were_heard():
    rng = np.random.default_rng(3)
    parents = np.array([0, 0, 1, 3, 3, 3])
    said = rng.uniform(size=(6, 3))
    cells = Predictions(
        averaged=said[None], view_0=said[None], inner=(Inner(np.array([0, 1, 3, 4, 5]), said[[0, 1, 3, 4, 5]]),)
    )
    found = pool_predictions(cells, parents, 4, "mean", many=True)
    np.testing.assert_allclose(found.averaged[0, 3], said[3:].mean(axis=0))
    assert np.isnan(found.averaged[0, 2]).all()
    assert found.inner[0].images.tolist() == [0, 3]
    np.testing.assert_allclose(found.inner[0].probabilities[0], said[:2].mean(axis=0))


def test_the_weight_of_a_fold_does_not_know_its_held_out_images(folds):
    """Their labels are turned round, and what is said of them is made up: the fold's weight stays, and others move."""
    said, members = draw_said(90)
    noise = np.random.default_rng(5).uniform(0.3, 0.6, said.shape)
    before = fuse(predictions_of(noise, folds), predictions_of(said, folds), folds, ManyLabels(members))
    held_out = folds[0].held_out
    turned, made_up = members.copy(), said.copy()
    turned[held_out] = ~turned[held_out]
    made_up[held_out] = 1 - made_up[held_out]
    made_up[held_out] **= 4
    cells = dataclasses.replace(predictions_of(said, folds), averaged=made_up[None])
    after = fuse(predictions_of(noise, folds), cells, folds, ManyLabels(turned))
    assert after.in_folds[0] == before.in_folds[0] >= 0.7
    assert after.in_folds[1:] != before.in_folds[1:]


@pytest.mark.parametrize("many", [False, True])
def test_a_weight_chosen_by_held_out_images_would_have_flattered(many):
    """Labels by lot: whatever looks better than chance was leaked."""
    rng = np.random.default_rng(11)
    members = rng.uniform(size=(90, 3)) < 0.3 if many else np.eye(3, dtype=bool)[rng.integers(0, 3, 90)]
    targets = ManyLabels(members) if many else OneLabel(members.argmax(axis=1), 3)
    folds = make_folds(targets, None, n_folds=9)
    sides = [rng.dirichlet([1.0] * 3, 90) for _ in "12"]
    honest = [predictions_of(side, folds) for side in sides]
    leaky = [
        dataclasses.replace(each, inner=tuple(Inner(fold.held_out, each.averaged[0, fold.held_out]) for fold in folds))
        for each in honest
    ]

    def loss(predictions):
        return np.mean([calibrated_loss(predictions.averaged[0, f.held_out], targets.take(f.held_out)) for f in folds])

    found, leaked = (fuse(*each, folds, targets) for each in (honest, leaky))
    assert loss(leaked.predictions) < loss(found.predictions) - 1e-3
    assert leaked.in_folds != found.in_folds
    chance = calibrated_loss(np.tile(members.mean(axis=0), (90, 1)), targets)
    assert calibrated_loss(found.predictions.averaged[0], targets) > chance - 0.02
