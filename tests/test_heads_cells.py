"""Heads on the cells of images: a whole run, from two caches to a fused estimate that new images confirm."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from fused_data import NAMES, draw_half, make_fused_project, write_cells
from safetensors.numpy import load_file
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from features_cache.errors import LabelError, OptionError, RecipeMismatch, RunError
from features_cache.progress import silent
from features_cache.writer import write_cache
from heads import memory as budget
from heads import run as story
from heads.cell_data import cell_training_data, read_cells
from heads.cell_heads import fit_cells
from heads.estimators.ridge import RidgeHead
from heads.evaluate import EvaluateSettings, evaluate
from heads.fusion import WEIGHTS
from heads.gather import gather, image_weights
from heads.prior import prior_shift
from heads.run import FitSettings, fit_heads
from heads.run_folder import list_runs, read_run
from tests.heads_data import make_blocks, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [False, True]


@pytest.fixture(scope="module", params=KINDS, ids=["one label", "many labels"])
def project(request, tmp_path_factory):
    return make_fused_project(tmp_path_factory.mktemp("fused"), many=request.param)


def settings_of(project, **changes):
    fields = {
        "features": project.path("train"),
        "labels": project.labels("train"),
        "separator": project.separator,
        "cells": project.path("train_cells"),
        "test_cells": project.path("test_cells"),
        "heads": ("ridge", "logistic"),
        "folds": 4,
        "out": project.folder / "runs" / "001",
    }
    return FitSettings(**(fields | changes))


@pytest.fixture(scope="module")
def run(project):
    return fit_heads(settings_of(project))


def first_figure(metrics, name):
    figure = "macro_f1" if metrics["many_labels"] else "balanced_accuracy"
    return metrics["heads"][name][figure]["value"]


def test_together_they_know_more_than_either_alone(run):
    known = {name: first_figure(run.metrics, name) for name in ("ensemble", "cells", "fused")}
    assert known["fused"] > max(known["ensemble"], known["cells"]) + 0.05, known


def test_the_table_tells_what_each_weight_gives_and_its_ends_are_those_who_speak_alone(run):
    figure = "macro_f1" if run.metrics["many_labels"] else "balanced_accuracy"
    cells = run.metrics["cells"]
    rows = {row["weight"]: row for row in cells["table"]}
    assert list(rows) == [0.0, *WEIGHTS, 1.0]
    assert rows[0.0]["mean"] == rows[0.0]["maximum"]
    assert rows[0.0]["mean"][figure] == pytest.approx(first_figure(run.metrics, "ensemble"))
    assert rows[1.0][cells["pool"]][figure] == pytest.approx(first_figure(run.metrics, "cells"))
    best = max(WEIGHTS, key=lambda weight: rows[weight][cells["pool"]][figure])
    assert rows[best][cells["pool"]][figure] > max(rows[0.0][cells["pool"]][figure], rows[1.0][cells["pool"]][figure])
    chosen = min(WEIGHTS, key=lambda weight: rows[weight][cells["pool"]]["calibrated_log_loss"])
    assert cells["weight"] == chosen
    assert cells["pool"] == ("maximum" if run.metrics["many_labels"] else "mean")
    assert len(cells["weights_in_folds"]) == 4
    assert set(cells["weights_in_folds"]) <= set(WEIGHTS)


def test_the_run_says_how_many_cells_there_were_and_what_each_head_of_them_knows(project, run):
    cells = run.metrics["cells"]
    assert cells["n_cells"] == len(project.train.cell_ids)
    assert cells["n_images_with_cells"] == len(set(project.train.parents))
    assert cells["n_images_without_cells"] == len(project.train.ids) - cells["n_images_with_cells"] > 10
    assert set(cells["heads"]) == {"ridge", "logistic", "ensemble"}
    assert cells["heads"]["ensemble"] == {key: run.metrics["heads"]["cells"][key] for key in cells["heads"]["ensemble"]}
    described = read_run(run.folder)["cells"]
    assert (described["heads"], described["weight"]) == (["ridge", "logistic"], cells["weight"])
    for name in (
        "cells/ridge.json",
        "cells/logistic.safetensors",
        "oof_cells.csv",
        "fusion.png",
        "reliability_fused.png",
    ):
        assert (run.folder / name).is_file()
        assert name in read_run(run.folder)["files"]
    (row,) = [each for each in list_runs(run.folder.parent) if each["run"] == "001"]
    assert {"fused", "cells", "ensemble"} <= set(row["heads"])


def test_all_cells_of_an_image_are_held_out_with_it(run):
    images = pd.read_csv(run.folder / "oof.csv", dtype=str).drop_duplicates("id").set_index("id")["fold"]
    cells = pd.read_csv(run.folder / "oof_cells.csv", dtype=str)
    assert (cells["fold"] == images.loc[cells["parent"]].to_numpy()).all()
    assert not cells["id"].duplicated().any()


def test_fused_probabilities_are_those_of_the_image_and_its_cells_at_the_weight_of_the_fold(project, run):
    """Computed anew from the CSV files, by loops."""
    oof = pd.read_csv(run.folder / "oof.csv", dtype={"id": str}).set_index(["head", "id"])
    cells = pd.read_csv(run.folder / "oof_cells.csv", dtype={"parent": str})
    told = run.metrics["cells"]
    for image in project.train.ids:
        own = oof.loc[("ensemble", image), list(NAMES)].to_numpy(float)
        of_image = cells.loc[cells["parent"] == image, list(NAMES)].to_numpy(float)
        weight = told["weights_in_folds"][int(oof.loc[("ensemble", image), "fold"])]
        expected = own
        if len(of_image):
            together = of_image.mean(axis=0) if told["pool"] == "mean" else of_image.max(axis=0)
            expected = weight * together + (1 - weight) * own
        np.testing.assert_allclose(oof.loc[("fused", image), list(NAMES)].to_numpy(float), expected, atol=3e-6)


def test_new_images_confirm_the_estimate(project, run):
    figures = evaluate(
        EvaluateSettings(
            run=run.folder,
            features=project.path("test"),
            labels=project.labels("test"),
            cells=project.path("test_cells"),
        )
    )
    assert first_figure(figures, "fused") > max(first_figure(figures, "ensemble"), first_figure(figures, "cells"))
    assert first_figure(figures, "fused") == pytest.approx(first_figure(run.metrics, "fused"), abs=0.12)
    assert not figures["warnings"]


def test_an_evaluation_without_cells_says_that_they_were_not_asked(project, run):
    wanted = EvaluateSettings(run=run.folder, features=project.path("test"), labels=project.labels("test"))
    figures = evaluate(wanted)
    assert "fused" not in figures["heads"]
    assert "its heads of cells were not asked; name a cache of cells with --cells" in figures["warnings"][0]


def test_cells_of_other_images_are_no_cells_to_evaluate_by(project, run):
    wanted = EvaluateSettings(
        run=run.folder,
        features=project.path("test"),
        labels=project.labels("test"),
        cells=project.path("train_cells"),
    )
    with pytest.raises(LabelError, match=r"none of its \d+ cells is of one of these 60 images \('test000'"):
        evaluate(wanted)


def test_heads_of_cells_refuse_features_of_another_recipe(project, run, tmp_path):
    path = write_cells(tmp_path / "other.h5", project.test, blocks=make_blocks(seed=7))
    wanted = EvaluateSettings(run=run.folder, features=project.path("test"), labels=project.labels("test"), cells=path)
    with pytest.raises(RecipeMismatch, match=r"block 'tiny' is of another recipe:\n  seed: 0 in the heads, 7"):
        evaluate(wanted)


def test_an_edited_head_of_cells_is_an_error(project, run, tmp_path):
    import shutil

    shutil.copytree(run.folder, tmp_path / "runs" / "edited")
    path = tmp_path / "runs" / "edited" / "cells" / "ridge.json"
    path.write_text(path.read_text().replace('"ridge"', '"knn"'))
    with pytest.raises(RunError, match=r"cells/ridge\.json: edited since it was written"):
        evaluate(
            EvaluateSettings(
                run=tmp_path / "runs" / "edited", features=project.path("test"), labels=project.labels("test")
            )
        )


def run_with_folds(settings, gathered):
    """Fit in given folds: other labels would be dealt to other folds."""
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        own = story.gather(settings)
        context.setattr(story, "gather", lambda _: dataclasses.replace(own, folds=gathered.folds))
        return fit_heads(settings)


def test_nothing_that_is_said_in_a_fold_knows_the_labels_of_its_held_out_images(project, tmp_path):
    """Every label of fold 0's images is turned round: what is said of its cells, and its weight, stay; others move."""
    settings = settings_of(project, class_weight="none", heads=("ridge",), prior="train", out=tmp_path / "plain")
    gathered = gather(settings)
    held_out = {project.train.ids[place] for place in gathered.folds[0].held_out.tolist()}
    table = pd.read_csv(settings.labels, dtype=str)
    turn = {name: NAMES[place - 1] for place, name in enumerate(NAMES)}
    turned = [
        (image, "|".join(sorted(turn[name] for name in text.split("|"))) if image in held_out else text)
        for image, text in zip(table["id"], table["label"], strict=True)
    ]
    spoiled = dataclasses.replace(
        settings, labels=write_csv(tmp_path / "spoiled.csv", ["id", "label"], turned), out=tmp_path / "spoiled"
    )
    runs = [run_with_folds(each, gathered) for each in (settings, spoiled)]
    weights = [run.metrics["cells"]["weights_in_folds"] for run in runs]
    assert weights[0][0] == weights[1][0]
    tables = [pd.read_csv(run.folder / "oof_cells.csv", dtype={"id": str}) for run in runs]
    here, others = (tables[0]["fold"] == 0, tables[0]["fold"] != 0)
    before, after = (table[list(NAMES)].to_numpy() for table in tables)
    np.testing.assert_allclose(after[here], before[here], atol=2e-3)
    assert np.abs(after[others] - before[others]).max() > 0.05


