"""A submission has the sample's rows, order and columns, or is not written at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from features_cache.errors import (
    CacheDamaged,
    InputError,
    OptionError,
    OutputExists,
    RecipeMismatch,
    RunError,
    SubmissionError,
    TableError,
)
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache
from heads.run import FitSettings, fit_heads
from heads.run_folder import load_heads, read_run
from heads.submitting.submission import SubmitSettings, submit, summary_lines
from tests.heads_data import draw_features, make_blocks, make_project, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("project"))
    for name, heads in (("one", ("ridge", "logistic")), ("two", ("ridge",))):
        fit_heads(
            FitSettings(
                features=project.train, labels=project.csv, heads=heads, folds=2, out=project.folder / "runs" / name
            )
        )
    return project


@pytest.fixture
def settings(fitted, tmp_path):
    return SubmitSettings(
        runs=(fitted.folder / "runs" / "one",),
        features=fitted.test,
        sample=fitted.sample,
        out=tmp_path / "submission.csv",
    )


def test_rows_order_and_columns_are_the_samples(fitted, settings, tmp_path):
    settings = dataclasses.replace(settings, probabilities=tmp_path / "p.csv")

    summary = submit(settings)

    written, sample = pd.read_csv(settings.out), pd.read_csv(fitted.sample)
    assert written.columns.tolist() == ["name", "phase"]
    assert written["name"].tolist() == sample["name"].tolist()
    probabilities = pd.read_csv(tmp_path / "p.csv").set_index("name")
    assert probabilities.idxmax(axis=1).tolist() == written["phase"].tolist()
    assert summary.n_rows == sum(summary.class_counts.values()) == 12
    assert summary.heads == ("one/ridge", "one/logistic")
    assert summary.n_views == 3
    assert summary.random_weights is False
    assert "12 rows; 2 heads (one/ridge, one/logistic) and 3 views averaged" in summary_lines(summary)[0]
    assert summary.to_json()["n_rows"] == 12


def test_heads_of_several_runs_are_averaged_plainly_and_views_too(fitted, settings, tmp_path):
    folders = (fitted.folder / "runs" / "one", fitted.folder / "runs" / "two")
    submit(dataclasses.replace(settings, runs=folders, sample=None, probabilities=tmp_path / "p.csv"))

    with FeatureCache(fitted.test) as cache:
        X = cache.load()
    each = []
    for folder in folders:
        for head in load_heads(folder, read_run(folder)):
            views = head.head.predict_proba(X.reshape(-1, 10)).reshape(12, 3, 3)
            each.append(views.mean(axis=1))
    written = pd.read_csv(tmp_path / "p.csv")
    np.testing.assert_allclose(written[["anaphase", "interphase", "prophase"]], np.mean(each, axis=0), atol=1e-6)
    assert pd.read_csv(settings.out).columns.tolist() == ["id", "label"]


def test_a_submission_of_ours_is_replaced_and_no_other_file(fitted, settings):
    submit(settings)
    submit(dataclasses.replace(settings, runs=(fitted.folder / "runs" / "two",)))
    settings.out.write_text("mine")
    with pytest.raises(OutputExists, match=r"submission\.csv: exists, and is not a file that these runs wrote"):
        submit(settings)
    assert settings.out.read_text() == "mine"
    submit(dataclasses.replace(settings, overwrite=True))
    assert len(pd.read_csv(settings.out)) == 12


def refused(settings, error, match):
    with pytest.raises(error, match=match):
        submit(settings)
    assert not settings.out.exists()


def with_sample(settings, tmp_path, ids, header=("id", "label")):
    path = write_csv(tmp_path / "sample.csv", list(header), [[name] + ["x"] * (len(header) - 1) for name in ids])
    return dataclasses.replace(settings, sample=path)


IDS = [f"t{index:02d}" for index in range(12)]


def test_missing_double_and_extra_ids_are_errors_and_nothing_is_written(settings, tmp_path):
    refused(with_sample(settings, tmp_path, [*IDS, "t99"]), SubmissionError, r"1 of 13 ids have no features \('t99'\)")
    refused(with_sample(settings, tmp_path, IDS[:-1]), SubmissionError, r"1 of 12 images .* not asked for \('t11'\)")
    refused(
        with_sample(settings, tmp_path, [*IDS, "t03"]),
        SubmissionError,
        r"1 ids occur more than once \('t03'; lines 5, 14\)",
    )


def test_a_sample_with_other_columns_than_two_is_an_error(settings, tmp_path):
    other = with_sample(settings, tmp_path, IDS, ("id", "a", "b"))
    refused(other, SubmissionError, "columns id, a, b: 'a', 'b' are no classes of the run; no column for 'anaphase'")
    refused(
        dataclasses.replace(other, format="label"), SubmissionError, "columns id, a, b; expected two, ids and labels"
    )
    refused(dataclasses.replace(settings, sample=tmp_path / "none.csv"), TableError, "no such file")


def test_a_block_of_another_recipe_or_missing_is_an_error_with_the_differing_fields(settings, tmp_path):
    X = draw_features(np.arange(12) % 3)
    write_cache(tmp_path / "other.h5", ids=IDS, features=X, blocks=make_blocks(seed=7))
    write_cache(tmp_path / "less.h5", ids=IDS, features=X[:, :, :6].copy(), blocks=make_blocks()[:1])
    other = dataclasses.replace(settings, features=tmp_path / "other.h5")
    refused(other, RecipeMismatch, r"block 'tiny' is of another recipe:\n  seed: 0 in the heads, 7 in the cache")
    refused(dataclasses.replace(settings, features=tmp_path / "less.h5"), RecipeMismatch, "no block 'wee'")


def test_a_cache_may_hold_more_blocks_than_the_heads_use_in_another_place(fitted, tmp_path):
    run = fit_heads(
        FitSettings(
            features=fitted.train,
            labels=fitted.csv,
            heads=("ridge",),
            folds=2,
            blocks=("wee",),
            out=tmp_path / "runs" / "r",
        )
    )
    summary = submit(SubmitSettings(runs=(run.folder,), features=fitted.test, sample=None, out=tmp_path / "s.csv"))
    assert summary.n_rows == 12


def test_a_quarantined_test_image_stops_it_unless_filled_with_the_class_frequencies(fitted, settings, tmp_path):
    status = np.zeros(12, dtype=np.uint8)
    status[2] = 1
    X = draw_features(np.arange(12) % 3)
    write_cache(tmp_path / "q.h5", ids=IDS, features=X, blocks=make_blocks(), status=status)
    settings = dataclasses.replace(settings, features=tmp_path / "q.h5", probabilities=tmp_path / "p.csv")
    refused(settings, SubmissionError, r"1 of 12 test images are quarantined \('t02'\).*--fill-quarantined prior")
    summary = submit(dataclasses.replace(settings, fill_quarantined="prior"))
    assert summary.n_filled == 1
    filled = pd.read_csv(tmp_path / "p.csv").set_index("name").loc["t02"]
    np.testing.assert_allclose(filled, 1 / 3)


def test_a_probability_that_is_not_a_number_stops_it(settings, tmp_path):
    X = draw_features(np.arange(12) % 3)
    X[5] = np.nan
    write_cache(tmp_path / "nan.h5", ids=IDS, features=X, blocks=make_blocks())
    with np.errstate(all="ignore"):
        refused(
            dataclasses.replace(settings, features=tmp_path / "nan.h5"),
            SubmissionError,
            r"1 images have a probability that is not a number \('t05'\)",
        )


def test_unknown_heads_and_runs_named_twice_are_errors(settings):
    refused(dataclasses.replace(settings, heads=("mlp",)), RunError, "no head 'mlp'; the run has ridge, logistic")
    refused(dataclasses.replace(settings, runs=settings.runs * 2), OptionError, "names a run twice")
    with pytest.raises(OptionError, match="no run; expected at least one"):
        dataclasses.replace(settings, runs=())


def test_runs_of_other_classes_cannot_be_averaged(fitted, settings, tmp_path):
    run = fit_heads(
        FitSettings(
            features=fitted.train,
            labels=fitted.csv,
            heads=("ridge",),
            folds=2,
            exclude_class=("prophase",),
            out=tmp_path / "runs" / "fewer",
        )
    )
    both = dataclasses.replace(settings, runs=(*settings.runs, run.folder))
    refused(both, RunError, "knows other classes .*differing: 'prophase'")


def test_nothing_is_written_where_one_of_two_files_cannot_be(settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(
        dataclasses.replace(settings, probabilities=tmp_path / "file" / "p.csv"),
        InputError,
        "is a file; expected a folder",
    )


def test_damaged_features_stop_it(settings, fitted, tmp_path):
    raw = bytearray(fitted.test.read_bytes())
    with FeatureCache(fitted.test) as cache:
        raw[cache.seal.features_at + 5] ^= 1
    (tmp_path / "test.h5").write_bytes(raw)
    refused(
        dataclasses.replace(settings, features=tmp_path / "test.h5"),
        CacheDamaged,
        "the features of 't00' are damaged; run `cli verify`",
    )
