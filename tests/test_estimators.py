"""Every head is a scikit-learn estimator, and keeps the symmetries that its mathematics has; what one cannot keep is listed here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import check_estimator

from heads.estimators.catalogue import HEADS, make_head
from tests.heads_data import draw_features

pytestmark = pytest.mark.usefixtures("one_thread")

# Of scikit-learn's own checks.
FAILS = {
    **dict.fromkeys(
        [(name, "check_sample_weight_equivalence_on_dense_data") for name in ("mlp", "linear")],
        "networks learn by steps: a row of weight 2 takes part in one batch, two rows in two",
    ),
    (
        "knn",
        "check_sample_weight_equivalence_on_dense_data",
    ): "a row of weight 2 is one of k neighbours, two rows are two",
}
# Of the properties below.
CANNOT = {
    **dict.fromkeys(
        [(name, "rows") for name in ("mlp", "linear")], "the order of rows decides which of them share a batch"
    ),
    **dict.fromkeys([(name, "halves") for name in ("mlp", "linear")], "twice as many rows are twice as many steps"),
    ("knn", "halves"): "of twice as many rows the k nearest are half as many images",
    **dict.fromkeys(
        [(name, "reversed") for name in ("mlp", "linear")], "the last layer's first weights are drawn class by class"
    ),
}
EXACT = {
    "logistic": {"tolerance": 1e-13, "max_steps": 2000},
    # What symmetries a network keeps does not depend on how long it learned.
    "mlp": {"width": 16, "epochs": 2},
    "linear": {"epochs": 2},
}

QUICK = {"mlp": {"width": 32}}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_passes_the_checks_of_scikit_learn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks of lists and odd shapes warn on purpose
        found = check_estimator(HEADS[name].head(**QUICK.get(name, {})), on_fail=None, on_skip=None)
    failed = {check["check_name"] for check in found if check["status"] == "failed"}
    assert failed == {check for head, check in FAILS if head == name}
    assert len(found) > 60


def fitted(name, X, y, weights=None):
    return make_head(name, **EXACT.get(name, {})).fit(X, y, weights)


def drawn(seed, *, many):
    labels = np.random.default_rng(seed).permutation(np.arange(90) % 3)
    X = draw_features(labels, n_views=1, n_columns=8, seed=seed, spread=2.0)[:, 0].astype(np.float64)
    members = np.eye(3, dtype=int)[labels]
    members[::4, 0] = 1
    return X, members if many else labels


def skip_where_it_cannot_hold(name, what):
    if (name, what) in CANNOT:
        pytest.skip(CANNOT[name, what])


few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
heads = pytest.mark.parametrize("name", HEADS)
kinds = pytest.mark.parametrize("many", [False, True])


@heads
@kinds
@few
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(name, many, seed):
    skip_where_it_cannot_hold(name, "rows")
    X, y = drawn(seed, many=many)
    order = np.random.default_rng(seed).permutation(len(X))
    found, expected = fitted(name, X[order], y[order]), fitted(name, X, y)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-5)


@heads
@kinds
@few
@given(seed=st.integers(0, 1000))
def test_all_rows_twice_with_half_the_weight_change_nothing(name, many, seed):
    skip_where_it_cannot_hold(name, "halves")
    X, y = drawn(seed, many=many)
    weights = np.random.default_rng(seed).uniform(0.3, 2, len(X))
    doubled = fitted(name, np.concatenate([X, X]), np.concatenate([y, y]), np.concatenate([weights, weights]) / 2)
    expected = fitted(name, X, y, weights)
    np.testing.assert_allclose(doubled.predict_proba(X), expected.predict_proba(X), atol=1e-5)


@heads
@few
@given(seed=st.integers(0, 1000))
def test_other_names_of_the_classes_in_the_same_order_change_no_bit(name, seed):
    X, y = drawn(seed, many=False)
    renamed = fitted(name, X, np.array(["alpha", "beta", "gamma"])[y])
    np.testing.assert_array_equal(renamed.predict_proba(X), fitted(name, X, y).predict_proba(X))


@heads
@kinds
@few
@given(seed=st.integers(0, 1000))
def test_classes_in_reverse_give_the_columns_in_reverse(name, many, seed):
    skip_where_it_cannot_hold(name, "reversed")
    X, y = drawn(seed, many=many)
    turned = fitted(name, X, y[:, ::-1] if many else 2 - y)
    np.testing.assert_allclose(turned.predict_proba(X)[:, ::-1], fitted(name, X, y).predict_proba(X), atol=1e-5)


@heads
@kinds
@few
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), column=st.integers(0, 7))
def test_the_unit_of_a_column_changes_nothing(name, many, seed, scale, column):
    X, y = drawn(seed, many=many)
    scaled = X.copy()
    scaled[:, column] *= scale
    # Networks see rounded numbers, in bfloat16 where that is fast.
    atol = 1e-5 if name in {"ridge", "logistic"} else 0.05
    found = fitted(name, scaled, y).predict_proba(scaled)
    np.testing.assert_allclose(found, fitted(name, X, y).predict_proba(X), atol=atol)