# What cells weigh


def small(many, *, n_images=60, seed=3):
    return draw_half("train", n_images, many=many, seed=seed)


def project_of(folder, half):
    """Caches and labels of one half, without test images."""
    from fused_data import FusedProject, label_texts

    project = FusedProject(folder=folder, many=half.members.sum(axis=1).max() > 1, train=half, test=half)
    write_cache(project.path("train"), ids=half.ids, features=half.X, blocks=make_blocks(), replace=True)
    write_cells(project.path("train_cells"), half)
    write_csv(project.labels("train"), ["id", "label"], list(zip(half.ids, label_texts(half.members), strict=True)))
    return project


def with_copies(half, of_image, times):
    """Every cell of an image again and again, under further ids."""
    again = np.flatnonzero(half.places == of_image).repeat(times - 1)
    order = np.argsort(
        names := [*half.cell_ids, *(f"{half.cell_ids[place]}-{number}" for number, place in enumerate(again))],
        kind="stable",
    )
    rows = np.concatenate([np.arange(len(half.places)), again])[order]
    return dataclasses.replace(
        half,
        cell_ids=[names[place] for place in order],
        parents=[half.parents[row] for row in rows],
        places=half.places[rows],
        cells=half.cells[rows],
    )


@pytest.mark.parametrize("many", KINDS)
def test_an_image_counts_the_same_however_many_cells_it_has(tmp_path, many):
    """Cells of some images are there five times: heads, choices and the weight stay."""
    half = small(many)
    copied = half
    for image in (1, 2, 5):
        copied = with_copies(copied, image, 5)
    assert len(copied.places) > len(half.places) + 8
    runs = []
    for name, each in (("plain", half), ("copied", copied)):
        project = project_of(tmp_path / name, each)
        runs.append(fit_heads(settings_of(project, test_cells=None, folds=3, out=tmp_path / name / "run")))
    for head in ("ridge", "logistic"):
        expected, found = (load_file(run.folder / "cells" / f"{head}.safetensors") for run in runs)
        scale = np.abs(expected["coef_"]).max()
        np.testing.assert_allclose(found["coef_"], expected["coef_"], atol=2e-3 * scale)
        chosen = [read_run(run.folder)["cells"]["chosen"][head]["settings"] for run in runs]
        assert chosen[0]["temperature"] == pytest.approx(chosen[1]["temperature"], rel=1e-2)
    assert runs[0].metrics["cells"]["weights_in_folds"] == runs[1].metrics["cells"]["weights_in_folds"]
    figures = [first_figure(run.metrics, "fused") for run in runs]
    assert figures[0] == pytest.approx(figures[1], abs=0.02)


