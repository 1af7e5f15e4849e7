"""Thresholds are the best there are for the images given, and for rare classes they are not taken at their word."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as theirs

from features_cache.errors import LabelError, OptionError, RunError
from heads.metrics.bootstrap import interval, resampled_weights
from heads.metrics.ranking import rank
from heads.thresholds import N_SHRINK, SCAN, Thresholds, apply_thresholds, choose_common, choose_each


def drawn(n_images=400, seed=0, coarse=False):
    """Images of four classes, from common to rare, and probabilities that say something; on a coarse grid, many are equal."""
    rng = np.random.default_rng(seed)
    share = np.array([0.5, 0.2, 0.1, 0.03])
    members = rng.random((n_images, 4)) < share
    probabilities = expit(logit(share) - 1 + 2 * members + rng.normal(size=members.shape))
    return members, np.round(probabilities, 1) if coarse else probabilities


def f1_of(member, called):
    return 2 * (member & called).sum() / max(member.sum() + called.sum(), 1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n_images=st.integers(2, 40), coarse=st.booleans())
def test_no_threshold_at_all_has_a_higher_f1_than_the_chosen_one(seed, n_images, coarse):
    members, probabilities = drawn(n_images, seed, coarse)
    chosen = choose_each(members, probabilities, n_shrink=0, n_resamples=1)
    for column in range(4):
        member, probability = members[:, column], probabilities[:, column]
        ours = f1_of(member, probability >= chosen.values[column])
        cuts = np.concatenate([[0.0, 1.1], probability, probability + 1e-9])
        if member.any():
            assert ours == pytest.approx(max(f1_of(member, probability >= cut) for cut in cuts))
        else:
            assert chosen.values[column] == chosen.common


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), n_images=st.integers(2, 60))
def test_the_common_threshold_has_the_highest_macro_f1_of_those_scanned(seed, n_images):
    members, probabilities = drawn(n_images, seed)

    def macro_f1(threshold):
        # Classes without an image and without a call are left out.
        f1 = theirs.f1_score(members, probabilities >= threshold, average="macro", zero_division=np.nan)
        return 0.0 if np.isnan(f1) else f1

    chosen = choose_common(members, probabilities, n_resamples=1)
    assert chosen.common in SCAN
    assert chosen.values.tolist() == [chosen.common] * 4
    assert macro_f1(chosen.common) == pytest.approx(max(macro_f1(threshold) for threshold in SCAN))


def test_of_equally_good_common_thresholds_the_middle_one_is_taken():
    members = np.array([[True], [True], [False]])
    assert choose_common(members, np.array([[0.9], [0.8], [0.1]]), n_resamples=1).common == pytest.approx(0.46)


def test_a_cut_lies_midway_between_its_neighbours_also_where_they_are_next_to_each_other():
    member = np.array([[True], [True], [False]])
    plain = choose_each(member, np.array([[0.9], [0.6], [0.2]]), n_shrink=0, n_resamples=1)
    assert plain.values[0] == pytest.approx(0.4)
    for kind in (np.float32, np.float64):
        above = kind(0.3)
        tight = np.array([[0.9], [above], [np.nextafter(above, kind(0))]], dtype=kind)
        values = choose_each(member, tight, n_shrink=0, n_resamples=1).values
        assert apply_thresholds(tight, values, at_least_one=False)[:, 0].tolist() == [True, True, False]


def test_classes_of_no_image_of_all_images_and_of_equal_probabilities_have_thresholds():
    members = np.array([[False, True, True], [False, True, False]] * 20)
    probabilities = np.column_stack([np.linspace(0.1, 0.9, 40), np.linspace(0.2, 0.4, 40), np.full(40, 0.7)])
    for n_shrink in (0, N_SHRINK):
        chosen = choose_each(members, probabilities, n_shrink=n_shrink, n_resamples=20)
        assert chosen.values[0] == chosen.common
        assert apply_thresholds(probabilities, chosen.values, at_least_one=False)[:, 1:].all()
    nothing = choose_each(members, np.zeros((40, 3)), n_shrink=0, n_resamples=20)
    assert nothing.values[1:].tolist() == [0, 0]


def test_shrinking_is_a_weighted_mean_of_logits():
    members, probabilities = drawn()
    own, chosen = (choose_each(members, probabilities, n_shrink=n, n_resamples=1) for n in (0, 20))
    share = members.sum(axis=0) / (members.sum(axis=0) + 20)
    expected = share * logit(own.values) + (1 - share) * logit(own.common)
    np.testing.assert_allclose(logit(chosen.values), expected, rtol=1e-6)
    far = choose_each(members, probabilities, n_shrink=1e12, n_resamples=1)
    np.testing.assert_allclose(far.values, far.common)


def test_shrinking_helps_rare_classes_out_of_sample_and_costs_common_ones_nothing():
    """Gaussian scores, so that F1 among infinitely many unseen images is known from the threshold."""
    n_images, counts = 4000, np.array([10, 10, 20, 20, 50, 2000])
    share, gain = counts / n_images, np.zeros(6)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        apart, loud, off = rng.uniform(1.5, 3.5, 6), np.exp(0.2 * rng.normal(size=6)), 0.5 * rng.normal(size=6)
        members = rng.random((n_images, 6)) < share
        scores = rng.normal(size=members.shape) + apart * members
        probabilities = expit(loud * (apart * scores - apart**2 / 2 + logit(share)) + off)
        for n_shrink, sign in ((0, -1), (N_SHRINK, 1)):
            chosen = choose_each(members, probabilities, n_shrink=n_shrink, n_resamples=1)
            cut = ((logit(chosen.values) - off) / loud - logit(share) + apart**2 / 2) / apart
            hits, false = share * norm.sf(cut - apart), (1 - share) * norm.sf(cut)
            gain += sign * 2 * hits / (share + hits + false) / 40
    assert gain[:2].mean() > 0.003
    assert gain[2:4].mean() > 0.001
    assert gain[4:].min() > -0.0005


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_images=st.integers(1, 30), coarse=st.booleans())
def test_weighted_counts_above_a_cut_are_those_of_images_written_out(seed, n_images, coarse):
    rng = np.random.default_rng(seed)
    member, probability = (array[:, 0] for array in drawn(n_images, seed, coarse))
    ranking = rank(member, probability)
    thresholds = np.concatenate([ranking.thresholds(), [0.0, 0.35, 1.0]])
    weights = rng.integers(0, 3, (4, n_images))
    hits, called = ranking.counts(weights, ranking.ranks(thresholds))
    for row, weight in enumerate(weights):
        copies = np.repeat(np.arange(n_images), weight)
        for column, threshold in enumerate(thresholds):
            above = probability[copies] >= threshold
            assert called[row, column] == above.sum()
            assert hits[row, column] == (above & member[copies]).sum()
    np.testing.assert_array_equal(ranking.ranks(ranking.thresholds()), ranking.cuts)


def test_intervals_are_those_of_thresholds_chosen_anew_from_the_drawn_images():
    members, probabilities = drawn(200)
    groups = np.arange(200) // 2
    chosen = choose_each(members, probabilities, groups, n_resamples=60, seed=5)
    slow = []
    for weights in resampled_weights(200, groups, n_resamples=60, seed=5):
        for weight in weights:
            copies = np.repeat(np.arange(200), weight)
            slow.append(choose_each(members[copies], probabilities[copies], n_resamples=1).values)
    # An image that was not drawn is still a neighbour of a cut: its place is a little more to one side.
    np.testing.assert_allclose(interval(np.array(slow)), (chosen.low, chosen.high), atol=0.03)
    assert (chosen.low < chosen.high).all()


def test_intervals_narrow_as_images_grow_many_and_widen_where_images_of_a_group_are_alike():
    members, probabilities = drawn(500)
    copies = np.repeat(np.arange(500), 6)
    few, many = choose_each(members, probabilities), choose_each(*drawn(20_000))
    assert (many.high - many.low < few.high - few.low).all()
    singly = choose_each(members[copies], probabilities[copies])
    together = choose_each(members[copies], probabilities[copies], copies)
    assert np.mean(together.high - together.low) > 1.3 * np.mean(singly.high - singly.low)


def test_28_classes_of_31_072_images_take_seconds():
    rng = np.random.default_rng(0)
    share = np.geomspace(0.4, 0.0004, 28)
    members = rng.random((31_072, 28)) < share
    probabilities = expit(logit(share) + members + rng.normal(size=members.shape)).astype(np.float32)
    began = time.perf_counter()
    choose_each(members, probabilities)
    # 2.4 s was measured on one core; ten are promised.
    assert time.perf_counter() - began < 10


def test_an_image_that_reaches_no_threshold_is_called_of_the_class_nearest_to_its_own():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.19], [0.1, 0.15], [0.0, 0.0]])
    thresholds = np.array([0.5, 0.2])
    empty = apply_thresholds(probabilities, thresholds, at_least_one=False)
    assert empty.tolist() == [[True, False], [False, False], [False, False], [False, False]]
    filled = apply_thresholds(probabilities, thresholds, at_least_one=True)
    assert filled.tolist() == [[True, False], [False, True], [False, True], [False, True]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3))
def test_a_shift_of_a_classs_logits_changes_no_call_if_its_threshold_is_shifted_too(seed, shift):
    rng = np.random.default_rng(seed)
    scores, cuts = rng.normal(size=(40, 3)), rng.normal(size=3) + 1
    shifts = np.array([shift, 0.0, -shift / 2])
    plain = apply_thresholds(expit(scores), expit(cuts), at_least_one=True)
    shifted = apply_thresholds(expit(scores + shifts), expit(cuts + shifts), at_least_one=True)
    np.testing.assert_array_equal(plain, shifted)
    assert plain.any(axis=1).all()


def test_an_image_may_have_thresholds_of_its_own():
    _, probabilities = drawn(50)
    thresholds = np.where(np.arange(50)[:, None] < 20, 0.2, [0.5, 0.4, 0.3, 0.1])
    called = apply_thresholds(probabilities, thresholds, at_least_one=True)
    first = apply_thresholds(probabilities[:20], np.full(4, 0.2), at_least_one=True)
    last = apply_thresholds(probabilities[20:], thresholds[20], at_least_one=True)
    np.testing.assert_array_equal(called, np.concatenate([first, last]))


@pytest.mark.parametrize("chosen", [Thresholds.constant(0.15, 3), choose_each(*drawn(60), n_resamples=9)])
def test_thresholds_come_back_from_json_to_the_last_bit(chosen):
    again = Thresholds.from_json(json.loads(json.dumps(chosen.to_json())))
    assert again.to_json() == chosen.to_json()
    np.testing.assert_array_equal(again.values, chosen.values)


def test_what_is_no_threshold_or_no_probability_is_an_error():
    members, probabilities = drawn(10)
    with pytest.raises(OptionError, match=r"a threshold of 15; expected a probability, 0 to 1"):
        Thresholds.constant(15, 3)
    with pytest.raises(OptionError, match=r"n_shrink -1; expected at least 0"):
        choose_each(members, probabilities, n_shrink=-1)
    with pytest.raises(LabelError, match=r"shape \(10, 4\) and probabilities of shape \(9, 4\); expected the same"):
        choose_each(members, probabilities[:9])
    for wrong in (np.nan, 1.5):
        spoiled = probabilities.copy()
        spoiled[3, 2] = wrong
        for used in (choose_common, choose_each, lambda _, given: apply_thresholds(given, SCAN[:4], at_least_one=True)):
            with pytest.raises(LabelError, match=rf"probability {wrong} of image 3 and class 2; expected 0 to 1"):
                used(members, spoiled)
    whole = choose_common(members, probabilities, n_resamples=1).to_json()
    for name, wrong in (("kind", "best"), ("values", [0.5]), ("low", [2.0] * 4), ("common", "high"), ("high", None)):
        with pytest.raises(RunError, match=r"expected .*Fit the heads anew"):
            Thresholds.from_json(whole | {name: wrong})
