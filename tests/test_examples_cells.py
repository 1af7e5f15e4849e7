"""S2, the example whose submission is of cells: two blends, images and cells, fused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from examples_data import Run, make, require_rows_of_the_sample, table, typed
from test_prediction_string import parse

from features_cache.reader import FeatureCache
from featurize.cells.masks import decode_mask

pytestmark = pytest.mark.usefixtures("one_thread")

BLENDS = ("efficientnet_b0:yellow+blue+red", "efficientnet_b0:red+green+blue")
SIDE_PX = 256


def test_s2_submits_every_cell_with_the_blends_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    make("s2", tmp_path, "--train", 40, "--test", 6)
    random = ("--weights", "random")
    typed(run_cli, "s2", "featurize", *random, "--resize", 40, "--size", 32)
    typed(run_cli, "s2", "cells")
    words = ("--cells", "cells", *random, "--resize", 36, "--size", 32, "--augment", 1)
    typed(run_cli, "s2", "featurize", *words, config="cells.toml")
    with FeatureCache(Path("features/train.h5")) as images, FeatureCache(Path("features/train_cells.h5")) as cells:
        assert tuple(block.name for block in images.blocks) == BLENDS
        assert tuple(block.name for block in cells.blocks) == BLENDS
        assert [block.recipe.channels for block in images.blocks] == [
            ("yellow", "blue", "red"),
            ("red", "green", "blue"),
        ]
        assert (images.load().shape[1], cells.load().shape[1]) == (1, 2)
        assert set(cells.parents or ()) <= set(images.ids)
        told = " ".join(cells.blocks[0].recipe.augmentation)
        assert all(term in told for term in ("flip", "rotation", "skew"))
    words = ("--cells", "features/train_cells.h5", "--heads", "ridge", "--folds", 2, "--blocks", BLENDS[1])
    typed(run_cli, "s2", "fit-heads", *words)
    run = json.loads(Path("runs/latest/run.json").read_text())
    assert len(run["classes"]) == 19
    assert {"ridge", "cells", "fused"} <= set(json.loads(Path("runs/latest/metrics.json").read_text())["heads"])
    typed(run_cli, "s2", "submit")

    submission = require_rows_of_the_sample(["ImageID", "ImageWidth", "ImageHeight", "PredictionString"])
    assert set(submission["ImageWidth"]) == set(submission["ImageHeight"]) == {str(SIDE_PX)}
    crops = table("cells/test.csv")
    n_cells = 0
    for image, text in zip(submission["ImageID"], submission["PredictionString"], strict=True):
        said = parse(text)
        assert {name for name, _, _ in said} <= {str(number) for number in range(19)}
        assert all(0 <= confidence <= 1 for _, confidence, _ in said)
        masks = {mask for _, _, mask in said}
        assert masks == set(crops.loc[crops["parent"] == image, "mask"])
        covered = [decode_mask(mask, SIDE_PX, SIDE_PX) for mask in masks]
        assert all(mask.any() for mask in covered)
        assert np.sum(covered, axis=0).max(initial=0) <= 1, "no pixel is of two cells"
        n_cells += len(masks)
    assert n_cells == len(crops) > 6
