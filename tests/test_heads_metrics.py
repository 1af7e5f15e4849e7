"""Figures agree with scikit-learn, and intervals with common sense."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs

from heads.class_weights import sample_weights
from heads.metrics.calibration import calibration
from heads.metrics.one_label import bootstrap_intervals, headline, per_class, score
from heads.targets import OneLabel


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n_images=st.integers(3, 60), n_classes=st.integers(2, 6))
def test_headline_figures_are_scikit_learns_also_where_classes_are_absent(seed, n_images, n_classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_images)
    probabilities = rng.dirichlet(np.ones(n_classes), n_images)
    predicted = probabilities.argmax(axis=1)

    ours = headline(labels, probabilities)

    with warnings.catch_warnings():
        # scikit-learn warns of predicted classes without images; so much the better if we agree there.
        warnings.simplefilter("ignore")
        assert ours["balanced_accuracy"] == pytest.approx(theirs.balanced_accuracy_score(labels, predicted))
        assert ours["log_loss"] == pytest.approx(theirs.log_loss(labels, probabilities, labels=range(n_classes)))
    assert ours["accuracy"] == pytest.approx(theirs.accuracy_score(labels, predicted))
    for average in ("macro", "weighted"):
        assert ours[f"{average}_f1"] == pytest.approx(theirs.f1_score(labels, predicted, average=average))


def test_per_class_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    precision, recall, f1, counts = theirs.precision_recall_fscore_support(labels, predicted)
    rows = per_class(labels, predicted, list("abcd"))
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], f1)
    assert [row["n_images"] for row in rows] == counts.tolist()


def drawn(n_images, seed=0, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_images)
    called = np.where(rng.random(n_images) < right, labels, 1 - labels)
    return labels, np.where(called[:, None] == np.arange(2), 0.9, 0.1)


def test_the_accuracy_interval_is_as_wide_as_the_binomial_one():
    labels, probabilities = drawn(400)
    low, high = bootstrap_intervals(labels, [probabilities])["accuracy"]
    value = headline(labels, probabilities)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(value * (1 - value) / 400)
    assert low < value < high
    assert high - low == pytest.approx(expected, rel=0.15)


def test_groups_of_like_images_make_the_interval_wider():
    labels, probabilities = drawn(60)
    copies = np.repeat(np.arange(60), 8)
    singly = bootstrap_intervals(labels[copies], [probabilities[copies]])["accuracy"]
    together = bootstrap_intervals(labels[copies], [probabilities[copies]], copies)["accuracy"]
    alone = bootstrap_intervals(labels, [probabilities])["accuracy"]
    assert np.diff(together)[0] > 2 * np.diff(singly)[0]
    assert np.diff(together)[0] == pytest.approx(np.diff(alone)[0], rel=0.1)


def test_repeats_are_averaged_and_the_seed_decides_the_interval():
    labels, first = drawn(100)
    second = drawn(100, seed=0, right=0.5)[1]
    figures = score(labels, [first, second], ["a", "b"])
    mean = (headline(labels, first)["accuracy"] + headline(labels, second)["accuracy"]) / 2
    assert figures["accuracy"]["value"] == pytest.approx(mean)
    assert figures["accuracy"]["low"] < mean < figures["accuracy"]["high"]
    assert np.sum(figures["confusion"]) == 200
    assert sum(row["n_images"] for row in figures["per_class"]) == 100
    assert figures == score(labels, [first, second], ["a", "b"])


def test_balanced_weights_give_every_class_the_same_total():
    labels = np.array([0] * 7 + [1] * 2 + [2])
    totals = np.bincount(labels, weights=sample_weights(OneLabel(labels, 1 + labels.max()), "balanced"))
    np.testing.assert_allclose(totals, 10 / 3)
    assert sum(totals) == pytest.approx(len(labels))


def test_calibration_of_probabilities_that_are_frequencies_is_perfect_and_of_loud_ones_is_not():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    assert calibration(labels, probabilities)["expected_error"] < 0.02
    loud = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    found = calibration(labels, loud)
    assert found["expected_error"] > 0.1
    assert sum(each["n_images"] for each in found["bins"]) == 20_000
    slow = 0.0
    for low in np.arange(15) / 15:
        here = (loud.max(axis=1) > low) & (loud.max(axis=1) <= low + 1 / 15)
        if here.any():
            slow += here.mean() * abs(
                (loud[here].argmax(axis=1) == labels[here]).mean() - loud[here].max(axis=1).mean()
            )
    assert found["expected_error"] == pytest.approx(slow, abs=1e-6)
