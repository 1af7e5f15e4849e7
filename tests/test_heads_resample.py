"""Rare classes are copied up to the median and common ones thinned down to it, as far as images of several classes allow."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features_cache.errors import LabelError, OptionError
from heads.resample import copies, imbalance_ratios, imbalance_report
from tests.many_labels_data import draw_members, hpa2018

KINDS = ("over", "under", "both")


def target_of(members):
    counts = members.sum(axis=0)
    return int(np.ceil(np.median(counts[counts > 0])))


def some(seed, n_images=200, n_classes=7):
    """Images of several classes; the first is of the commonest, so that there is one."""
    members = draw_members(n_images, n_classes, seed)
    members[0, 0] = True
    return members


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), most_copies=st.integers(1, 12))
def test_every_class_reaches_the_target_or_all_its_images_have_the_most_copies(seed, most_copies):
    members = some(seed)
    found = copies(members, kind="over", most_copies=most_copies, seed=seed)
    assert found.dtype == np.int64
    assert found.min() == 1 and found.max() <= most_copies
    for column in range(members.shape[1]):
        here = found[members[:, column]]
        assert here.sum() >= target_of(members) or (here == most_copies).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_image_is_copied_only_if_it_is_of_a_class_below_the_target_and_no_more_than_that_class_needs(seed):
    members = some(seed)
    counts, target = members.sum(axis=0), target_of(members)
    found = copies(members, kind="over", seed=seed)
    for image in np.flatnonzero(found > 1):
        rarest = counts[members[image]].min()
        assert rarest < target
        assert found[image] <= np.ceil(target / rarest)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), least_share=st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]))
def test_only_images_of_one_common_class_are_left_out_and_no_class_falls_below_target_or_share(seed, least_share):
    members = some(seed)
    counts, target = members.sum(axis=0), target_of(members)
    found = copies(members, kind="under", least_share=least_share, seed=seed)
    assert set(found.tolist()) <= {0, 1}
    left_out = members[found == 0]
    assert (left_out.sum(axis=1) == 1).all()
    assert (counts[left_out.any(axis=0)] > target).all()
    kept = members[found == 1].sum(axis=0)
    assert (kept >= np.minimum(counts, np.maximum(target, least_share * counts - 1e-9))).all()
    # And none stays that could go.
    alone = (members[found == 1].sum(axis=1) == 1)[:, None] & members[found == 1]
    for column in np.flatnonzero(counts > target):
        assert kept[column] <= max(target, np.ceil(least_share * counts[column])) or not alone[:, column].any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_both_is_over_with_images_left_out_and_no_class_falls_below_the_target_by_it(seed):
    members = some(seed)
    over, both = (copies(members, kind=kind, seed=seed) for kind in ("over", "both"))
    np.testing.assert_array_equal(both[both > 0], over[both > 0])
    assert (over[both == 0] == 1).all()
    reached = np.minimum(over @ members, target_of(members))
    assert (both @ members >= reached).all()


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=120), seed=st.integers(0, 100))
def test_with_one_label_an_image_classes_come_as_near_the_target_as_the_limits_let_them(labels, seed):
    members = np.eye(6, dtype=bool)[labels]
    counts, target = members.sum(axis=0), target_of(members)
    expected = {
        "over": np.maximum(counts, np.minimum(target, 10 * counts)),
        "under": np.minimum(counts, np.maximum(target, np.ceil(0.25 * counts))),
    }
    expected["both"] = np.where(counts < target, expected["over"], expected["under"])
    for kind in KINDS:
        assert (copies(members, kind=kind, seed=seed) @ members).tolist() == expected[kind].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_in_another_order_like_images_are_taken_and_their_numbers_stay(kind):
    members = np.eye(3, dtype=bool)[np.repeat(np.arange(3), [40, 13, 4])]
    order = np.random.default_rng(0).permutation(len(members))
    plain, moved = copies(members, kind=kind, seed=0), copies(members[order], kind=kind, seed=0)
    for column in range(3):
        assert sorted(plain[members[:, column]]) == sorted(moved[members[order][:, column]])


def test_the_seed_decides_and_copies_are_the_same_on_every_machine():
    members = np.arange(20)[:, None] % np.array([3, 2, 5, 7]) == 0
    # Written down once: another list here means that old runs cannot be repeated.
    assert copies(members, kind="over", seed=0).tolist() == [2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
    assert copies(members, kind="both", seed=1).tolist() == [2, 1, 0, 0, 0, 2, 1, 2, 0, 0, 1, 1, 1, 1, 2, 1, 0, 1, 1, 1]


def test_real_labels_of_28_classes_are_less_uneven_afterwards(real_data):
    members = hpa2018(real_data)
    counts, target = members.sum(axis=0), target_of(members)
    found = {kind: copies(members, kind=kind, seed=0) for kind in KINDS}
    reports = {kind: imbalance_report(members, each) for kind, each in found.items()}
    assert reports["over"]["before"]["mean_ratio"] == pytest.approx(113.6, abs=0.1)
    assert (found["over"] @ members >= np.minimum(target, 10 * counts)).all()
    assert reports["over"]["after"]["mean_ratio"] < 20
    assert reports["under"]["after"]["mean_ratio"] < 100
    assert reports["both"]["after"]["mean_ratio"] < reports["over"]["after"]["mean_ratio"]
    assert (members[found["both"] > 0].sum(axis=0) >= 0.25 * counts).all()
    # Copying eleven images ten times makes the data set a sixth longer, not ten times.
    assert found["over"].sum() < 1.2 * len(members)


def test_imbalance_is_that_of_charte_and_others():
    members = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(imbalance_ratios(members), [1, 2, np.nan])
    np.testing.assert_array_equal(imbalance_ratios(members, np.array([2, 0, 0, 1])), [1, 1, np.nan])
    report = imbalance_report(members, np.array([2, 0, 0, 1]))
    assert report == {
        "n_left_out": 2,
        "n_copied": 1,
        "before": {"n_rows": 4, "n_of_class": [4, 2, 0], "mean_ratio": 1.5, "largest_ratio": 2.0},
        "after": {"n_rows": 3, "n_of_class": [3, 3, 0], "mean_ratio": 1.0, "largest_ratio": 1.0},
    }
    assert json.loads(json.dumps(report)) == report
    assert imbalance_report(np.zeros((2, 1), dtype=bool), np.ones(2, dtype=np.int64))["after"]["mean_ratio"] is None


def test_what_cannot_be_resampled_is_an_error():
    members = some(0)
    with pytest.raises(
        OptionError, match=r"resampling 'ovr'; expected one of over, under, both; did you mean 'over'\?"
    ):
        copies(members, kind="ovr", seed=0)
    with pytest.raises(OptionError, match=r"most_copies 0, least_share 0.25; expected at least 1, and 0 to 1"):
        copies(members, kind="over", most_copies=0, seed=0)
    with pytest.raises(OptionError, match=r"least_share 25; expected"):
        copies(members, kind="under", least_share=25, seed=0)
    with pytest.raises(LabelError, match=r"none of 9 images is of any class"):
        copies(np.zeros((9, 2), dtype=bool), kind="over", seed=0)
