"""A run: whole or absent, marked where its features mean nothing, and the same when loaded."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from features_cache.errors import CacheError, LabelError, OptionError, OutputExists, RecipeMismatch, RunError
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS, make_head
from heads.evaluate import EvaluateSettings, _check_unseen, evaluate
from heads.fitted import FittedHead, load_head
from heads.gather import chosen_blocks
from heads.report import metrics_table, runs_table
from heads.run import FitSettings, fit_heads
from heads.run_folder import list_runs, load_heads, read_run
from tests.heads_data import CLASSES, draw_features, make_blocks, make_project, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def run(project):
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        group_column="lab",
        folds=3,
        repeats=2,
        out=project.folder / "runs" / "first",
        test_features=project.test,
    )
    return fit_heads(settings)


def test_a_run_leaves_everything_behind_and_latest_points_at_it(project, run):
    names = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    assert names == sorted(
        ["run.json", "metrics.json", "oof.csv", "images.json", "near_duplicates.csv", "class_counts.png"]
        + [f"learning_{name}.png" for name in DEFAULT_HEADS]
        + [f"{what}_{name}.png" for name in (*DEFAULT_HEADS, "ensemble") for what in ("confusion", "reliability")]
        + [f"heads/{name}.{kind}" for name in DEFAULT_HEADS for kind in ("json", "safetensors")]
    )
    assert (run.folder.parent / "latest").resolve() == run.folder
    assert not list(run.folder.parent.glob(".permafeat*"))
    description = read_run(run.folder)
    assert description["settings"]["group_column"] == "lab"
    assert [block["digest"] for block in description["blocks"]] == [block.digest for block in make_blocks()]
    assert set(description["files"]) == set(names) - {"run.json"}


def test_the_metrics_have_intervals_folds_and_view_0_beside(run):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics == run.metrics
    assert list(metrics["heads"]) == ["ridge", "logistic", "mlp", "ensemble"]
    for figures in metrics["heads"].values():
        assert next(iter(figures)) == "balanced_accuracy"
        assert figures["balanced_accuracy"]["low"] <= figures["balanced_accuracy"]["value"] > 0.7
        assert len(figures["by_fold"]["weighted_f1"]["folds"]) == 6
        assert 0 < figures["view_0"]["weighted_f1"] <= 1
    assert metrics["n_groups"] == 12
    assert metrics["random_weights"] is False


def test_oof_csv_has_a_row_an_image_head_and_repeat_and_a_column_a_class(project, run):
    oof = pd.read_csv(run.folder / "oof.csv", dtype={"id": str})
    assert oof.columns.tolist() == [
        "id",
        "label",
        "repeat",
        "fold",
        "group",
        "head",
        "anaphase",
        "interphase",
        "prophase",
    ]
    assert len(oof) == 60 * 4 * 2
    assert set(oof["id"]) == set(project.ids)
    np.testing.assert_allclose(oof[["anaphase", "interphase", "prophase"]].sum(axis=1), 1, atol=1e-5)
    assert (oof.groupby(["repeat", "group"])["fold"].nunique() == 1).all()


def test_the_table_shows_each_head_with_its_interval(run):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(metrics_table(run))
    text = console.export_text()
    console.file.close()
    assert "balanced accuracy" in text
    assert "ensemble" in text
    assert "bootstrap over 12 groups" in text


def test_the_same_settings_and_seed_give_the_same_files(project, run):
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        group_column="lab",
        folds=3,
        repeats=2,
        out=project.folder / "again" / "first",
        test_features=project.test,
    )
    again = fit_heads(settings)
    assert read_run(again.folder)["files"] == read_run(run.folder)["files"]


def test_runs_are_listed_with_their_headline_figures(run):
    (row,) = list_runs(run.folder.parent)
    assert runs_table([row]).row_count == 4
    assert row["run"] == "first"
    assert row["heads"]["ensemble"]["weighted_f1"] == run.metrics["heads"]["ensemble"]["weighted_f1"]
    with pytest.raises(RunError, match="no such folder"):
        list_runs(run.folder / "nothing")


def test_without_out_runs_are_numbered_and_random_weights_are_marked_everywhere(tmp_path, monkeypatch):
    project = make_project(tmp_path, n_images=30, pretrained=False)
    monkeypatch.chdir(tmp_path)
    settings = FitSettings(features=project.train, labels=project.csv, heads=("ridge",), folds=2)
    first, second = fit_heads(settings), fit_heads(settings)
    assert [first.folder, second.folder] == [Path("runs/001"), Path("runs/002")]
    assert (tmp_path / "runs" / "latest").resolve().name == "002"
    assert read_run(first.folder)["random_weights"] is True
    assert first.metrics["random_weights"] is True
    assert list(first.metrics["heads"]) == ["ridge"]
    console = Console(width=300, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(metrics_table(first))
    console.file.close()
    assert "RANDOM WEIGHTS" in console.export_text()


def test_views_0_trains_and_predicts_on_the_image_alone(project, tmp_path):
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        heads=("ridge",),
        folds=2,
        views="0",
        blocks=("wee",),
        out=tmp_path / "r",
    )
    run = fit_heads(settings)
    assert run.metrics["n_views_trained"] == run.metrics["n_views_averaged"] == 1
    figures = run.metrics["heads"]["ridge"]
    assert figures["view_0"]["weighted_f1"] == figures["weighted_f1"]["value"]
    assert load_heads(run.folder, read_run(run.folder))[0].head.n_features_in_ == 4


@pytest.mark.parametrize(
    ("names", "expected"), [("*", ["tiny", "wee"]), ("w*", ["wee"]), ("*iny", ["tiny"]), ("wee,t*y", ["tiny", "wee"])]
)
def test_a_star_stands_for_any_part_of_a_block_s_name(names, expected):
    blocks = make_blocks()
    assert [block.name for block in chosen_blocks(blocks, names.split(","))] == expected
    with pytest.raises(OptionError, match=r"--blocks \[tw\]\*: no such block"):
        chosen_blocks(blocks, ["[tw]*"])


def test_the_headline_averages_as_many_views_as_the_test_cache_holds(tmp_path):
    project = make_project(tmp_path, n_images=30, test_views=1)
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        heads=("ridge",),
        folds=2,
        out=tmp_path / "r",
        test_features=project.test,
    )
    metrics = fit_heads(settings).metrics
    assert (metrics["n_views_trained"], metrics["n_views_averaged"]) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"out": "runs/first"}, OutputExists, "first: exists; expected a new folder"),
        ({"blocks": ("tny",)}, OptionError, r"--blocks tny: no such block; .*did you mean 'tiny'\?"),
        ({"exclude_class": ("interfase",)}, LabelError, r"did you mean 'interphase'\?"),
        ({"folds": 13}, OptionError, "--folds 13: there are only 12 groups"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(project, run, changes, error, match):
    before = sorted(project.folder.rglob("*"))
    if "out" in changes:
        changes = {"out": project.folder / changes["out"]}
    settings = FitSettings(
        features=project.train, labels=project.csv, group_column="lab", out=project.folder / "runs" / "new"
    )
    with pytest.raises(error, match=match):
        fit_heads(dataclasses.replace(settings, **changes))
    assert sorted(project.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"heads": ("rigde",)}, r"did you mean 'ridge'\?"),
        ({"heads": ("mlp", "mlp")}, "named twice"),
        ({"heads": ()}, "no head was named"),
        ({"folds": 1}, "--folds 1 --repeats 1; expected at least 2 folds"),
        ({"views": "2"}, "--views '2'; expected all or 0"),
        ({"class_weight": "x"}, "--class-weight 'x'; expected balanced or none"),
        ({"seed": -1}, "--seed -1; expected 0 to 2147483647"),
        ({"prior": "x"}, "--prior 'x'; expected balanced or train"),
        ({"ensemble": "x"}, "--ensemble 'x'; expected average or greedy"),
        ({"thresholds": "1.5"}, "--thresholds '1.5'; expected each, common, or a number between 0 and 1"),
        ({"separator": ", "}, "--separator ', '; expected one character"),
        ({"label_column": ()}, "--label-column names no column"),
        ({"group_column": "well"}, "--group-column well needs a labels CSV"),
    ],
)
def test_settings_refuse_nonsense_at_birth(changes, match):
    with pytest.raises(OptionError, match=match):
        FitSettings(**({"features": Path("f.h5"), "labels": None} | changes))


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_has_the_same_numbers_to_the_last_bit_and_gives_the_same_probabilities(tmp_path, name):
    labels = np.arange(45) % 3
    X = draw_features(labels, n_views=2)
    head = make_head(name).fit(X.reshape(-1, 10), labels.repeat(2))
    fitted = FittedHead(name=name, head=head, classes=("a", "b", "c"), blocks=make_blocks(), shift=np.arange(3.0))
    text, tensors = fitted.to_bytes()
    (tmp_path / f"{name}.json").write_bytes(text)
    (tmp_path / f"{name}.safetensors").write_bytes(tensors)

    loaded = load_head(tmp_path / f"{name}.json")

    assert loaded.to_bytes() == (text, tensors)
    # A product may round differently where its operands lie at another address.
    np.testing.assert_allclose(loaded.predict_images(X), fitted.predict_images(X), atol=1e-6)
    assert loaded.head.get_params() == head.get_params()


@pytest.fixture
def copied(run, tmp_path):
    import shutil

    shutil.copytree(run.folder, tmp_path / "run")
    return tmp_path / "run"


def edit(path, change):
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields))


def test_an_edited_head_file_is_refused(copied):
    edit(copied / "heads" / "ridge.json", lambda fields: fields["settings"].update(temperature=9.0))
    with pytest.raises(RunError, match=r"ridge\.json: edited since it was written \(sha256 .*Fit the heads again"):
        load_heads(copied, read_run(copied))


def test_edited_numbers_are_refused(copied):
    path = copied / "heads" / "ridge.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(RunError, match=r"ridge\.safetensors: edited since it was written"):
        load_heads(copied, read_run(copied))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda fields: fields.update(version=2),
            r"head format 2; this version of permafeat reads 3\. Fit the heads again",
        ),
        (lambda fields: fields.update(kind="pickle"), "head 'pickle' is not among ridge, logistic, mlp"),
        (lambda fields: fields.update(n_columns=11), r"coef_ has shape \(10, 3\), expected \(11, 3\)"),
        (lambda fields: fields["shift"].append(0), "cannot reshape array of size 4"),
        (
            lambda fields: (fields["classes"].append("d"), fields["shift"].append(0)),
            r"coef_ has shape \(10, 3\), expected \(10, 4\)",
        ),
        (lambda fields: fields["blocks"].pop(), "10 columns, but its blocks have 6"),
        (lambda fields: fields.update(code="x"), "fields 'blocks', 'classes', 'code'"),
        (lambda fields: fields.update(format="other"), "not a head of permafeat"),
        (lambda fields: fields["settings"].update(solver="x"), "not a head that this version can rebuild"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_whoever_wrote_it(copied, change, match):
    path = copied / "heads" / "ridge.json"
    edit(path, change)
    with pytest.raises(RunError, match=match):
        load_head(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(class_counts=[1, 1]),
        lambda fields: fields["ensemble"]["weights"].update(ridge=-4),
        lambda fields: fields.update(heads=["../../001/heads/ridge"]),
        lambda fields: fields.pop("prior"),
        lambda fields: fields.update(sha256=None),
    ],
)
def test_an_edited_run_is_refused(copied, change):
    edit(copied / "run.json", change)
    with pytest.raises(RunError, match=r"run\.json: edited since it was written .*Fit the heads again"):
        read_run(copied)


def test_features_that_are_no_numbers_are_an_error_that_names_their_images(project, run, tmp_path):
    X = draw_features(np.array([CLASSES.index(label) for label in project.labels]))
    X[3, 1, 2], X[8, 0, 0] = np.nan, np.inf
    write_cache(tmp_path / "bad.h5", ids=project.ids, features=X, blocks=make_blocks())
    match = (
        rf"2 images have features that are no numbers \('{project.ids[3]}', '{project.ids[8]}'\); expected finite ones"
    )
    with pytest.raises(CacheError, match=match):
        fit_heads(FitSettings(features=tmp_path / "bad.h5", labels=project.csv, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    new = new_images(tmp_path / "new")
    with FeatureCache(new["features"]) as cache:
        ids, X = cache.ids, cache.load()
    X[5, 0, 1] = np.nan
    new["features"].unlink()
    write_cache(new["features"], ids=ids, features=X, blocks=make_blocks())
    with pytest.raises(CacheError, match=rf"1 images have features that are no numbers \('{ids[5]}'\)"):
        evaluate(EvaluateSettings(run=run.folder, **new))


def test_a_missing_run_or_one_of_another_version_is_an_error(copied, tmp_path):
    edit(copied / "run.json", lambda fields: fields.update(version=4))
    with pytest.raises(RunError, match="run format 4; this version of permafeat reads 3"):
        read_run(copied)
    with pytest.raises(RunError, match="no run there"):
        evaluate(EvaluateSettings(run=tmp_path / "none", features=tmp_path / "x.h5", labels=None))


def new_images(folder, **block_changes):
    folder.mkdir(exist_ok=True)
    ids = [f"n{index:02d}" for index in range(30)]
    labels = np.arange(30) % 3
    write_cache(folder / "new.h5", ids=ids, features=draw_features(labels, seed=8), blocks=make_blocks(**block_changes))
    names = np.array(["anaphase", "interphase", "prophase"])[labels]
    write_csv(
        folder / "new.csv",
        ["id", "label", "lab"],
        [[i, n, f"w{k // 5}"] for k, (i, n) in enumerate(zip(ids, names, strict=True))],
    )
    return {"features": folder / "new.h5", "labels": folder / "new.csv"}


def test_evaluate_scores_unseen_images_with_the_columns_of_the_run(run, tmp_path):
    figures = evaluate(EvaluateSettings(run=run.folder, **new_images(tmp_path)))
    assert figures["n_groups"] == 6
    assert figures["heads"]["ensemble"]["balanced_accuracy"]["value"] > 0.7
    json.dumps(figures, allow_nan=False)
    assert metrics_table(figures).row_count == 4


def test_labels_of_another_kind_than_the_runs_are_an_error(run, tmp_path):
    with pytest.raises(
        LabelError, match=r"many labels an image, but the run was fitted on one .* leave --separator out"
    ):
        evaluate(EvaluateSettings(run=run.folder, **new_images(tmp_path), separator=" "))


def test_evaluate_refuses_images_that_were_fitted_on(project, run):
    with pytest.raises(LabelError, match=r"fitted on 60 of these 60 images \('0001', .*out-of-fold figures"):
        evaluate(EvaluateSettings(run=run.folder, features=project.train, labels=project.csv))


def test_evaluate_refuses_unknown_labels_and_other_recipes(run, tmp_path):
    new = new_images(tmp_path / "a")
    new["labels"].write_text(new["labels"].read_text().replace("prophase", "telophase"))
    with pytest.raises(LabelError, match="labels 'telophase' are no classes of the run"):
        evaluate(EvaluateSettings(run=run.folder, **new))
    with pytest.raises(
        RecipeMismatch, match=r"block 'tiny' is of another recipe:\n  seed: 0 in the heads, 4 in the cache"
    ):
        evaluate(EvaluateSettings(run=run.folder, **new_images(tmp_path / "b", seed=4)))


def test_a_cache_with_a_quarantined_image_leaves_it_out(tmp_path):
    project = make_project(tmp_path, n_images=30)
    with FeatureCache(project.train) as cache:
        features = cache.load()
    status = np.zeros(30, dtype=np.uint8)
    status[4] = 1
    write_cache(tmp_path / "q.h5", ids=project.ids, features=features, blocks=make_blocks(), status=status)
    run = fit_heads(
        FitSettings(features=tmp_path / "q.h5", labels=project.csv, heads=("ridge",), folds=2, out=tmp_path / "r")
    )
    assert run.metrics["n_images"] == 29
    assert read_run(run.folder)["n_quarantined"] == 1


def test_evaluate_without_the_run_s_group_column_says_so_and_goes_on(run, tmp_path):
    new = new_images(tmp_path)
    table = pd.read_csv(new["labels"], dtype=str)
    table.drop(columns=["lab"]).to_csv(new["labels"], index=False)
    figures = evaluate(EvaluateSettings(run=run.folder, **new))
    assert figures["n_groups"] is None
    assert any("has no column 'lab', the run's groups" in text for text in figures["warnings"])


def test_what_a_killed_fit_left_is_not_listed_as_a_run(run):
    left = run.folder.parent / ".permafeat-run-abc"
    shutil.copytree(run.folder, left)
    try:
        assert left.name not in {row["run"] for row in list_runs(run.folder.parent)}
    finally:
        shutil.rmtree(left)


def test_a_run_that_cannot_be_read_is_told_beside_the_others(run):
    broken = run.folder.parent / "broken"
    shutil.copytree(run.folder, broken)
    (broken / "metrics.json").write_text("{}")
    try:
        rows = {row["run"]: row for row in list_runs(run.folder.parent)}
        assert "edited since it was written" in rows["broken"]["error"]
        assert rows["first"]["heads"]
        console = Console(width=200, file=io.StringIO())
        console.print(runs_table(list(rows.values())))
        assert "cannot be read" in console.file.getvalue()
    finally:
        shutil.rmtree(broken)


def test_unseen_is_told_by_bytes_where_they_are_known_and_else_by_names():
    one, two, unknown = "11" * 16, "22" * 16, "00" * 16
    fitted_on = {"a": one, "b": unknown}
    _check_unseen(["a", "c"], [two, two], fitted_on, Path("new.h5"))  # another image of the same name
    for image_id, digest in (("z", one), ("a", one), ("a", unknown), ("b", two), ("b", unknown)):
        with pytest.raises(LabelError, match=f"fitted on 1 of these 1 images \\('{image_id}'\\)"):
            _check_unseen([image_id], [digest], fitted_on, Path("new.h5"))
