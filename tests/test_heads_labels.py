"""Labels: joined by id as text; every fault named before anything is fitted."""

from __future__ import annotations

import numpy as np
import pytest

from features_cache.errors import LabelError, TableError
from heads.folds import check_folds, inner_folds, make_folds
from heads.labelled import join_labels
from heads.labels import labels_from_folders, read_labels
from heads.targets import OneLabel
from tests.heads_data import write_csv

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = ("007", "1e5", "7", "x")
GOOD = np.ones(4, dtype=bool)


def join(path, ids=IDS, good=GOOD, grouped=False, **options):
    reading = {name: options.pop(name) for name in ("group_column", "drop_missing", "label_column") if name in options}
    table, warnings = read_labels(path, **reading)
    return join_labels(table, ids, good, source=str(path), grouped=grouped, warnings=warnings, **options)


@pytest.fixture
def records():
    return [["x", "b"], ["7", "a"], ["1e5", "b"], ["007", "a"]]


def test_labels_are_joined_by_id_in_the_order_of_the_cache_and_ids_stay_text(tmp_path, records):
    images = join(write_csv(tmp_path / "l.csv", ["id", "label"], records))
    assert images.ids == IDS
    assert images.classes == ("a", "b")
    assert images.targets.labels.tolist() == [0, 1, 0, 1]
    assert images.rows.tolist() == [0, 1, 2, 3]
    assert images.class_counts.tolist() == [2, 2]
    assert images.groups is None


def test_an_id_without_image_and_an_image_without_label_are_counted_with_five_examples_each_way(tmp_path, records):
    strangers = [[f"s{index}", "a"] for index in range(7)]
    path = write_csv(tmp_path / "l.csv", ["id", "label"], records[1:] + strangers)
    with pytest.raises(
        LabelError,
        match=r"7 of 10 labelled ids have no image \('s0', 's1', 's2', 's3', 's4' and 2 more\); "
        r"1 of 4 images have no label \('x'\); .*--ignore-unlabelled",
    ):
        join(path)


def test_unlabelled_images_may_be_left_out(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], records[1:])
    with pytest.raises(LabelError, match="1 of 4 images have no label"):
        join(path)
    images = join(path, ignore_unlabelled=True)
    assert images.ids == ("007", "1e5", "7")
    assert images.n_unlabelled == 1
    assert "1 of 4 images have no label ('x'); left out" in images.warnings[-1]


def test_labels_without_an_image_may_be_left_out_too(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], [*records, ["stranger", "a"]])
    images = join(path, ignore_unlabelled=True)
    assert images.n_images == 4
    assert "1 of 5 labelled ids have no image ('stranger'); left out" in images.warnings[-1]


def test_a_double_id_with_the_same_label_is_warned_about_and_counted_once(tmp_path, records):
    images = join(write_csv(tmp_path / "l.csv", ["id", "label"], [*records, ["7", "a"]]))
    assert images.n_images == 4
    assert "1 ids occur more than once with the same label ('7')" in images.warnings[0]


def test_a_double_id_with_another_label_is_an_error_with_both_lines(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], [*records, ["7", "b"]])
    with pytest.raises(LabelError, match=r"l\.csv: 1 ids occur .*'7' has the labels 'a' on line 3, 'b' on line 6"):
        join(path)


@pytest.mark.parametrize("blank", ["", "NaN", "?", "  "])
def test_a_missing_label_is_an_error_with_its_line_unless_dropped(tmp_path, records, blank):
    records[0][1] = blank
    path = write_csv(tmp_path / "l.csv", ["id", "label"], records)
    with pytest.raises(LabelError, match=r"1 of 4 labels are blank, NaN or '\?' \(lines 2\).*--drop-missing"):
        join(path)
    images = join(path, drop_missing=True, ignore_unlabelled=True)
    assert images.n_images == 3
    assert "left out" in images.warnings[0]


def test_a_dropped_label_does_not_make_its_image_unlabelled(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], [*records[1:], ["x", "?"]])
    assert join(path, drop_missing=True).n_images == 3


