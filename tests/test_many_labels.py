"""Images of many labels, from the CSV to the submission."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from features_cache.errors import LabelError, SubmissionError
from features_cache.writer import write_cache
from heads import run as story
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS, make_head
from heads.estimators.logistic import LogisticHead
from heads.estimators.ridge import RidgeHead
from heads.estimators.whiten import Whitening
from heads.evaluate import EvaluateSettings, evaluate
from heads.feature_rows import FeatureRows
from heads.labelled import join_labels
from heads.labels import read_labels, separator_of
from heads.problem import TrainingData
from heads.run import FitSettings, fit_heads
from heads.run_folder import read_run
from heads.submitting.submission import SubmitSettings, submit
from heads.targets import ManyLabels
from tests.heads_data import make_blocks, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("0", "2", "10")


def draw_many(n_images, n_views=2, seed=0):
    """Images that hold any of three things, each of which moves some columns; a fifth hold the rare one."""
    rng = np.random.default_rng(seed)
    members = rng.uniform(size=(n_images, 3)) < (0.6, 0.5, 0.2)
    members[~members.any(axis=1), 0] = True
    moves = np.random.default_rng(99).normal(size=(3, 10))
    images = members @ moves + 0.7 * rng.normal(size=(n_images, 10))
    views = images[:, None] + 0.1 * rng.normal(size=(n_images, n_views, 10))
    return (5 + 3 * views).astype(np.float32), members


def texts(members, separator):
    return [separator.join(name for name, member in zip(NAMES, row, strict=True) if member) for row in members]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for name, n_images, seed in (("train", 120, 0), ("test", 40, 1)):
        X, members = draw_many(n_images, seed=seed)
        ids = [f"{name}{place:03d}" for place in range(n_images)]
        write_cache(folder / f"{name}.h5", ids=ids, features=X, blocks=make_blocks())
        lines = zip(ids, texts(members, " "), texts(members, "|"), *members.T.astype(int).astype(str), strict=True)
        write_csv(folder / f"{name}.csv", ["id", "blanks", "bars", *NAMES], list(lines))
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    return FitSettings(
        features=folder / "train.h5",
        labels=folder / "train.csv",
        label_column=("blanks",),
        separator=" ",
        folds=3,
        out=folder / "runs" / "blanks",
    )


@pytest.fixture(scope="module")
def run(settings):
    return fit_heads(settings)


def test_labels_in_one_cell_or_a_column_a_class_are_the_same_targets(folder):
    ids = [f"train{place:03d}" for place in range(120)]
    _, members = draw_many(120)
    for columns, separator in ((("blanks",), " "), (("bars",), "|"), (NAMES, None)):
        table, warnings = read_labels(folder / "train.csv", label_column=columns, separator=separator)
        images = join_labels(
            table, ids, np.ones(120, bool), source="x", separator=separator_of(columns, separator), warnings=warnings
        )
        assert images.classes == NAMES  # as numbers: 2 before 10
        np.testing.assert_array_equal(images.targets.members, members)
        assert images.warnings == ()


def test_cells_that_look_like_several_labels_are_warned_about(folder):
    _, warnings = read_labels(folder / "train.csv", label_column=("bars",))
    assert "look like several labels of one image, 3 in all; taken for" in warnings[0]
    assert "give --separator '|'" in warnings[0]


def test_a_separator_that_stands_nowhere_is_an_error_that_shows_the_one_that_does(folder):
    with pytest.raises(
        LabelError, match=r"no label holds the separator '\|', but labels such as .* hold ' '.*--separator ' '"
    ):
        read_labels(folder / "train.csv", label_column=("blanks",), separator="|")


def test_a_class_column_holds_0_and_1_and_nothing_else(tmp_path):
    path = write_csv(tmp_path / "l.csv", ["id", "a", "b"], [["x", "1", "0"], ["y", "2", "0"], ["z", "0", ""]])
    with pytest.raises(LabelError, match=r"1 records hold other values than 0 and 1 .*\(lines 3; 'a' is '2'\)"):
        read_labels(path, label_column=("a", "b"))
    path = write_csv(tmp_path / "m.csv", ["id", "a", "b"], [["x", "1", "0"], ["y", "0", "0"], ["z", "0", ""]])
    with pytest.raises(LabelError, match=r"1 of 3 labels are blank, NaN or '\?' \(lines 4\)"):
        read_labels(path, label_column=("a", "b"))
    table, _ = read_labels(path, label_column=("a", "b"), drop_missing=True)
    images = join_labels(table, ["x", "y", "z"], np.ones(3, bool), source="x", separator=" ", least_classes=1)
    assert images.ids == ("x", "y")  # y is of no class, which is something else than unknown


def test_an_excluded_class_is_left_out_with_the_images_that_are_of_no_other(tmp_path):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], [["x", "a b"], ["y", "b"], ["z", "a c"]])
    table, _ = read_labels(path, separator=" ")
    images = join_labels(table, ["x", "y", "z"], np.ones(3, bool), source="x", separator=" ", exclude_class=["b"])
    assert images.ids == ("x", "z")
    assert images.label_texts == ["a", "a c"]


@pytest.mark.parametrize("n_views", [1, 2])
def test_ridge_of_many_labels_is_scikit_learns(n_views):
    X, members = draw_many(150, n_views)
    rows = X.reshape(-1, 10).astype(np.float64)
    repeated = members.repeat(n_views, axis=0)
    standard = StandardScaler().fit_transform(rows)
    theirs = Ridge(alpha=3.0).fit(standard, np.where(repeated, 1.0, -1.0))

    ours = RidgeHead(alpha=3.0, power=1.0).fit(rows, repeated)

    np.testing.assert_allclose(ours.decision_function(rows), theirs.predict(standard), atol=1e-9)
    probabilities = 1 / (1 + np.exp(-theirs.predict(standard) / ours.temperature))
    np.testing.assert_allclose(ours.predict_proba(rows), probabilities, atol=1e-6)


def test_logistic_of_many_labels_is_scikit_learns_one_against_the_rest():
    X, members = draw_many(150, 1)
    rows = X[:, 0].astype(np.float64)
    weights = np.random.default_rng(3).uniform(0.2, 3, size=150)
    standard = StandardScaler().fit(rows, sample_weight=weights).transform(rows)

    ours = LogisticHead(C=0.3, power=1.0, shrinkage=1.0, tolerance=1e-13, max_steps=2000).fit(rows, members, weights)

    for place in range(3):
        theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(standard, members[:, place], weights)
        expected = theirs.predict_proba(standard)[:, 1]
        np.testing.assert_allclose(ours.predict_proba(rows)[:, place], expected, atol=1e-4)


def test_a_positive_weight_is_scikit_learns_class_weight():
    X, members = draw_many(150, 1)
    positive = np.array([0.5, 2.0, 4.0])
    data = TrainingData(
        rows=FeatureRows(X.astype(np.float64), 1.0),
        targets=ManyLabels(members),
        weights=np.ones(150),
        positive_weights=positive,
    )
    head = LogisticHead(C=0.3, power=1.0, shrinkage=1.0, tolerance=1e-13, max_steps=2000)
    ((fit,),) = head.fit_sets(data.problem(), [data.problem().whole], [0.3])
    standard = StandardScaler().fit_transform(X[:, 0].astype(np.float64))
    for place in range(3):
        weight = {False: 1.0, True: positive[place]}
        theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000, class_weight=weight)
        expected = theirs.fit(standard, members[:, place]).predict_proba(standard)[:, 1]
        np.testing.assert_allclose(fit.head.predict_proba(X[:, 0].astype(float))[:, place], expected, atol=1e-4)


def test_what_labels_do_not_account_for_is_the_residual_of_a_regression_on_them():
    X, members = draw_many(150, 2)
    data = TrainingData(rows=FeatureRows(X.astype(np.float64), 1.0), targets=ManyLabels(members), weights=np.ones(150))
    whitening = Whitening.fit(data.problem().moments_of([0]), 1e-9, data.rows.dtype)
    rows = X.reshape(-1, 10).astype(np.float64)
    design = np.column_stack([np.ones(300), members.repeat(2, axis=0)])
    residual = rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0]
    white = residual @ whitening.matrix.numpy()
    np.testing.assert_allclose(white.T @ white / 300, np.eye(10), atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_many_labels(name):
    X, members = draw_many(300, 1)
    head = make_head(name).fit(X[:200, 0], members[:200])
    probabilities = head.predict_proba(X[200:, 0])
    assert probabilities.shape == (100, 3)
    assert head.predict(X[200:, 0]).dtype == np.int64
    assert np.mean(head.predict(X[200:, 0]) == members[200:]) > 0.8


def test_a_run_of_many_labels_says_so_and_holds_what_submit_needs(run):
    description = read_run(run.folder)
    target = description["target"]
    assert (target["many_labels"], target["separator"], target["at_least_one"]) == (True, " ", True)
    assert set(target["thresholds"]) == {*DEFAULT_HEADS, "ensemble"}
    assert len(target["thresholds"]["ridge"]["values"]) == 3
    assert np.shape(target["thresholds_in_folds"]["ensemble"]) == (3, 3)
    assert description["prior"] == "train"
    figures = run.metrics["heads"]["ensemble"]
    assert next(iter(figures)) == "macro_f1"
    assert figures["macro_f1"]["low"] < figures["macro_f1"]["value"] > 0.8
    assert figures["mean_average_precision"]["value"] > 0.85
    oof = pd.read_csv(run.folder / "oof.csv", dtype=str)
    assert oof.loc[oof["head"] == "ridge", "label"].tolist() == texts(draw_many(120)[1], " ")


def test_thresholds_of_a_fold_do_not_know_its_held_out_images(settings, tmp_path):
    """Every label of fold 0's images is turned round: its own thresholds and probabilities stay, others move."""
    unweighted = dataclasses.replace(settings, class_weight="none", heads=("ridge", "logistic"), out=tmp_path / "plain")
    run = fit_heads(unweighted)
    oof = pd.read_csv(run.folder / "oof.csv", dtype={"id": str})
    held_out = set(oof.loc[(oof["head"] == "ridge") & (oof["fold"] == 0), "id"])
    table = pd.read_csv(settings.labels, dtype=str)
    turned = [
        [row["id"], " ".join(name for name in NAMES if (row[name] == "1") != (row["id"] in held_out)) or "0"]
        for _, row in table.iterrows()
    ]
    spoiled = write_csv(tmp_path / "spoiled.csv", ["id", "blanks"], turned)
    again = run_with_folds(
        dataclasses.replace(unweighted, labels=spoiled, out=tmp_path / "again"), story.gather(settings).folds
    )
    for name in ("ridge", "ensemble"):
        found, expected = (read_run(each.folder)["target"]["thresholds_in_folds"][name] for each in (again, run))
        np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
        assert not np.allclose(found[1], expected[1], atol=1e-3)


