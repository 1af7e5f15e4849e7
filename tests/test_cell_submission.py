"""A submission of cells has the sample's rows, every cell of every image in them, or is not written at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from crops_data import HEIGHT, WIDTH, mask_of, write_rows
from fused_data import NAMES, SAMPLE_COLUMNS, make_fused_project, write_cells, write_tables
from test_prediction_string import parse

from features_cache.errors import (
    CacheError,
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
from tests.heads_data import make_blocks, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")

RUNS = {"one": ("ridge", "logistic"), "two": ("ridge",)}


@pytest.fixture(scope="module", params=[False, True], ids=["one label", "many labels"])
def project(request, tmp_path_factory):
    project = make_fused_project(tmp_path_factory.mktemp("fused"), many=request.param, n_images=90, n_test=20)
    for name, heads in {**RUNS, "images": ("ridge",)}.items():
        fit_heads(
            FitSettings(
                features=project.path("train"),
                labels=project.labels("train"),
                separator=project.separator,
                cells=None if name == "images" else project.path("train_cells"),
                heads=heads,
                folds=3,
                out=project.folder / "runs" / name,
            )
        )
    return project


@pytest.fixture
def settings(project, tmp_path):
    return SubmitSettings(
        runs=(project.folder / "runs" / "one",),
        features=project.path("test"),
        test_cells=project.path("test_cells"),
        cells_table=project.cells_table,
        sample=project.sample,
        out=tmp_path / "submission.csv",
    )


def own_confidences(project, run):
    """Each cell's fused probabilities by image and mask, computed from the run's files with loops."""
    folder = project.folder / "runs" / run
    description = read_run(folder)
    sides = {}
    for under, cache_name in (("heads", "test"), ("cells", "test_cells")):
        heads = load_heads(folder, description, under=under)
        with FeatureCache(project.path(cache_name)) as cache:
            sides[under] = np.mean([head.predict_images(cache.load()) for head in heads], axis=0)
    weight = description["cells"]["weight"]
    return {
        (parent, mask_of(cell)): weight * own + (1 - weight) * sides["heads"][project.test.ids.index(parent)]
        for cell, parent, own in zip(project.test.cell_ids, project.test.parents, sides["cells"], strict=True)
    }


def told_of(path):
    """What a submission tells: by image and mask, a confidence a class."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    told = {}
    for image, text in zip(table["ImageID"], table["PredictionString"], strict=True):
        for name, confidence, mask in parse(text):
            told.setdefault((image, mask), {})[name] = confidence
    return table, told


def test_every_cell_of_every_image_is_told_in_the_samples_rows(project, settings):
    summary = submit(dataclasses.replace(settings, least_confidence=0.1))

    table, told = told_of(settings.out)
    assert tuple(table.columns) == SAMPLE_COLUMNS
    assert table["ImageID"].tolist() == list(reversed(project.test.ids))
    assert set(table["ImageWidth"]) == {str(WIDTH)}
    assert set(table["ImageHeight"]) == {str(HEIGHT)}
    expected = own_confidences(project, "one")
    assert set(told) == set(expected)
    for cell, confidences in expected.items():
        wanted = {NAMES[place] for place in range(4) if confidences[place] >= 0.1} | {NAMES[confidences.argmax()]}
        assert set(told[cell]) == wanted
        for name, confidence in told[cell].items():
            assert confidence == pytest.approx(confidences[NAMES.index(name)], abs=2e-6)
    assert summary.n_rows == 20
    assert summary.cells.n_cells == len(expected) == sum(summary.class_counts.values())
    assert summary.cells.n_told == sum(map(len, told.values()))
    assert summary.heads == ("one/ridge", "one/logistic", "one/cells/ridge", "one/cells/logistic")


def test_images_without_cells_have_an_empty_text_and_are_told(project, settings):
    summary = submit(settings)
    table, _ = told_of(settings.out)
    empty = [image for image, cells in project.test.cells_of.items() if not cells]
    assert empty
    assert sorted(table.loc[table["PredictionString"] == "", "ImageID"]) == empty
    assert summary.cells.n_images_without == len(empty)
    assert f"{len(empty)} images have none" in "\n".join(summary_lines(summary))
    assert f",{WIDTH},{HEIGHT},\n" in settings.out.read_text()


def test_cells_stand_in_the_order_of_their_ids_and_classes_in_theirs(project, settings):
    submit(dataclasses.replace(settings, least_confidence=0))
    table = told_of(settings.out)[0].set_index("ImageID")["PredictionString"]
    for image, cells in project.test.cells_of.items():
        expected = [(name, mask_of(cell)) for cell in sorted(cells) for name in NAMES]
        assert [(name, mask) for name, _, mask in parse(table[image])] == expected


