"""Cells as typed: crops to features, heads on both, a submission of every cell; again, and misused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from crops_data import HEIGHT, WIDTH, mask_of, write_crops, write_rows
from fused_data import SAMPLE_COLUMNS
from PIL import Image
from test_prediction_string import parse

from features_cache.reader import FeatureCache

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str, str]]
N_IMAGES = {"train": 24, "test": 6}
NAMES = ("0", "16")


def drawn(rng: np.random.Generator, height: int, width: int, *, striped: bool) -> Image.Image:
    pixels = rng.integers(60, 200, (height, width, 3))
    if striped:
        pixels[::4] //= 4
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder of noisy images of two classes: cells of one are striped, and so is half of its images."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for split, count in N_IMAGES.items():
        (folder / "data" / split).mkdir(parents=True)
        cells_of, pictures, labels = {}, {}, []
        for place in range(count):
            image, is_striped = f"{split}{place:02d}", place % 2 == 0
            drawn(rng, HEIGHT, WIDTH, striped=is_striped and place % 4 == 0).save(
                folder / "data" / split / f"{image}.png"
            )
            cells = [f"{image}/{number:03d}" for number in range(0 if place == 5 else 1 + place % 3)]
            cells_of[image] = cells
            pictures |= {cell: drawn(rng, 32, 32, striped=is_striped) for cell in cells}
            labels.append((image, NAMES[place % 2]))
        write_crops(folder / "cells", split, cells_of, pictures)
        if split == "train":
            write_rows(folder / "data" / "train.csv", ["id", "label"], labels)
        else:
            rows = [(image, WIDTH, HEIGHT, "0 1 eNo=") for image in reversed(cells_of)]
            write_rows(folder / "data" / "sample_submission.csv", SAMPLE_COLUMNS, rows)
    (folder / "permafeat.toml").write_text(
        '[featurize]\nbackbone = ["squeezenet1_1"]\nweights = "random"\nsize = 64\n\n'
        '[fit-heads]\nfolds = 3\nheads = ["ridge", "logistic"]\n'
    )
    return folder


@pytest.fixture
def inside(challenge: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(challenge)
    return challenge


def test_four_lines_make_a_submission_of_every_cell(inside: Path, run_cli: Run) -> None:
    assert run_cli("featurize", "--augment", "1")[0] == 0
    code, _, err = run_cli("featurize", "--augment", "1", "--cells", "cells")
    assert code == 0, err
    assert "features/train_cells.h5: 45 images x 2 views x 512 columns" in err
    code, out, err = run_cli("fit-heads", "--cells", "features/train_cells.h5")
    assert code == 0, err
    assert "w · cells + (1 - w) · image" in out
    code, out, err = run_cli("submit")
    assert (code, out) == (0, "")
    assert "6 rows; 4 heads (001/ridge, 001/logistic, 001/cells/ridge, 001/cells/logistic)" in err
    assert "9 cells" in err
    assert "1 images have none" in err
    assert "RANDOM WEIGHTS" in err

    table = pd.read_csv("submission.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == list(SAMPLE_COLUMNS)
    assert table["ImageID"].tolist() == [f"test{place:02d}" for place in reversed(range(6))]
    with FeatureCache(Path("features/test_cells.h5")) as cache:
        expected = {(parent, mask_of(cell)) for cell, parent in zip(cache.ids, cache.parents or (), strict=True)}
    told = {
        (image, mask): {name for name, _, other in parse(text) if other == mask}
        for image, text in zip(table["ImageID"], table["PredictionString"], strict=True)
        for _, _, mask in parse(text)
    }
    assert set(told) == expected
    best = {
        (image, mask): max((each for each in parse(text) if each[2] == mask), key=lambda each: each[1])[0]
        for image, text in zip(table["ImageID"], table["PredictionString"], strict=True)
        for _, _, mask in parse(text)
    }
    right = [name == NAMES[int(image[-2:]) % 2] for (image, _), name in best.items()]
    assert np.mean(right) > 0.8

    first = Path("submission.csv").read_bytes()
    code, _, err = run_cli("featurize", "--augment", "1", "--cells", "cells")
    assert code == 0
    assert err.count("complete, nothing to compute") == 2
    assert run_cli("fit-heads", "--cells", "features/train_cells.h5")[0] == 0
    assert run_cli("submit")[0] == 0
    assert Path("submission.csv").read_bytes() == first


def test_the_run_s_figures_its_json_and_the_list_of_runs_tell_of_both(inside: Path, run_cli: Run) -> None:
    metrics = json.loads(Path("runs/latest/metrics.json").read_text())
    assert metrics["random_weights"] is True
    assert (metrics["cells"]["n_cells"], metrics["cells"]["n_images_without_cells"]) == (45, 1)
    assert metrics["cells"]["n_views_averaged"] == 2
    assert metrics["heads"]["fused"]["balanced_accuracy"]["value"] > 0.9
    rows = json.loads(run_cli("runs", "--json")[1])
    assert {"ridge", "logistic", "ensemble", "cells", "fused"} == set(rows[0]["heads"])
    code, out, _ = run_cli("submit", "--json", "--least-confidence", "0")
    assert code == 0
    assert json.loads(out)["cells"] == {"n_cells": 9, "n_quarantined": 0, "n_images_without": 1, "n_told": 18}


def test_an_evaluation_asks_the_cells_too(inside: Path, run_cli: Run) -> None:
    labels = [(f"test{place:02d}", NAMES[place % 2]) for place in range(6)]
    write_rows(Path("solution.csv"), ["id", "label"], labels)
    words = ("evaluate", "--features", "features/test.h5", "--labels", "solution.csv", "--json")
    metrics = json.loads(run_cli(*words, "--cells", "features/test_cells.h5")[1])
    assert metrics["heads"]["fused"]["accuracy"]["value"] > 0.8
    assert "fused" not in json.loads(run_cli(*words)[1])["heads"]


def test_a_run_with_cells_does_not_fall_back_on_images_in_silence(inside: Path, run_cli: Run) -> None:
    before = Path("submission.csv").read_bytes()
    Path("features/test_cells.h5").rename("features/away.h5")
    try:
        code, _, err = run_cli("submit")
        assert code == 2
        assert "has heads of cells, too; expected the cache of the test images' cells" in err
        assert "`cli featurize --cells cells`" in err
        assert Path("submission.csv").read_bytes() == before
        assert run_cli("submit", "--without-cells", "--out", "alone.csv")[0] == 0
    finally:
        Path("features/away.h5").rename("features/test_cells.h5")
    assert run_cli("submit", "--least-confidence", "2")[0] == 2