def run_with_folds(settings, folds):
    """Fit in given folds: other labels would be dealt to other folds."""
    gathered = story.gather(settings)
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(story, "gather", lambda _settings: dataclasses.replace(gathered, folds=folds))
        return fit_heads(settings)


def submission(folder, run, tmp_path, **changes):
    sample = write_csv(
        tmp_path / "sample.csv", ["Id", "Predicted"], [[f"test{place:03d}", "0"] for place in reversed(range(40))]
    )
    fields = {"runs": (run.folder,), "features": folder / "test.h5", "sample": sample, "out": tmp_path / "s.csv"}
    return SubmitSettings(**fields | changes)


def f1(found, expected):
    hits = (found & expected).sum(axis=0)
    return float(np.mean(2 * hits / (found.sum(axis=0) + expected.sum(axis=0))))


def test_the_submission_lists_each_images_labels_and_evaluate_agrees(folder, run, tmp_path):
    submit(submission(folder, run, tmp_path))
    table = pd.read_csv(tmp_path / "s.csv", dtype=str).set_index("Id").sort_index()
    called = np.array([[name in cell.split(" ") for name in NAMES] for cell in table["Predicted"]])
    assert called.any(axis=1).all()
    members = draw_many(40, seed=1)[1]
    figures = evaluate(EvaluateSettings(run=run.folder, features=folder / "test.h5", labels=folder / "test.csv"))
    assert figures["heads"]["ensemble"]["macro_f1"]["value"] == pytest.approx(f1(called, members))
    assert f1(called, members) > 0.7
    for name in DEFAULT_HEADS:
        assert figures["heads"][name]["macro_f1"]["value"] > 0.6


