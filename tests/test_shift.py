"""A classifier tells test images from training images where they differ, and does not where they do not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from heads.leaks.shift import Shift, train_test_shift, weighted_auc

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(n_images, shift=0.0, seed=0, n_columns=12):
    return (5 + shift + np.random.default_rng(seed).normal(size=(n_images, n_columns))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), n_images=st.integers(2, 50), n_steps=st.integers(1, 20))
def test_the_area_is_scikit_learns_also_with_ties_and_weights(seed, n_images, n_steps):
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(n_images) % 2)
    scores = rng.integers(0, n_steps, n_images).astype(np.float64)
    weights = rng.integers(1, 4, (3, n_images))
    expected = [roc_auc_score(member, scores, sample_weight=each) for each in weights]
    np.testing.assert_allclose(weighted_auc(scores, member, weights), expected)


def test_an_area_of_one_side_only_is_not_a_number():
    assert np.isnan(weighted_auc(np.arange(3.0), np.array([0, 1, 1]), np.array([[1, 0, 0]]))).all()


def test_images_drawn_alike_cannot_be_told_apart():
    shifts = [train_test_shift(drawn(300, seed=seed), drawn(120, seed=seed + 100)) for seed in range(10)]
    assert all((shift.n_train, shift.n_test) == (300, 120) for shift in shifts)
    assert np.mean([shift.auc for shift in shifts]) == pytest.approx(0.5, abs=0.03)
    holding = [shift for shift in shifts if shift.low <= 0.5 <= shift.high]
    assert len(holding) >= 8
    assert all("no difference could be shown" in shift.sentence for shift in holding)
    assert all(shift.auc < 0.6 for shift in shifts)


def test_images_that_differ_are_told_apart_and_the_sentence_warns():
    little = train_test_shift(drawn(300), drawn(200, shift=0.15, seed=1))
    much = train_test_shift(drawn(300), drawn(200, shift=1.0, seed=1))
    assert 0.5 < little.auc < much.auc
    assert much.low > 0.9
    assert "expect a test score below the out-of-fold figures" in much.sentence
    assert "consider --group-column" in much.sentence


def test_what_differs_between_groups_alone_is_said_to_be_no_more_than_that():
    rng = np.random.default_rng(0)
    wells = np.repeat(np.arange(20), 20)
    offsets = 1.5 * rng.normal(size=(26, 12))
    train = (drawn(400) + offsets[wells]).astype(np.float32)
    test = (drawn(120, seed=1) + offsets[20 + np.arange(120) % 6]).astype(np.float32)
    alone = train_test_shift(train, test)
    grouped = train_test_shift(train, test, wells)
    assert grouped.auc < alone.auc
    assert grouped.high - grouped.low > alone.high - alone.low
    assert grouped.low > 0.5
    assert "Test groups are other groups, which alone can make the AUC high" in grouped.sentence
    assert "--group-column" not in grouped.sentence


def test_the_seed_decides_and_the_order_of_images_hardly_matters():
    train, test = drawn(200), drawn(100, shift=0.3, seed=1)
    first = train_test_shift(train, test)
    assert first == train_test_shift(train, test)
    turned = train_test_shift(train[::-1], test[np.random.default_rng(0).permutation(100)])
    assert turned.auc == pytest.approx(first.auc, abs=0.04)


def test_of_many_images_some_are_drawn():
    train, test = drawn(500), drawn(400, shift=0.3, seed=1)
    some = train_test_shift(train, test, most=150)
    assert (some.n_train, some.n_test) == (150, 150)
    assert some.auc == pytest.approx(train_test_shift(train, test).auc, abs=0.1)


@pytest.mark.parametrize(("n_train", "n_test", "reason"), [(9, 50, "9 labelled images"), (50, 3, "3 test images")])
def test_too_few_images_are_a_reason_not_a_figure(n_train, n_test, reason):
    told = train_test_shift(drawn(n_train), drawn(n_test))
    assert isinstance(told, str)
    assert reason in told


@pytest.mark.parametrize("groups", [np.zeros(40, np.int64), np.r_[np.zeros(39, np.int64), 1]])
def test_groups_that_cannot_be_divided_are_a_reason_or_still_a_figure(groups):
    told = train_test_shift(drawn(40), drawn(40, seed=1), groups)
    assert isinstance(told, Shift) or "cannot be divided into folds" in told
    assert isinstance(train_test_shift(drawn(40), drawn(40, seed=1), np.zeros(40, np.int64)), str)


def test_constant_columns_and_a_few_images_do_no_harm():
    train, test = drawn(12), drawn(10, seed=1)
    train[:, :3] = test[:, :3] = 0
    shift = train_test_shift(train, test)
    assert 0 <= shift.low <= shift.high <= 1
    json.dumps(dataclasses.asdict(shift), allow_nan=False)
