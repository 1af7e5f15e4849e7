"""The linear head behind dropout, and the neighbours' votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from features_cache.errors import OptionError
from heads.estimators import neighbours
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS, make_head
from heads.estimators.dropout_linear import DropoutLinearHead
from heads.estimators.neighbours import NeighboursHead
from heads.estimators.whiten import Whitening
from heads.feature_rows import FeatureRows
from heads.problem import TrainingData
from heads.targets import ManyLabels, OneLabel
from tests.heads_data import draw_features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images():
    labels = np.arange(90) % 3
    X = draw_features(labels, n_views=2, n_columns=12, spread=2.0)
    return X, labels, np.random.default_rng(3).uniform(0.2, 3, size=90)


def problem_of(X, targets, weights, **changes):
    return TrainingData(rows=FeatureRows(X, 0.5), targets=targets, weights=weights, **changes).problem()


def cosines_by_hand(problem, rows):
    whitening = Whitening.fit(problem.moments_of(problem.whole), 0.25, torch.float32)
    kept, asked = (
        whitening.apply(torch.from_numpy(each).float().sqrt(), torch.float32).numpy()
        for each in (np.square(np.sqrt(problem.X).mean(axis=1)), rows)
    )
    kept, asked = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (kept, asked))
    return asked @ kept.T


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_neighbours_vote_by_weight_and_angle_and_one_vote_more_is_shared_out(images, k):
    X, labels, weights = images
    X = np.abs(X)
    problem = problem_of(X, OneLabel(labels, 3), weights)
    problem.X = X
    asked = X[:5, 0] + 0.3
    ((fit,),) = NeighboursHead(closeness=0.1).fit_sets(problem, [problem.whole], [k])
    weights = weights / weights.mean()
    for cosines, found in zip(cosines_by_hand(problem, asked), fit.head.predict_proba(asked), strict=True):
        near = np.argsort(-cosines)[:k]
        strength = weights[near] * np.exp((cosines[near] - cosines.max()) / 0.1)
        votes = np.bincount(labels[near], strength, 3) + np.bincount(labels, weights, 3) / 90
        np.testing.assert_allclose(found, votes / votes.sum(), atol=2e-3)


def test_of_many_labels_members_vote_for_a_class_and_the_others_against_it(images):
    X, labels, weights = images
    X = np.abs(X)
    members = np.stack([labels == 0, labels != 1], axis=1)
    positive = np.array([4.0, 0.5])
    problem = problem_of(X, ManyLabels(members), weights, positive_weights=positive)
    problem.X = X
    asked = X[:5, 0] + 0.3
    ((fit,),) = NeighboursHead(closeness=0.1).fit_sets(problem, [problem.whole], [9])
    weights = (weights / weights.mean())[:, None]
    given, against = weights * members * positive, weights * ~members
    for cosines, found in zip(cosines_by_hand(problem, asked), fit.head.predict_proba(asked), strict=True):
        near = np.argsort(-cosines)[:9]
        strength = np.exp((cosines[near] - cosines.max()) / 0.1)
        for_it, against_it = (strength @ each[near] + each.mean(axis=0) for each in (given, against))
        np.testing.assert_allclose(found, for_it / (for_it + against_it), atol=2e-3)


def test_all_k_of_one_pass_are_those_of_heads_alone_whatever_the_block(images, monkeypatch):
    X, labels, weights = images
    problem = problem_of(X, OneLabel(labels, 3), weights)
    (fits,) = NeighboursHead().fit_sets(problem, [problem.whole], [30, 5, 1])
    rows = next(problem.rows.chunks())[1]
    together = NeighboursHead.outputs_of([fit.head for fit in fits], rows)
    monkeypatch.setattr(neighbours, "PAIRS", 90 * 7)
    for fit, said in zip(fits, together, strict=True):
        ((alone,),) = NeighboursHead().fit_sets(problem, [problem.whole], [fit.candidate])
        np.testing.assert_allclose(alone.head.outputs(rows), said, atol=1e-5)


def test_never_all_rows_with_all_images_are_in_memory(images, monkeypatch):
    X, labels, weights = images
    problem = problem_of(X, OneLabel(labels, 3), weights)
    ((fit,),) = NeighboursHead().fit_sets(problem, [problem.whole], [5])
    monkeypatch.setattr(neighbours, "PAIRS", 1000)
    seen = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda pairs, *k, **by: seen.append(pairs.numel()) or topk(pairs, *k, **by)
    )
    fit.head.predict_proba(X[:, 0])
    assert max(seen) <= 1000
    assert sum(seen) == 90 * 90


def test_a_linear_head_shown_on_its_way_is_the_head_fitted_that_far_to_the_last_bit(images):
    X, labels, _ = images
    problem = problem_of(X[:, :1], OneLabel(labels, 3), np.ones(90))
    for ((_, epoch, head),) in DropoutLinearHead().fit_sets(problem, [problem.whole], [2, 5]):
        alone = DropoutLinearHead(epochs=epoch).fit(X[:, 0], labels)
        assert len(head.training_loss_) == epoch
        np.testing.assert_array_equal(head.predict_proba(X[:, 0]), alone.predict_proba(X[:, 0]))


def test_dropout_keeps_the_linear_head_from_learning_by_heart(images):
    _, labels, _ = images
    noise = draw_features(np.zeros(90, dtype=int), n_views=1, n_columns=200)[:, 0]
    settings = {"learning_rate": 3e-2, "epochs": 20}
    plain, dropped = (DropoutLinearHead(dropout=share, **settings).fit(noise, labels) for share in (0.0, 0.8))
    assert plain.training_loss_[-1] < 0.1 < dropped.training_loss_[-1]
    assert plain.predict_proba(noise).max(axis=1).mean() > dropped.predict_proba(noise).max(axis=1).mean()


def test_the_linear_head_learns_from_weights_of_classes_and_members(images):
    X, labels, _ = images
    heavy = DropoutLinearHead(learning_rate=1e-2).fit(X[:, 0], labels, np.where(labels == 2, 20.0, 1.0))
    light = DropoutLinearHead(learning_rate=1e-2).fit(X[:, 0], labels)
    assert heavy.predict_proba(X[:, 0])[:, 2].mean() > 0.1 + light.predict_proba(X[:, 0])[:, 2].mean()


def test_the_heads_fitted_by_default_are_known_and_not_all_there_are():
    assert set(DEFAULT_HEADS) < set(HEADS)
    assert DEFAULT_HEADS == ("ridge", "logistic", "mlp")


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("knn", {"k": 0}, "k is 0; expected a whole number at least 1"),
        ("knn", {"k": 2.5}, "k is 2.5; expected a whole number"),
        ("knn", {"closeness": -1.0}, "closeness is -1.0; expected a number above 0"),
        ("knn", {"shrinkage": 2.0}, "shrinkage is 2.0; expected a number above 0, at most 1"),
        ("linear", {"dropout": 1.0}, "dropout is 1.0; expected a number at least 0, below 1"),
        ("mlp", {"learning_rate": float("nan")}, "learning_rate is nan; expected a number above 0"),
        ("ridge", {"alpha": True}, "alpha is True; expected a number above 0"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused_with_the_range(images, name, settings, match):
    X, labels, _ = images
    with pytest.raises(OptionError, match=match):
        make_head(name, **settings).fit(X[:, 0], labels)