def test_one_class_is_an_error(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label"], [[name, "a"] for name, _ in records])
    with pytest.raises(LabelError, match=r"4 usable images in 1 class \('a'\); expected at least 2"):
        join(path)


def test_an_excluded_class_is_left_out_and_an_unknown_one_gets_a_suggestion(tmp_path, records):
    records[0][1] = "Folded"
    path = write_csv(tmp_path / "l.csv", ["id", "label"], records)
    assert join(path, exclude_class=("Folded",)).classes == ("a", "b")
    with pytest.raises(LabelError, match=r"--exclude-class 'Foldd': no such class; .*did you mean 'Folded'\?"):
        join(path, exclude_class=("Foldd",))


def test_quarantined_images_are_left_out_and_counted(tmp_path, records):
    good = np.array([True, False, True, True])
    images = join(write_csv(tmp_path / "l.csv", ["id", "label"], records), good=good)
    assert images.n_quarantined == 1
    assert images.rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize("column", ["well", "Plate", "patient_id", "slide", "batch"])
def test_a_column_that_looks_like_a_group_is_warned_about(tmp_path, records, column):
    path = write_csv(tmp_path / "l.csv", ["id", "label", column], [[*record, "g"] for record in records])
    assert f"Consider --group-column {column}" in join(path).warnings[0]
    assert join(path, group_column=column, grouped=True).warnings == ()


def test_all_columns_that_look_like_groups_are_named(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label", "plate", "well"], [[*record, "g", "h"] for record in records])
    assert "Consider --group-column plate or well" in join(path).warnings[0]


def test_an_image_without_a_group_is_an_error_with_its_line(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "label", "well"], [[*record, ""] for record in records])
    with pytest.raises(LabelError, match=r"4 records have no 'well' \(lines 2, 3, 4, 5\)"):
        join(path, group_column="well")


def test_wrong_column_names_show_those_found(tmp_path, records):
    path = write_csv(tmp_path / "l.csv", ["id", "lable"], records)
    with pytest.raises(TableError, match=r"no column 'label'; found columns id, lable; did you mean 'lable'\?"):
        join(path)
    with pytest.raises(TableError, match="no such file"):
        join(tmp_path / "absent.csv")


def test_without_a_csv_the_class_is_the_first_folder_of_the_id():
    assert labels_from_folders(["a/b/1", "c/2"])["label"].tolist() == ["a", "c"]
    with pytest.raises(LabelError, match=r"1 of 2 ids lie in no class folder \('2'\). Give a CSV with --labels"):
        labels_from_folders(["a/1", "2"])


def one(labels):
    """Targets of one label an image."""
    return OneLabel(labels, 1 + int(labels.max()))


def test_a_class_that_would_vanish_from_a_training_part_is_an_error_with_a_way_out():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    groups = np.array([0, 1, 2, 3, 4] * 8 + [5, 5])
    folds = make_folds(one(labels), groups, n_folds=5)
    with pytest.raises(
        LabelError, match=r"1 classes would vanish .*'rare' \(2 images\).*--folds 3.*--exclude-class rare"
    ):
        check_folds(folds, one(labels), ["a", "b", "rare"])


@pytest.mark.parametrize(
    ("labels", "groups", "n_folds", "advice"),
    [
        ([0] * 20 + [1] * 20 + [2], None, 3, "3 folds; leave them out (--exclude-class rare)"),
        ([0] * 20 + [1] * 20 + [2] * 3, [0, 1] * 20 + [2] * 3, 2, "name a finger group column"),
        ([0] * 9 + [1] * 9 + [2] * 9, [0] * 9 + [1] * 9 + [2] * 9, 3, "classes and groups coincide"),
    ],
)
def test_no_way_out_is_proposed_that_leads_back_here(labels, groups, n_folds, advice):
    labels = np.array(labels)
    groups = None if groups is None else np.array(groups)
    folds = make_folds(one(labels), groups, n_folds=n_folds)
    with pytest.raises(LabelError) as caught:
        check_folds(folds, one(labels), ["a", "b", "rare"])
    assert advice.replace("finger", "finer") in str(caught.value)
    assert f"--folds {n_folds})" not in str(caught.value)
    assert "--exclude-class a,b,rare" not in str(caught.value)


def test_no_fold_is_checked_in_vain():
    labels = np.arange(40) % 2
    check_folds(make_folds(one(labels), None, n_folds=4), one(labels), ["a", "b"])
    assert inner_folds(one(labels), np.zeros(40, dtype=np.int64), n_folds=5, seed=0) == ()
