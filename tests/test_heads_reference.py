"""Our heads against scikit-learn in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from features_cache.errors import LabelError, OptionError
from heads.estimators.catalogue import HEADS, make_head
from heads.estimators.logistic import LogisticHead
from heads.estimators.mlp import MLPHead
from heads.estimators.ridge import RidgeHead
from heads.estimators.training import ByteDropout
from heads.estimators.whiten import Whitening
from heads.feature_rows import FeatureRows
from heads.problem import TrainingData
from heads.targets import OneLabel
from tests.heads_data import draw_features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows():
    labels = np.arange(150) % 3
    X = draw_features(labels, n_views=1, n_columns=12, spread=2.0)[:, 0].astype(np.float64)
    weights = np.random.default_rng(3).uniform(0.2, 3, size=150)
    return X, labels, weights


def problem_of(rows, labels, weights, cells=None):
    return TrainingData(rows=rows, targets=OneLabel(labels, 3), weights=weights, counts=weights).problem(cells)


@pytest.mark.parametrize("n_rows", [150, 9])
@pytest.mark.parametrize("alpha", [0.1, 5.0, 30.0])
def test_the_ridge_head_predicts_as_a_standardised_ridge_also_with_more_columns_than_rows(rows, n_rows, alpha):
    X, labels, weights = (array[:n_rows] for array in rows)
    standard = StandardScaler().fit(X, sample_weight=weights).transform(X)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)

    ours = RidgeHead(alpha=alpha, power=1.0).fit(X, labels, weights)

    theirs = Ridge(alpha=alpha).fit(standard, targets, weights)
    np.testing.assert_allclose(ours.decision_function(X), theirs.predict(standard), atol=1e-9)


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_a_path_is_the_heads_fitted_one_by_one_and_sets_fitted_together_those_fitted_alone(name):
    labels = np.arange(150) % 3
    X = draw_features(labels, n_views=2, n_columns=12, spread=2.0).astype(np.float64)
    weights = np.random.default_rng(3).uniform(0.2, 3, size=150)
    cells = np.random.default_rng(4).integers(0, 3, size=150)
    sets = [frozenset({0, 1}), frozenset({2}), frozenset({0, 1, 2})]
    problem = problem_of(FeatureRows(X, 0.5), labels, weights, cells)
    exact = {"tolerance": 1e-13, "max_steps": 2000} if name == "logistic" else {}
    head = make_head(name, **exact)
    candidates = {"ridge": (10.0, 1.0), "logistic": (0.01, 1.0)}[name]
    n_fits = 0
    for fit in (fit for fits in head.fit_sets(problem, sets, candidates) for fit in fits):
        here = np.isin(cells, list(sets[fit.place]))
        alone = make_head(name, **exact, **{head.chosen: fit.candidate})
        alone.fit(X[here].reshape(-1, 12), labels[here].repeat(2), weights[here].repeat(2))
        found, expected = (each.decision_function(X.reshape(-1, 12)) for each in (fit.head, alone))
        np.testing.assert_allclose(found - found.mean(1)[:, None], expected - expected.mean(1)[:, None], atol=1e-4)
        n_fits += 1
    assert n_fits == 6


def test_float32_ridge_decisions_are_within_a_thousandth_of_float64(rows):
    X, labels, weights = rows
    single = RidgeHead(alpha=5.0).fit(X.astype(np.float32), labels, weights)
    double = RidgeHead(alpha=5.0).fit(X, labels, weights)
    np.testing.assert_allclose(single.decision_function(X.astype(np.float32)), double.decision_function(X), atol=1e-3)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("n_rows", [150, 9])
def test_logistic_reaches_the_loss_of_scikit_learn(rows, C, n_rows):
    X, labels, weights = (array[:n_rows] for array in rows)
    standard = StandardScaler().fit(X, sample_weight=weights).transform(X)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(standard, labels, weights)

    ours = LogisticHead(C=C, power=1.0, shrinkage=1.0, tolerance=1e-13, max_steps=2000).fit(X, labels, weights)

    losses = -np.log(theirs.predict_proba(standard)[np.arange(n_rows), labels])
    objective = C * weights @ losses + np.square(theirs.coef_).sum() / 2
    assert ours.objective_ == pytest.approx(objective, rel=1e-7)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(standard), atol=1e-4)


def whitened_by_hand(X, labels, weights, shrinkage):
    """Power, standardise, shrink, whiten in plain numpy, the slow way."""
    drawn_in = np.sign(X) * np.sqrt(np.abs(X))
    standard = StandardScaler().fit(drawn_in, sample_weight=weights).transform(drawn_in)
    centred = standard - np.stack([np.average(standard[labels == each], 0, weights[labels == each]) for each in labels])
    correlation = (centred * weights[:, None]).T @ centred / weights.sum()
    covariance = (1 - shrinkage) * correlation + shrinkage * np.eye(X.shape[1])
    return standard @ np.linalg.inv(np.linalg.cholesky(covariance)).T


@pytest.mark.parametrize("n_rows", [150, 9])
def test_the_default_logistic_head_is_scikit_learns_on_whitened_columns(rows, n_rows):
    X, labels, weights = (array[:n_rows] for array in rows)
    white = whitened_by_hand(X, labels, weights, 0.25)
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(white, labels, weights)

    ours = LogisticHead(C=0.3, tolerance=1e-13, max_steps=2000).fit(X, labels, weights)

    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(white), atol=1e-4)


def test_whitened_columns_are_uncorrelated_within_classes_and_folding_brings_coefficients_back(rows):
    X, labels, weights = rows
    problem = problem_of(FeatureRows(X[:, None], 1.0), labels, weights)
    whitening = Whitening.fit(problem.moments_of(problem.whole), 1e-9, torch.float64)
    plain = torch.from_numpy(X)
    white = whitening.apply(plain, torch.float64)
    centred = white.numpy().copy()
    for each in range(3):
        centred[labels == each] -= np.average(centred[labels == each], 0, weights[labels == each])
    correlation = (centred * weights[:, None]).T @ centred / weights.sum()
    np.testing.assert_allclose(correlation, np.eye(12), atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    coef, intercept = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((12, 3), 3))
    folded, moved = whitening.fold(coef, intercept)
    np.testing.assert_allclose(plain @ folded + moved, white @ coef + intercept, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 1.5])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_a_shrinkage_out_of_range_is_refused(rows, name, shrinkage):
    X, labels, _ = rows
    with pytest.raises(OptionError, match=r"shrinkage is .*; expected a number above 0, at most 1"):
        make_head(name, shrinkage=shrinkage).fit(X, labels)


def test_an_mlp_shown_on_its_way_is_the_mlp_fitted_that_far_to_the_last_bit(rows):
    X, labels, weights = rows
    problem = problem_of(FeatureRows(X[:, None], 0.5), labels, weights)
    for ((_, epoch, head),) in MLPHead(width=8).fit_sets(problem, [problem.whole], [2, 5]):
        torch.rand(3)  # a caller that draws numbers in between changes nothing
        alone = MLPHead(width=8, epochs=epoch).fit(X, labels, weights)
        assert len(head.training_loss_) == epoch
        np.testing.assert_array_equal(head.predict_proba(X), alone.predict_proba(X))


def test_the_mlp_without_whitening_differs_but_both_learn(rows):
    X, labels, _ = rows
    plain, white = (MLPHead(batch_rows=8, shrinkage=shrinkage).fit(X, labels) for shrinkage in (1.0, 0.25))
    assert not np.allclose(plain.predict_proba(X), white.predict_proba(X), atol=1e-3)
    for head in (plain, white):
        assert np.mean(head.predict(X) == labels) > 0.6


def test_logistic_with_its_default_tolerance_in_float32_is_within_a_thousandth_of_the_least_loss(rows):
    X, labels, weights = rows
    rough = LogisticHead(C=0.1).fit(X.astype(np.float32), labels, weights)
    exact = LogisticHead(C=0.1, tolerance=1e-13, max_steps=2000).fit(X, labels, weights)
    assert rough.objective_ == pytest.approx(exact.objective_, rel=1e-3)


def test_moments_of_cells_add_up_to_means_deviations_and_correlations():
    labels = np.arange(60) % 3
    X = draw_features(labels, n_views=2)
    X[:, :, 2] = 1e4 / 3
    X[30:, :, 3] = 7.0  # constant in one cell, and not in the other
    weights = np.random.default_rng(0).uniform(0.1, 2, 60)
    problem = problem_of(FeatureRows(X, 1.0), labels, weights, np.arange(60) // 30)
    for cells in ([0], [1], [0, 1]):
        here = problem.images_of(cells)
        wide, repeated = X[here].reshape(-1, 10).astype(np.float64), weights[here].repeat(2)
        moments = problem.moments_of(cells)
        mean = np.average(wide, axis=0, weights=repeated)
        deviation = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=repeated))
        constant = [2, 3] if cells == [1] else [2]
        inverse_scale = moments.inverse_scale()
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
        assert np.flatnonzero(inverse_scale == 0).tolist() == constant
        kept = np.delete(np.arange(10), constant)
        np.testing.assert_allclose(inverse_scale[kept], 1 / deviation[kept], rtol=1e-4)
        expected = (wide * repeated[:, None]).T @ wide / repeated.sum() - np.outer(mean, mean)
        expected = expected[np.ix_(kept, kept)] / np.outer(deviation[kept], deviation[kept])
        np.testing.assert_allclose(moments.correlation(inverse_scale).numpy()[np.ix_(kept, kept)], expected, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_a_column_that_was_constant_in_training_never_counts(rows, name):
    X, labels, _ = rows
    X = X.copy()
    X[:, 4] = 3.0
    head = make_head(name).fit(X, labels)
    moved = X.copy()
    moved[:, 4] = 1e6
    np.testing.assert_allclose(head.predict_proba(moved), head.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_a_scikit_learn_classifier_that_stores_only_until_fit(rows, name):
    X, labels, weights = rows
    names = np.array(["a", "b", "c"])[labels]
    head = make_head(name, temperature=0.7)
    assert vars(head) == head.get_params()

    copy = clone(head).fit(X, names, sample_weight=weights)

    probabilities = copy.predict_proba(X)
    assert copy.classes_.tolist() == ["a", "b", "c"]
    assert copy.n_features_in_ == 12
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(copy.predict(X), copy.classes_[probabilities.argmax(axis=1)])
    assert np.mean(copy.predict(X) == names) > 0.5
    assert not hasattr(head, "classes_")
    with pytest.raises(ValueError, match=r"X has 5 features, but .*Head is expecting 12 features"):
        copy.predict(X[:, :5])


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_an_image_of_weight_2_counts_as_two_images(rows, name):
    X, labels, _ = rows
    weights = np.where(np.arange(150) < 40, 2.0, 1.0)
    exact = {"tolerance": 1e-13, "max_steps": 2000} if name == "logistic" else {}
    twice = np.concatenate([np.arange(150), np.arange(40)])
    weighted = make_head(name, **exact).fit(X, labels, weights)
    doubled = make_head(name, **exact).fit(X[twice], labels[twice])
    np.testing.assert_allclose(weighted.predict_proba(X), doubled.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_fitting_again_with_the_same_seed_gives_the_same_probabilities_to_the_last_bit(rows, name):
    X, labels, _ = rows
    first, second = (make_head(name).fit(X, labels).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_mlp_head_averages_three_networks_with_one_two_and_three_hidden_layers(rows):
    X, labels, _ = rows
    head = MLPHead(width=8).fit(X, labels)
    assert [len(layers) for layers in head.networks_.later] == [0, 1, 2]

    logits = head.member_scores(X)

    assert logits.shape == (3, 150, 3)
    each = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(head.predict_proba(X), each.mean(axis=0), atol=1e-6)


def test_another_seed_gives_another_network_and_the_callers_random_state_stays(rows):
    X, labels, _ = rows
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (MLPHead(width=8, epochs=1, seed=seed).fit(X, labels).predict_proba(X) for seed in (0, 1))
    assert not np.allclose(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_a_head_refuses_one_class_and_parameters_that_make_no_sense(rows):
    X, labels, _ = rows
    with pytest.raises(LabelError, match="all of one class"):
        RidgeHead().fit(X, np.zeros(150))
    with pytest.raises(OptionError, match="alpha is 0; expected a number above 0"):
        RidgeHead(alpha=0).fit(X, labels)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\); expected \(150,\)"):
        LogisticHead().fit(X, labels, np.ones(3))


def test_an_unknown_head_or_parameter_gets_a_suggestion():
    with pytest.raises(
        OptionError,
        match=r"unknown head 'rigde'; expected one of ridge, logistic, mlp, linear, knn; did you mean 'ridge'\?",
    ):
        make_head("rigde")
    with pytest.raises(OptionError, match=r"head 'ridge' has no parameter 'alhpa'.*did you mean 'alpha'\?"):
        make_head("ridge", alhpa=1)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.999])
def test_dropout_silences_its_share_of_units_and_keeps_their_sum(share):
    dropout = ByteDropout(share)
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400, 1001))
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02 / (1.001 - share))
    torch.testing.assert_close(dropout.eval()(torch.ones(3)), torch.ones(3))
    gradient = torch.ones(400, 10, requires_grad=True)
    out = dropout.train()(gradient)
    out.sum().backward()
    torch.testing.assert_close(gradient.grad, out.detach())
