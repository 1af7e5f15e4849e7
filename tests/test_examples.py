"""The example projects from made data to a submission, with the settings that they come with."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from examples_data import (
    EXAMPLES,
    PAGES,
    SYSTEMS,
    Run,
    labels_of,
    lines_typed,
    make,
    require_labels,
    require_rows_of_the_sample,
    table,
    typed,
)

from features_cache.reader import FeatureCache

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = ("--weights", "random")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_s0_puts_four_networks_side_by_side_and_submits_a_label_a_row(folder: Path, run_cli: Run) -> None:
    make("s0", folder, "--train", 45, "--test", 20)
    typed(run_cli, "s0", "featurize", *RANDOM, "--size", 32, "--augment", 1)
    with FeatureCache(Path("features/train.h5")) as train, FeatureCache(Path("features/test.h5")) as test:
        names = {block.name: block.columns for block in train.blocks}
        assert names == {"vgg19": 512, "resnet18": 512, "efficientnet_b0": 1280, "vit_b_16": 768}
        assert train.load().shape == (45, 2, 3072)
        assert test.load().shape == (20, 1, 3072)
        recipe = train.blocks[0].recipe
        assert recipe.augmentation
    typed(run_cli, "s0", "fit-heads", "--heads", "ridge,logistic", "--blocks", "vgg19", "--folds", 2)
    run = json.loads(Path("runs/latest/run.json").read_text())
    assert len(run["classes"]) == 9
    typed(run_cli, "s0", "submit")
    submission = require_rows_of_the_sample(["id", "label"])
    assert set(submission["label"]) <= set(run["classes"])
    solution = labels_of(Path("solution.csv"), "label")
    assert np.mean(submission["label"] == submission["id"].map(solution)) > 1 / 9


def test_s1_normalises_by_its_own_training_images_and_draws_curves_counts_and_confusion(
    folder: Path, run_cli: Run
) -> None:
    make("s1", folder, "--train", 45, "--test", 20)
    typed(run_cli, "s1", "featurize", *RANDOM, "--size", 32)
    with FeatureCache(Path("features/train.h5")) as train, FeatureCache(Path("features/test.h5")) as test:
        (block,) = train.blocks
        assert (block.name, block.columns) == ("densenet161:nucleus+microtubules+er", 2208)
        assert block.recipe.channels == ("nucleus", "microtubules", "er")
        assert block.recipe.statistics == "dataset"
        assert block.recipe.mean != (0.485, 0.456, 0.406)
        assert test.blocks[0].digest == block.digest
    typed(run_cli, "s1", "fit-heads", "--folds", 2)
    head = json.loads(Path("runs/latest/heads/linear.json").read_text())
    assert {"dropout": 0.5, "learning_rate": 1e-3, "batch_rows": 64}.items() <= head["settings"].items()
    pictures = {path.name for path in Path("runs/latest").glob("*.png")}
    assert {"learning_linear.png", "class_counts.png", "confusion_linear.png"} <= pictures
    assert json.loads(Path("runs/latest/run.json").read_text())["resampling"]["n_copied"] > 0
    typed(run_cli, "s1", "submit")
    require_rows_of_the_sample(["id", "label"])


def test_s3_learns_from_further_images_and_chooses_thresholds(folder: Path, run_cli: Run) -> None:
    make("s3", folder, "--train", 90, "--test", 12, "--extra", 20)
    words = (*RANDOM, "--size", 32, "--augment", 1)
    typed(run_cli, "s3", "featurize", *words)
    with FeatureCache(Path("features/train.h5")) as train:
        (block,) = train.blocks
        assert (block.name, block.columns) == ("googlenet:red+green+blue", 1024)
    extra = folder / "extra"
    (extra / "features").mkdir()
    (folder / "features" / "random-weights").rename(extra / "features" / "random-weights")
    typed(run_cli, "s3", "featurize", *words, "--out", extra / "features", "--train-images", extra / "data" / "train",
          "--limit", 20)  # fmt: skip
    tables = ("--extra", extra / "features" / "train.h5", "--extra-labels", extra / "data" / "train.csv")
    quick = ("--heads", "linear", "--folds", 2)
    typed(run_cli, "s3", "fit-heads", *quick, *tables)
    run = json.loads(Path("runs/latest/run.json").read_text())
    assert run["n_extra"] == 20
    assert run["resampling"]["n_copied"] > 0
    assert run["resampling"]["n_left_out"] > 0
    typed(run_cli, "s3", "submit")
    submission = require_rows_of_the_sample(["Id", "Predicted"])
    require_labels(submission["Predicted"], 28)


def test_s3_takes_the_real_labels_and_fills_the_real_sample(folder: Path, run_cli: Run, real_data: Path) -> None:
    make("s3", folder, "--hpa2018", real_data / "hpa2018", "--train", 300, "--features")
    real = labels_of(real_data / "hpa2018" / "train.csv", "Target")
    ours = labels_of(Path("data/train.csv"), "Target")
    assert len(ours) == 300
    assert {name: real[name] for name in ours} == ours
    assert {number for text in ours.values() for number in text.split()} == {str(number) for number in range(28)}
    typed(run_cli, "s3", "import", "made/train.npy", "--ids", "data/train.csv", "--block", "made")
    words = ("--ids", "data/sample_submission.csv", "--block", "made", "--out", "features/test.h5")
    typed(run_cli, "s3", "import", "made/test.npy", *words)
    for threshold in ("common", "each"):
        typed(run_cli, "s3", "fit-heads", "--heads", "logistic", "--folds", 3, "--thresholds", threshold)
    assert len(json.loads(run_cli("runs", "--json")[1])) == 2
    typed(run_cli, "s3", "submit")
    submission = require_rows_of_the_sample(["Id", "Predicted"])
    theirs = table(real_data / "hpa2018" / "sample_submission.csv")
    assert submission["Id"].tolist() == theirs["Id"].tolist()
    assert len(submission) == 11_702
    require_labels(submission["Predicted"], 28)
    solution = labels_of(Path("solution.csv"), "Target")
    shared = [bool(set(a.split()) & set(solution[i].split())) for i, a in submission.itertuples(index=False)]
    assert np.mean(shared) > 0.5
    out, _ = typed(run_cli, "s3", "evaluate", "--features", "features/test.h5", "--labels", "solution.csv",
                   "--label-column", "Target", "--id-column", "Id", "--json")  # fmt: skip
    assert json.loads(out)["heads"]["logistic"]["macro_f1"]["value"] > 0.15


def test_s4_searches_a_head_s_settings_on_small_images_of_three_channels(folder: Path, run_cli: Run) -> None:
    make("s4", folder, "--train", 84, "--test", 12)
    typed(run_cli, "s4", "featurize", *RANDOM, "--size", 32, "--augment", 1)
    with FeatureCache(Path("features/train.h5")) as train:
        (block,) = train.blocks
        assert (block.name, block.columns) == ("vgg16:red+green+blue", 512)
        told = " ".join(block.recipe.augmentation)
    assert all(term in told for term in ("flip", "rotation", "zoom", "shift", "brightness"))
    typed(run_cli, "s4", "fit-heads", "--folds", 2, "--search", 2, "--heads", "linear")
    run = json.loads(Path("runs/latest/run.json").read_text())
    assert len(run["classes"]) == 28
    assert run["search"]
    typed(run_cli, "s4", "submit")
    submission = require_rows_of_the_sample(["Id", "Predicted"])
    require_labels(submission["Predicted"], 28)


def test_real_labels_may_have_drawn_images(folder: Path, real_data: Path) -> None:
    make("s4", folder, "--hpa2018", real_data / "hpa2018", "--train", 110, "--test", 3)
    ids = set(labels_of(Path("data/train.csv"), "Target"))
    assert len(ids) == 110
    assert {f"{name}_{colour}.png" for name in ids for colour in ("red", "green", "blue", "yellow")} == {
        path.name for path in Path("data/train").iterdir()
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_page_types_options_that_there_are_and_the_example_points_to_it(system: str, run_cli: Run) -> None:
    page = PAGES / f"{system.upper()}.md"
    assert f"docs/examples/{page.name}" in (EXAMPLES / system / "README.md").read_text()
    lines = lines_typed(page)
    assert {"featurize", "fit-heads", "submit"} <= {line.split()[1] for line in lines if line.startswith("cli ")}
    for line in lines:
        program, *words = shlex.split(line)
        if program == "cli":
            known = run_cli(words[0], "--help")[1].split()
            assert [word for word in words if word.startswith("--") and word not in known] == []
        elif program == "python":
            assert (EXAMPLES / system / words[0]).is_file()
            assert words[1] == system
        else:
            assert program in {"mkdir", "cp", "cd"}


def test_data_that_is_there_is_neither_made_twice_nor_replaced(folder: Path) -> None:
    make("s0", folder, "--train", 20, "--test", 20)
    written = Path("data/train.csv").stat().st_mtime_ns
    make("s0", folder, "--train", 20, "--test", 20)
    assert Path("data/train.csv").stat().st_mtime_ns == written
    with pytest.raises(AssertionError, match=r"is there, and is not what was asked for; remove it"):
        make("s0", folder, "--train", 21, "--test", 20)
    with pytest.raises(AssertionError, match="are for s3 and s4, not for s0"):
        make("s0", folder / "other", "--extra", 5)