@pytest.mark.parametrize("many", KINDS)
def test_ridge_on_cells_is_scikit_learns_with_the_images_weights_shared_out(tmp_path, many):
    half = small(many)
    settings = settings_of(project_of(tmp_path, half), test_cells=None, folds=3)
    gathered = gather(settings)
    cells = read_cells(settings, gathered)
    weighed = image_weights(settings, gathered)
    data = cell_training_data(settings, gathered, cells, weighed, 1.0)
    ((fit,),) = RidgeHead(alpha=3.0, power=1.0).fit_sets(data.problem(), [data.problem().whole], [3.0])

    n_cells = np.bincount(half.places, minlength=len(half.ids))
    weights = (weighed.weights / np.maximum(n_cells, 1))[half.places].repeat(2)
    rows = half.cells.reshape(-1, 10).astype(np.float64)
    standard = StandardScaler().fit(rows, sample_weight=weights)
    wanted = np.where(half.members[half.places].repeat(2, axis=0), 1.0, -1.0)
    theirs = Ridge(alpha=3.0).fit(standard.transform(rows), wanted, sample_weight=weights)
    np.testing.assert_allclose(
        fit.head.decision_function(rows.astype(np.float32)), theirs.predict(standard.transform(rows)), atol=2e-3
    )


def test_probabilities_of_cells_speak_of_the_frequencies_of_images(tmp_path):
    """Images of one class are crowded: its cells are many, and yet it is as frequent as before."""
    half = small(False)
    crowded = half
    for image in np.flatnonzero(half.members[:, 0]).tolist():
        crowded = with_copies(crowded, image, 6)
    shifts = []
    for name, each in (("plain", half), ("crowded", crowded)):
        settings = settings_of(project_of(tmp_path / name, each), test_cells=None, folds=3)
        gathered = gather(settings)
        cells = read_cells(settings, gathered)
        data = cell_training_data(settings, gathered, cells, image_weights(settings, gathered), 0.5)
        shifts.append(prior_shift(data, "train", gathered.folds[0].held_out[:0]))
    np.testing.assert_allclose(shifts[0], shifts[1], atol=1e-12)


