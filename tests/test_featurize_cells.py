"""Crops of cells through the networks: caches of their own, which know each cell's image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cache_data import QUICK, picture
from crops_data import COLUMNS, write_crops, write_rows

from features_cache.reader import FeatureCache

Run = Callable[..., tuple[int, str, str]]
WORDS = (*QUICK, "--cells", "cells")
TRAIN = {"train0": ["train0/001", "train0/002"], "train1": ["train1/001"], "train2": []}
TEST = {"test0": ["test0/001", "test0/002", "test0/003"]}


@pytest.fixture
def cells(project: Path) -> Path:
    write_crops(project / "cells", "train", TRAIN)
    write_crops(project / "cells", "test", TEST)
    return project / "cells"


def parents_in(path: str) -> dict[str, str]:
    with FeatureCache(Path(path)) as cache:
        assert cache.parents is not None
        return dict(zip(cache.ids, cache.parents, strict=True))


def test_crops_become_caches_of_their_own_beside_those_of_the_images(cells: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    code, _, err = run_cli("featurize", *WORDS, "--augment", "1")
    assert code == 0, err
    assert "features/train_cells.h5: 3 images x 2 views x 512 columns" in err
    assert parents_in("features/train_cells.h5") == {
        "train0/001": "train0",
        "train0/002": "train0",
        "train1/001": "train1",
    }
    assert set(parents_in("features/test_cells.h5").values()) == {"test0"}
    with FeatureCache(Path("features/train.h5")) as images, FeatureCache(Path("features/train_cells.h5")) as crops:
        assert images.parents is None
        assert images.blocks == crops.blocks
    for name in ("train.h5", "train_cells.json", "test_cells.json"):
        assert Path("features", name).is_file()


def test_typed_again_there_is_nothing_to_compute_and_more_cells_are_computed_alone(cells: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *WORDS)[0] == 0
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 0
    assert err.count("complete, nothing to compute") == 2
    write_crops(cells, "train", TRAIN | {"train2": ["train2/001"]})
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 0, err
    assert "1 computed" in err
    assert parents_in("features/train_cells.h5")["train2/001"] == "train2"
    extended = Path("features/train_cells.h5").read_bytes()
    assert run_cli("featurize", *WORDS, "--out", "at-once")[0] == 0
    assert Path("at-once/train_cells.h5").read_bytes() == extended


def test_a_cell_of_another_image_than_before_is_an_error(cells: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *WORDS)[0] == 0
    before = Path("features/train_cells.h5").read_bytes()
    write_crops(cells, "train", {"train0": ["train0/001"], "train1": ["train0/002", "train1/001"]})
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 2
    assert "1 images have another parent than the one that they had ('train0/002')" in err
    assert "--overwrite" in err
    assert Path("features/train_cells.h5").read_bytes() == before


def test_a_table_without_parents_is_an_error_that_says_what_to_type(cells: Path, run_cli: Run) -> None:
    write_rows(cells / "train.csv", ["id", "image"], [[cell, "x"] for each in TRAIN.values() for cell in each])
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 2
    assert "cells/train.csv:1: no column 'parent'; found columns id, image" in err
    assert "Run `cli cells`" in err or "run it again" in err
    assert "--train-images cells/train --labels cells/train.csv" in err
    assert not list(Path("features").glob("*.h5"))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([("train0/001", ""), ("train0/002", "train0"), ("train1/001", "train1")], "1 crops have no parent (lines 2)"),
        (
            [("train0/001", "a"), ("train0/002", "a"), ("train1/001", "a"), ("train1/001", "b")],
            "1 crops have another parent in an earlier row (lines 5)",
        ),
    ],
)
def test_every_crop_has_one_parent(cells: Path, run_cli: Run, rows: list[tuple[str, str]], match: str) -> None:
    write_rows(cells / "train.csv", ["id", "parent"], rows)
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 2
    assert match in err


def test_a_folder_without_crops_and_crops_without_a_table_say_what_to_run(cells: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *QUICK, "--cells", "elsewhere")
    assert code == 2
    assert "--cells elsewhere: neither elsewhere/train nor elsewhere/test is there; run `cli cells` first" in err
    (cells / "test.csv").unlink()
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 2
    assert "cells/test.csv: no such file; expected the table of the crops in cells/test. Run `cli cells` again" in err


def test_training_crops_alone_will_do(cells: Path, run_cli: Run) -> None:
    for path in (cells / "test").rglob("*.png"):
        path.unlink()
    (cells / "test" / "test0").rmdir()
    (cells / "test").rmdir()
    code, _, err = run_cli("featurize", *WORDS)
    assert code == 0, err
    assert "there is no cell of test images, so no test_cells.h5" in err


def test_crops_of_one_file_a_channel_are_found_by_their_pattern(cells: Path, run_cli: Run) -> None:
    for path in list((cells / "train").rglob("*.png")):
        for number, channel in enumerate(("er", "nucleus", "dna")):
            picture(number, 24).convert("L").save(path.with_name(f"{path.stem}_{channel}.png"))
        path.unlink()
    channels = ("--pattern", "{id}_{channel}.png", "--channels", "er,nucleus,dna")
    for path in list((cells / "test").rglob("*.png")):
        path.unlink()
    (cells / "test" / "test0").rmdir()
    (cells / "test").rmdir()
    assert run_cli("featurize", *WORDS, *channels)[0] == 0
    assert parents_in("features/train_cells.h5")["train1/001"] == "train1"


def test_shards_and_a_kill_lose_no_parent(cells: Path, run_cli: Run) -> None:
    words = (*WORDS, "--batch-size", "1")
    assert run_cli("featurize", *words, "--out", "whole")[0] == 0
    for shard in ("1/2", "2/2"):
        assert run_cli("featurize", *words, "--shard", shard)[0] == 0
    assert Path("features/train_cells.h5").read_bytes() == Path("whole/train_cells.h5").read_bytes()


def test_the_table_s_other_columns_are_nobody_s_business_here(cells: Path, run_cli: Run) -> None:
    assert set(COLUMNS) > {"id", "parent"}
    code, out, _ = run_cli("featurize", *WORDS, "--dry-run", "--json")
    assert code == 0
    assert '"train_cells": {"n_images": 3' in out
