"""`cli check`: everything that could stop the other commands, found in one go, and nothing computed or written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_data import QUICK

Run = Callable[..., tuple[int, str, str]]
TRAIN = Path("data/train")
FOLDS = ("--folds", "2")


def everything(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sound_project_has_nothing_in_the_way_and_nothing_is_written(project: Path, run_cli: Run) -> None:
    before = everything(project)
    code, out, err = run_cli("check", *QUICK, *FOLDS, "--augment", "2")
    assert code == 0, err
    assert "note: train: 6 images in data/train" in out
    assert "note: labels: 6 images, 2 classes; fewest images: 'a 3', 'b 3'" in out
    assert "warning: RANDOM WEIGHTS" in out
    assert out.rstrip().endswith("nothing stands in the way")
    assert everything(project) == before


def test_all_that_is_wrong_is_listed_at_once(project: Path, run_cli: Run) -> None:
    for index in (1, 4):
        (TRAIN / f"train{index}.png").write_bytes(b"")
    (TRAIN / "train5.png").write_bytes((TRAIN / "train0.png").read_bytes())
    with Path("data/sample_submission.csv").open("a") as file:
        file.write("test9,a\n")
    code, out, _ = run_cli(
        "check", "--weights", "random", "--backbone", "resnt18,squeezenet1_1", "--size", "64", "--group-column", "wel"
    )
    assert code == 2
    for text in (
        "error: data/test: 1 of 4 ids in data/sample_submission.csv have no image ('test9')",
        "error: no backbone 'resnt18'",
        "error: data/train: 2 of 6 images cannot be used, above --max-bad 0.01:",
        "train1: not an image (empty file)",
        "warning: 1 groups of images are the same bytes ('train:train0 = train:train5')",
        "error: data/train.csv:1: no column 'wel'",
        "4 errors",
    ):
        assert text in out, text
    kinds = [
        line.partition(":")[0] for line in out.splitlines() if line.partition(":")[0] in {"error", "warning", "note"}
    ]
    assert kinds == sorted(kinds, key=["error", "warning", "note"].index), "the gravest first"


def test_a_class_that_would_vanish_from_a_fold_is_found_before_anything_is_computed(
    project: Path, run_cli: Run
) -> None:
    rows = [f"train{index},{'a' if index else 'b'}" for index in range(6)]
    Path("data/train.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    code, out, _ = run_cli("check", *QUICK, *FOLDS)
    assert code == 2
    assert "error: " in out
    assert "'b'" in out


def test_what_is_refused_ends_with_3_and_the_rest_is_still_told(project: Path, run_cli: Run) -> None:
    (TRAIN / "link.png").symlink_to("/etc/hostname")
    code, out, _ = run_cli("check", *QUICK, *FOLDS)
    assert code == 3
    assert "refused: data/train/link.png: a link out of data/train" in out
    assert "note: test: 3 images in data/test" in out


def test_one_fault_hides_no_other(project: Path, run_cli: Run) -> None:
    os.mkfifo(TRAIN / "pipe.png")
    (TRAIN / "loop.png").symlink_to("loop.png")
    (TRAIN / "out.png").symlink_to("/etc/hostname")
    (TRAIN / "train1.png").write_bytes(b"")
    Path("data/sample_submission.csv").write_text("id;label\ntest0;a\n")
    Path("data/test/test1.png").write_bytes(b"<!DOCTYPE html>")
    code, out, _ = run_cli("check", *QUICK, *FOLDS)
    assert code == 3
    for text in (
        "pipe.png: not a regular file",
        "loop.png: a link that leads nowhere",
        "out.png: a link out of data/train",
    ):
        assert text in out
    assert "train1.png: not an image (empty file)" in out
    assert "semicolons" in out
    assert "test1.png: not an image (looks like HTML" in out


def test_images_that_a_cache_holds_and_that_are_gone_are_found(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    rows = Path("data/train.csv").read_text().splitlines()
    Path("data/train.csv").write_text("\n".join(rows[:-1]) + "\n")
    code, out, _ = run_cli("check", *QUICK, *FOLDS, "--ignore-unlabelled")
    assert code == 2
    assert "features/train.h5: 1 of its images are gone ('train5')" in out


def test_a_disk_too_small_is_found(project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 1000))
    code, out, _ = run_cli("check", *QUICK, *FOLDS)
    assert code == 2
    assert "GB free" in out


def test_weights_that_are_not_here_are_told_and_not_downloaded(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    code, out, _ = run_cli("check", "--backbone", "squeezenet1_1", *FOLDS)
    assert code == 0
    assert (
        "warning: squeezenet1_1: its weights (IMAGENET1K_V1) are not on this machine; they would be downloaded" in out
    )
    assert not (tmp_path / "empty").exists()
    code, out, _ = run_cli("check", "--backbone", "squeezenet1_1", *FOLDS, "--weights", "squeezenet1_1=nowhere.pth")
    assert code == 2
    assert "error: nowhere.pth: no such file" in out


def test_defaults_come_from_the_sections_of_the_commands_that_it_looks_ahead_to(project: Path, run_cli: Run) -> None:
    Path("permafeat.toml").write_text(
        '[featurize]\nbackbone = "squeezenet1_1"\nweights = "random"\nsize = 64\n[fit-heads]\ngroup-column = "plate"\nfolds = 2\n'
    )
    code, out, _ = run_cli("check")
    assert code == 2
    assert "error: data/train.csv:1: no column 'plate'" in out
    assert "RANDOM WEIGHTS" in out


def test_programs_get_json(project: Path, run_cli: Run) -> None:
    code, out, _ = run_cli("check", *QUICK, *FOLDS, "--json")
    assert code == 0
    found = json.loads(out)
    assert {entry["kind"] for entry in found} == {"warning", "note"}