def test_several_runs_are_averaged_by_their_numbers_of_heads_each_with_its_own_weight(project, settings, tmp_path):
    folders = tuple(project.folder / "runs" / name for name in RUNS)
    submit(dataclasses.replace(settings, runs=folders, least_confidence=0, probabilities=tmp_path / "p.csv"))
    each = [own_confidences(project, name) for name in RUNS]
    table = pd.read_csv(tmp_path / "p.csv", dtype={"id": str, "parent": str})
    assert list(table.columns) == ["id", "parent", *NAMES]
    for row in table.to_dict("records"):
        cell = (row["parent"], mask_of(row["id"]))
        expected = np.average([run[cell] for run in each], axis=0, weights=[2, 1])
        np.testing.assert_allclose([row[name] for name in NAMES], expected, atol=2e-6)


def test_a_submission_of_ours_is_replaced_and_no_other_file(settings):
    submit(settings)
    submit(dataclasses.replace(settings, least_confidence=0.5))
    settings.out.write_text("mine")
    with pytest.raises(OutputExists, match=r"submission\.csv: exists, and is not a file that these runs wrote"):
        submit(settings)
    assert settings.out.read_text() == "mine"


def refused(settings, error, match, **changes):
    with pytest.raises(error, match=match):
        submit(dataclasses.replace(settings, **changes))
    assert not settings.out.exists()


def sample_of(tmp_path, rows):
    return write_rows(tmp_path / "sample.csv", SAMPLE_COLUMNS, rows)


def test_images_that_are_missing_extra_or_double_are_errors_and_nothing_is_written(project, settings, tmp_path):
    rows = [(image, WIDTH, HEIGHT, "") for image in project.test.ids]
    more = sample_of(tmp_path, [*rows, ("elsewhere", WIDTH, HEIGHT, "")])
    refused(settings, SubmissionError, r"1 of 21 images are not in .*test_images\.csv \('elsewhere'\)", sample=more)
    fewer = sample_of(tmp_path, rows[1:])
    refused(settings, SubmissionError, r"test_images\.csv: 1 of 20 images are not in .*sample\.csv", sample=fewer)
    double = sample_of(tmp_path, [*rows, rows[3]])
    refused(settings, SubmissionError, "1 ids occur more than once", sample=double)


def test_sizes_come_from_the_sample_where_it_has_them_and_must_be_those_of_the_table(project, settings, tmp_path):
    blank = sample_of(tmp_path, [(image, "", "", "") for image in project.test.ids])
    submit(dataclasses.replace(settings, sample=blank))
    table, _ = told_of(settings.out)
    assert set(zip(table["ImageWidth"], table["ImageHeight"], strict=True)) == {(str(WIDTH), str(HEIGHT))}
    settings.out.unlink()
    other = sample_of(
        tmp_path, [(image, WIDTH, HEIGHT + (place == 2), "") for place, image in enumerate(project.test.ids)]
    )
    refused(
        settings, SubmissionError, r"1 images have another size than in .*test_images\.csv \(lines 4\)", sample=other
    )


def test_a_sample_whose_texts_are_no_predictions_is_an_error(project, settings, tmp_path):
    bad = sample_of(tmp_path, [(image, WIDTH, HEIGHT, "0 1") for image in project.test.ids])
    refused(settings, SubmissionError, "20 cells of PredictionString are neither empty nor triples", sample=bad)


def test_tables_that_do_not_tell_of_the_same_cells_are_errors(project, settings, tmp_path):
    half = project.test
    write_tables(tmp_path / "cells", "test", half)
    path = tmp_path / "cells" / "test.csv"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for text, match in (
        ("".join(lines[:-1]), r"1 images have another number of cells here than in .*test_images\.csv"),
        ("".join([*lines, lines[-1]]), r"1 ids stand in an earlier row, too"),
        (whole.replace(mask_of(half.cell_ids[0]), "two words"), r"1 masks are empty or hold blanks \(lines 2\)"),
        (whole.replace(mask_of(half.cell_ids[0]), ""), r"1 masks are empty or hold blanks \(lines 2\)"),
    ):
        path.write_text(text)
        refused(settings, SubmissionError, match, cells_table=path)
    path.write_text("id,parent\na,b\n")
    refused(settings, TableError, "no column 'mask'", cells_table=path)
    path.write_text(whole)
    images = path.with_name("test_images.csv")
    images.write_text(images.read_text().replace(f",{WIDTH},", ",wide,", 1))
    refused(settings, TableError, r"1 rows hold a width, height or number of cells .*\(lines 2\)", cells_table=path)


