"""Our heads against scikit-learn in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from features_cache.errors import LabelError, OptionError
from heads.catalogue import HEADS, make_head
from heads.logistic import LogisticHead
from heads.mlp import MLPHead
from heads.ridge import RidgeHead, solve_ridge
from heads.standardise import Standardiser
from heads.whiten import whiten_rows
from tests.heads_data import draw_features


@pytest.fixture(scope="module")
def rows():
    labels = np.arange(150) % 3
    X = draw_features(labels, n_views=1, n_columns=12, spread=2.0)[:, 0].astype(np.float64)
    weights = np.random.default_rng(3).uniform(0.2, 3, size=150)
    return X, labels, weights


@pytest.mark.parametrize("n_rows", [150, 9])
@pytest.mark.parametrize("alpha", [0.1, 30.0])
def test_ridge_solves_what_scikit_learns_ridge_solves_also_with_more_columns_than_rows(rows, n_rows, alpha):
    X, labels, weights = (array[:n_rows] for array in rows)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)

    ((coef, intercept),) = solve_ridge(X, targets, weights, [alpha])

    theirs = Ridge(alpha=alpha).fit(X, targets, weights)
    np.testing.assert_allclose(coef.T, theirs.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(intercept, theirs.intercept_, rtol=1e-7, atol=1e-9)


def test_the_ridge_head_predicts_as_a_standardised_ridge_classifier(rows):
    X, labels, weights = rows
    scaler = StandardScaler().fit(X)

    ours = RidgeHead(alpha=5.0).fit(X, labels, weights)

    theirs = RidgeClassifier(alpha=5.0).fit(scaler.transform(X), labels, weights)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(scaler.transform(X)), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(scaler.transform(X)))


def test_a_path_of_alphas_is_the_heads_fitted_one_by_one(rows):
    X, labels, weights = rows
    path = RidgeHead().fit_path(X, labels, weights, [1.0, 10.0])
    for alpha, head in zip([1.0, 10.0], path, strict=True):
        np.testing.assert_array_equal(head.coef_, RidgeHead(alpha=alpha).fit(X, labels, weights).coef_)


def test_float32_ridge_decisions_are_within_a_thousandth_of_float64(rows):
    X, labels, weights = rows
    single = RidgeHead(alpha=5.0).fit(X.astype(np.float32), labels, weights)
    double = RidgeHead(alpha=5.0).fit(X, labels, weights)
    np.testing.assert_allclose(single.decision_function(X.astype(np.float32)), double.decision_function(X), atol=1e-3)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("n_rows", [150, 9])
def test_logistic_reaches_the_loss_of_scikit_learn(rows, C, n_rows):
    X, labels, weights = (array[:n_rows] for array in rows)
    standard = StandardScaler().fit_transform(X)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(standard, labels, weights)

    ours = LogisticHead(C=C, power=1.0, shrinkage=1.0, tolerance=1e-13, max_steps=2000).fit(X, labels, weights)

    losses = -np.log(theirs.predict_proba(standard)[np.arange(n_rows), labels])
    objective = C * weights @ losses + np.square(theirs.coef_).sum() / 2
    assert ours.objective_ == pytest.approx(objective, rel=1e-7)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(standard), atol=1e-4)


def whitened_by_hand(X, shrinkage):
    """Power, standardise, shrink, whiten in plain numpy, the slow way."""
    standard = StandardScaler().fit_transform(np.sign(X) * np.sqrt(np.abs(X)))
    covariance = (1 - shrinkage) * standard.T @ standard / len(X) + shrinkage * np.eye(X.shape[1])
    return standard @ np.linalg.inv(np.linalg.cholesky(covariance)).T


@pytest.mark.parametrize("n_rows", [150, 9])
def test_the_default_logistic_head_is_scikit_learns_on_whitened_columns(rows, n_rows):
    X, labels, weights = (array[:n_rows] for array in rows)
    white = whitened_by_hand(X, 0.25)
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(white, labels, weights)

    ours = LogisticHead(C=0.3, tolerance=1e-13, max_steps=2000).fit(X, labels, weights)

    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(white), atol=1e-4)


def test_whitened_columns_are_uncorrelated_and_folding_brings_coefficients_back(rows):
    X, _, _ = rows
    standardiser, whitening, white = whiten_rows(X, power=1.0, shrinkage=1e-9)
    np.testing.assert_allclose(white.T @ white / len(X), np.eye(12), atol=1e-6)

    coef = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)))

    np.testing.assert_allclose(standardiser.apply(X) @ whitening.fold(coef).numpy(), white @ coef, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 1.5])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_a_shrinkage_out_of_range_is_refused(rows, name, shrinkage):
    X, labels, _ = rows
    with pytest.raises(OptionError, match=r"shrinkage is .*; expected a number above 0, at most 1"):
        make_head(name, shrinkage=shrinkage).fit(X, labels)


def test_a_warm_started_path_of_C_ends_where_single_fits_end(rows):
    X, labels, weights = rows
    exact = LogisticHead(tolerance=1e-13, max_steps=2000)
    for C, head in zip([0.01, 1.0], exact.fit_path(X, labels, weights, [0.01, 1.0]), strict=True):
        alone = clone(exact).set_params(C=C).fit(X, labels, weights)
        assert head.C == C
        np.testing.assert_allclose(head.coef_, alone.coef_, atol=1e-4)


def test_an_mlp_shown_on_its_way_is_the_mlp_fitted_that_far_to_the_last_bit(rows):
    X, labels, weights = rows
    for epoch, head in zip([2, 5], MLPHead(width=8).fit_path(X, labels, weights, [2, 5]), strict=True):
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


def test_standardised_training_rows_have_mean_0_and_deviation_1_and_constant_columns_stay_finite():
    X = draw_features(np.arange(60) % 3, n_views=1)[:, 0]
    X[:, 2] = 1e4 / 3

    standard = Standardiser.fit(X).apply(X)

    kept = np.delete(standard, 2, axis=1)
    np.testing.assert_allclose(kept.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(kept.std(axis=0), 1, atol=1e-4)
    assert np.abs(standard[:, 2]).max() < 1e-2
    assert standard.dtype == np.float32


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
    with pytest.raises(ValueError, match="X has 5 features, but the head is expecting 12 features"):
        copy.predict(X[:, :5])


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_an_image_of_weight_2_counts_as_two_images(rows, name):
    X, labels, _ = rows
    weights = np.where(np.arange(150) < 40, 2.0, 1.0)
    exact = {"tolerance": 1e-13, "max_steps": 2000} if name == "logistic" else {}
    # Standardisation does not look at weights, so the two fits differ a little: hence a share, and no equality.
    twice = np.concatenate([np.arange(150), np.arange(40)])
    weighted = make_head(name, **exact).fit(X, labels, weights)
    doubled = make_head(name, **exact).fit(X[twice], labels[twice])
    assert np.mean(weighted.predict(X) == doubled.predict(X)) > 0.97


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
        OptionError, match=r"unknown head 'rigde'; expected one of ridge, logistic, mlp; did you mean 'ridge'\?"
    ):
        make_head("rigde")
    with pytest.raises(OptionError, match=r"head 'ridge' has no parameter 'alhpa'.*did you mean 'alpha'\?"):
        make_head("ridge", alhpa=1)