# What is left out, and what is refused


def test_cells_of_images_that_are_not_learned_from_are_left_out_and_told(project, tmp_path):
    settings = settings_of(project, exclude_class=("16",), heads=("ridge",), out=tmp_path / "run")
    gathered = gather(settings)
    cells = read_cells(settings, gathered)
    assert {project.train.parents[project.train.cell_ids.index(cell)] for cell in cells.ids} <= set(gathered.images.ids)
    if not project.many:
        assert len(cells.ids) < len(project.train.cell_ids)
        assert "cells are of images that are not learned from; left out, too" in cells.warnings[0]


def test_quarantined_cells_are_left_out_and_counted(tmp_path):
    half = small(False)
    status = np.zeros(len(half.cell_ids), np.uint8)
    status[[3, 7]] = 1
    project = project_of(tmp_path, half)
    write_cells(project.path("train_cells"), half, status=status)
    settings = settings_of(project, test_cells=None, folds=3)
    cells = read_cells(settings, gather(settings))
    assert cells.n_quarantined == 2
    assert not {half.cell_ids[3], half.cell_ids[7]} & set(cells.ids)


def refused(project, error, match, **changes):
    with pytest.raises(error, match=match):
        fit_heads(settings_of(project, out=project.folder / "runs" / "refused", **changes))
    assert not (project.folder / "runs" / "refused").exists()