def test_features_must_be_of_the_cells_of_the_table(project, settings, tmp_path):
    half = project.test
    fewer = write_cells(
        tmp_path / "fewer.h5", half, ids=half.cell_ids[1:], parents=half.parents[1:], features=half.cells[1:]
    )
    refused(settings, SubmissionError, r"1 of \d+ ids have no features .*Run `cli featurize --cells", test_cells=fewer)
    swapped = write_cells(tmp_path / "swapped.h5", half, parents=[half.parents[-1], *half.parents[1:]])
    refused(settings, SubmissionError, r"1 cells are of other images than in .*test\.csv", test_cells=swapped)
    refused(settings, SubmissionError, "ids have no features", test_cells=project.path("train_cells"))
    refused(settings, SubmissionError, "ids have no features", test_cells=project.path("test"))
    other = write_cells(tmp_path / "other.h5", half, blocks=make_blocks(seed=7))
    refused(settings, RecipeMismatch, "block 'tiny' is of another recipe", test_cells=other)
    features = half.cells.copy()
    features[4] = np.nan
    nan = write_cells(tmp_path / "nan.h5", half, features=features)
    refused(settings, CacheError, "1 images have features that are no numbers", test_cells=nan)


def test_quarantined_cells_are_left_out_and_told(project, settings, tmp_path):
    status = np.zeros(len(project.test.cell_ids), np.uint8)
    status[0] = 1
    path = write_cells(tmp_path / "q.h5", project.test, status=status)
    summary = submit(dataclasses.replace(settings, test_cells=path))
    _, told = told_of(settings.out)
    assert (project.test.parents[0], mask_of(project.test.cell_ids[0])) not in told
    assert len(told) == len(project.test.cell_ids) - 1
    assert "1 quarantined cells are left out" in summary_lines(summary)


def test_a_quarantined_image_stops_it_unless_it_is_filled_and_its_cells_then_speak_beside_the_frequencies(
    project, settings, tmp_path
):
    status = np.zeros(20, np.uint8)
    status[1] = 1
    path = tmp_path / "q.h5"
    write_cache(path, ids=project.test.ids, features=project.test.X, blocks=make_blocks(), status=status)
    refused(settings, SubmissionError, r"1 of 20 test images are quarantined .*--fill-quarantined prior", features=path)
    summary = submit(dataclasses.replace(settings, features=path, fill_quarantined="prior", least_confidence=0))
    assert summary.n_filled == 1
    _, told = told_of(settings.out)
    description = read_run(project.folder / "runs" / "one")
    share = np.array(description["class_counts"]) / description["n_images"]
    expected = own_confidences(project, "one")
    cell = (project.test.ids[1], mask_of(project.test.cells_of[project.test.ids[1]][0]))
    with FeatureCache(project.path("test")) as cache:
        heads = load_heads(project.folder / "runs" / "one", description)
        image = np.mean([head.predict_images(cache.load(rows=np.array([1]))) for head in heads], axis=0)[0]
    moved = expected[cell] + (1 - description["cells"]["weight"]) * (share - image)
    np.testing.assert_allclose([told[cell][name] for name in NAMES], moved, atol=2e-6)


def test_an_image_in_which_nobody_could_look_for_cells_is_not_called_empty_in_silence(project, settings, tmp_path):
    empty = next(image for image, cells in project.test.cells_of.items() if not cells)
    write_tables(tmp_path / "cells", "test", project.test, reasons={empty: "no mask file"})
    path = tmp_path / "cells" / "test.csv"
    refused(
        settings,
        SubmissionError,
        f"1 test images are quarantined .'{empty}: no mask file'.; .*--fill",
        cells_table=path,
    )
    submit(dataclasses.replace(settings, cells_table=path, fill_quarantined="prior"))
    assert told_of(settings.out)[0].set_index("ImageID").loc[empty, "PredictionString"] == ""


def test_of_an_image_that_could_not_be_read_nobody_knows_the_size(project, settings, tmp_path):
    empty = next(image for image, cells in project.test.cells_of.items() if not cells)
    write_tables(tmp_path / "cells", "test", project.test)
    path = tmp_path / "cells" / "test.csv"
    images = path.with_name("test_images.csv")
    text = images.read_text()
    images.write_text(text.replace(f"{empty},{WIDTH},{HEIGHT},0,", f"{empty},,,,truncated"))
    submit(dataclasses.replace(settings, cells_table=path, fill_quarantined="prior"))
    row = told_of(settings.out)[0].set_index("ImageID").loc[empty]
    assert row.tolist() == [str(WIDTH), str(HEIGHT), ""]
    settings.out.unlink()
    images.write_text(text.replace(f"{empty},{WIDTH},{HEIGHT},0,", f"{empty},,,,"))
    refused(
        settings, TableError, "1 rows hold a width, height or number of cells that is no whole number", cells_table=path
    )