def test_a_sample_with_a_column_a_class_gets_probabilities_in_its_columns(folder, run, tmp_path):
    header = ["Id", "10", "0", "2"]
    sample = write_csv(tmp_path / "p.csv", header, [[f"test{place:03d}", "0", "0", "0"] for place in range(40)])
    submit(submission(folder, run, tmp_path, sample=sample, probabilities=tmp_path / "all.csv"))
    found = pd.read_csv(tmp_path / "s.csv", dtype={"Id": str})
    assert list(found.columns) == header
    beside = pd.read_csv(tmp_path / "all.csv")
    np.testing.assert_allclose(found[list(NAMES)], beside[list(NAMES)])


def test_one_label_cannot_stand_for_many_and_fewer_heads_have_thresholds_of_their_own(folder, run, tmp_path):
    with pytest.raises(SubmissionError, match="--format label, but images may have many labels here"):
        submit(submission(folder, run, tmp_path, format="label"))
    for heads in (("ridge",), ("ridge", "mlp")):
        summary = submit(submission(folder, run, tmp_path, heads=heads))
        assert len(summary.heads) == len(heads)
    assert sum(summary.class_counts.values()) >= 40


def test_without_at_least_one_an_image_may_be_called_nothing(folder, settings, tmp_path):
    strict = dataclasses.replace(
        settings, thresholds="0.97", at_least_one=False, heads=("ridge",), out=tmp_path / "strict"
    )
    run = fit_heads(strict)
    submit(submission(folder, run, tmp_path))
    cells = pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False)["Predicted"]
    assert (cells == "").any()
    thresholds = json.loads((run.folder / "run.json").read_text())["target"]["thresholds"]["ridge"]
    assert thresholds["values"] == [0.97] * 3


@pytest.mark.parametrize("name", ["ridge", "logistic", "mlp", "knn"])
def test_probabilities_speak_of_the_prior_that_was_asked_for(settings, tmp_path, name):
    said = {}
    for prior in ("train", "balanced"):
        run = fit_heads(dataclasses.replace(settings, prior=prior, heads=(name,), out=tmp_path / prior))
        said[prior] = pd.read_csv(run.folder / "oof.csv")[list(NAMES)].to_numpy().mean(axis=0)
    share = draw_many(120)[1].mean(axis=0)
    np.testing.assert_allclose(said["train"], share, atol=0.06)
    moved = said["balanced"] - said["train"]
    np.testing.assert_array_equal(moved > 0, share < 0.5)