def test_caches_that_do_not_fit_together_are_refused_before_anything_is_fitted(project, tmp_path, monkeypatch):
    monkeypatch.setattr(story, "estimate", lambda *_: pytest.fail("something was fitted"))
    refused(
        project, OptionError, "its images have no parents; expected cells .*--cells DIR", cells=project.path("train")
    )
    half = project.train
    lost = write_cells(tmp_path / "lost.h5", half, parents=["elsewhere", *half.parents[1:]])
    refused(project, LabelError, r"1 images of its cells are not in .*train\.h5 \('elsewhere'\)", cells=lost)
    others = write_cells(tmp_path / "others.h5", project.test)
    refused(project, LabelError, r"60 images|images of its cells are not in", cells=others)
    refused(
        project, LabelError, "none of its .* cells is of one of the 160 images", cells=others, ignore_unlabelled=True
    )
    refused(project, OptionError, "no such block", blocks=("none",))
    few = write_cells(
        tmp_path / "few.h5", half, ids=half.cell_ids[:4], parents=half.parents[:4], features=half.cells[:4]
    )
    refused(project, OptionError, r"its 4 cells are of so few images that fold \d of 4 has none to hold out", cells=few)


def test_unknown_parents_are_left_out_where_images_without_labels_may_be(tmp_path):
    half = small(False)
    project = project_of(tmp_path, half)
    write_cells(project.path("train_cells"), half, parents=["elsewhere", *half.parents[1:]])
    settings = settings_of(project, test_cells=None, folds=3, ignore_unlabelled=True)
    cells = read_cells(settings, gather(settings))
    assert half.cell_ids[0] not in cells.ids
    assert "1 images of its cells are not in" in cells.warnings[0]


def test_options_of_cells_make_no_sense_without_them(tmp_path):
    for changes, match in (
        ({"pool": "mean"}, "--pool mean is for cells; give their cache with --cells"),
        ({"pool": "median", "cells": tmp_path / "c.h5"}, "--pool 'median'; expected mean or maximum"),
        ({"own_heads": {"fused": {"kind": "ridge"}}}, "has the name of 'fused'"),
    ):
        with pytest.raises(OptionError, match=match):
            FitSettings(features=tmp_path / "a.h5", labels=None, **changes)


def test_labels_of_cells_themselves_are_learned_in_folds_that_cut_through_no_image(project, tmp_path):
    labels = [NAMES[place % 2] for place in range(len(project.train.cell_ids))]
    path = write_csv(tmp_path / "l.csv", ["id", "label"], list(zip(project.train.cell_ids, labels, strict=True)))
    gathered = gather(FitSettings(features=project.path("train_cells"), labels=path))
    parents = np.array(project.train.parents)
    for fold in gathered.folds:
        assert not set(parents[fold.train]) & set(parents[fold.held_out])
    assert "its images were cut from 142 others; those of one stay in one fold" in gathered.images.warnings[-1]


# Together with everything else


@pytest.fixture
def free_interpreter(monkeypatch):
    """Small projects fit any limit that the interpreter fits; without it, one can be too small for them."""
    monkeypatch.setattr(budget, "INTERPRETER_BYTES", 0)