def test_what_is_not_there_says_what_to_type(project, settings):
    refused(settings, OptionError, "asks for cells .*Type `cli cells`, or name it with --cells-table", cells_table=None)
    refused(settings, OptionError, "has heads of cells, too; .*--test-cells, or .*--without-cells", test_cells=None)
    images = (project.folder / "runs" / "images",)
    refused(settings, RunError, "has no heads of cells; .*--without-cells", runs=images)
    both = (*settings.runs, *images)
    refused(settings, RunError, "images: has no heads of cells", runs=both)


def test_without_cells_each_cell_is_called_what_its_image_is(project, settings):
    images = (project.folder / "runs" / "images",)
    wanted = dataclasses.replace(settings, runs=images, without_cells=True, test_cells=None, least_confidence=0)
    summary = submit(wanted)
    assert summary.heads == ("images/ridge",)
    _, told = told_of(settings.out)
    (head,) = load_heads(images[0], read_run(images[0]))
    with FeatureCache(project.path("test")) as cache:
        said = head.predict_images(cache.load())
    for (image, _), confidences in told.items():
        expected = said[project.test.ids.index(image)]
        np.testing.assert_allclose([confidences[name] for name in NAMES], expected, atol=2e-6)
    assert len(told) == len(project.test.cell_ids)


# Samples that ask for images alone


def of_images(project, settings, tmp_path, **changes):
    sample = write_csv(tmp_path / "images.csv", ["id", "label"], [(image, "0") for image in project.test.ids])
    return dataclasses.replace(settings, sample=sample, cells_table=None, probabilities=tmp_path / "p.csv", **changes)


def test_images_are_called_by_what_they_and_their_cells_say_together(project, settings, tmp_path):
    summary = submit(of_images(project, settings, tmp_path))
    table = pd.read_csv(tmp_path / "p.csv").set_index("id")
    description = read_run(settings.runs[0])
    expected = own_confidences(project, "one")
    for image, cells in project.test.cells_of.items():
        if not cells:
            continue
        each = np.array([expected[image, mask_of(cell)] for cell in cells])
        together = each.mean(axis=0) if description["cells"]["pool"] == "mean" else each.max(axis=0)
        np.testing.assert_allclose(table.loc[image, list(NAMES)], together, atol=2e-6)
    written = pd.read_csv(settings.out, dtype=str)["label"]
    assert summary.cells.n_cells == len(expected)
    if project.many:
        thresholds = np.array(description["target"]["thresholds"]["fused"]["values"])
        called = table[list(NAMES)].to_numpy() >= thresholds
        sure = called.any(axis=1)
        names = [" ".join(sorted(text.split("|"), key=NAMES.index)) for text in written]
        assert [names[row] for row in np.flatnonzero(sure)] == [
            " ".join(name for name, is_called in zip(NAMES, called[row], strict=True) if is_called)
            for row in np.flatnonzero(sure)
        ]
    else:
        assert written.tolist() == [NAMES[place] for place in table[list(NAMES)].to_numpy().argmax(axis=1)]


def test_a_run_without_cells_is_averaged_beside_one_with_them_and_cells_can_be_left_out(project, settings, tmp_path):
    runs = (project.folder / "runs" / "two", project.folder / "runs" / "images")
    tables = {}
    for name, changes in {
        "both": {"runs": runs},
        "fused": {"runs": runs[:1]},
        "plain": {"runs": runs[1:]},
        "alone": {"runs": runs[:1], "without_cells": True, "test_cells": None},
    }.items():
        submit(of_images(project, settings, tmp_path, **changes))
        tables[name] = pd.read_csv(tmp_path / "p.csv").set_index("id").to_numpy()
    np.testing.assert_allclose(tables["both"], (tables["fused"] + tables["plain"]) / 2, atol=1e-9)
    np.testing.assert_allclose(tables["alone"], tables["plain"], atol=1e-9)
    assert np.abs(tables["fused"] - tables["plain"]).max() > 0.1


def test_cells_of_images_that_are_not_asked_for_are_an_error(project, settings, tmp_path):
    half = project.test
    strange = write_cells(tmp_path / "s.h5", half, parents=["elsewhere", *half.parents[1:]])
    wanted = of_images(project, settings, tmp_path, test_cells=strange)
    refused(wanted, SubmissionError, r"1 images of its cells are not asked for \('elsewhere'\)")