def test_a_run_within_a_memory_limit_leaves_cells_on_the_disk_and_says_the_same(
    project, run, tmp_path, free_interpreter
):
    limited = fit_heads(settings_of(project, memory_limit=4_000_000, out=tmp_path / "limited"))
    told = read_run(limited.folder)
    assert told["cells"]["memory"]["streamed"] is True
    for head in ("ridge", "logistic"):
        expected, found = (load_file(each.folder / "cells" / f"{head}.safetensors") for each in (run, limited))
        np.testing.assert_allclose(found["coef_"], expected["coef_"], atol=3e-3 * np.abs(expected["coef_"]).max())
    assert limited.metrics["cells"]["weights_in_folds"] == run.metrics["cells"]["weights_in_folds"]
    assert first_figure(limited.metrics, "fused") == pytest.approx(first_figure(run.metrics, "fused"), abs=0.02)


def test_the_images_features_are_gone_before_those_of_cells_are_read(tmp_path, monkeypatch):
    project = project_of(tmp_path, small(False))
    seen = []

    def watched(settings, gathered, *rest):
        seen.append(gathered.features.n_images)
        return fit_cells(settings, gathered, *rest)

    monkeypatch.setattr(story, "fit_cells", watched)
    fit_heads(settings_of(project, heads=("ridge",), folds=3, test_cells=None))
    assert seen == [0]


def test_groups_repeats_searches_and_greedy_ensembles_work_with_cells(project, tmp_path):
    settings = settings_of(
        project,
        group_column="well",
        repeats=2,
        folds=2,
        search=2,
        ensemble="greedy",
        group_near_duplicates=True,
        resample="over",
        out=tmp_path / "run",
    )
    told = []
    run = fit_heads(settings, lambda what, *_: told.append(what))
    assert any(what.startswith("cells: search") for what in told)
    described = read_run(run.folder)
    assert len(described["cells"]["weights_in_folds"]) == 4
    assert set(described["cells"]["search"]) == {"ridge", "logistic"}
    assert sum(described["cells"]["ensemble"]["weights"].values()) == pytest.approx(1)
    wells = pd.read_csv(project.labels("train"), dtype=str).set_index("id")["well"]
    cells = pd.read_csv(run.folder / "oof_cells.csv", dtype=str)
    folds = cells.assign(well=wells.loc[cells["parent"]].to_numpy()).groupby(["repeat", "well"])["fold"].nunique()
    assert (folds == 1).all()


def test_the_command_prints_the_table_and_a_run_without_cells_is_as_it_was(project, tmp_path, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--features",
        project.path("train"),
        "--labels",
        project.labels("train"),
        "--heads",
        "ridge",
        "--folds",
        "3",
    ]
    words += ["--separator", "|"] if project.many else []
    code, out, err = run_cli("fit-heads", *words, "--cells", project.path("train_cells"), "--pool", "mean")
    assert code == 0, err
    assert "w · cells + (1 - w) · image" in out
    for text in ("0 (images alone)", "0.2", "(chosen)", "1 (cells alone)", "maximum of cells"):
        assert text in out
    code, out, _ = run_cli("fit-heads", *words, "--json")
    metrics = json.loads(out)
    assert "cells" not in metrics
    assert set(metrics["heads"]) == {"ridge"}
    assert "cells" not in read_run(tmp_path / "runs" / "002")


def test_heads_of_cells_are_asked_in_vain_of_a_run_that_has_none(project, tmp_path):
    run = fit_heads(settings_of(project, cells=None, test_cells=None, heads=("ridge",), out=tmp_path / "plain"), silent)
    with pytest.raises(RunError, match="has no heads of cells; expected a run of `cli fit-heads --cells`"):
        evaluate(
            EvaluateSettings(
                run=run.folder,
                features=project.path("test"),
                labels=project.labels("test"),
                cells=project.path("test_cells"),
            )
        )
