"""The main job as typed: three bare lines, again, killed, asked about, misused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cache_data import picture
from PIL import Image

import cli
from features_cache.reader import FeatureCache

Run = Callable[..., tuple[int, str, str]]
N_TRAIN, N_TEST = 36, 9


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder of striped and plain pictures that frozen features tell apart, and a permafeat.toml that makes it quick."""
    folder = tmp_path_factory.mktemp("challenge")
    rng = np.random.default_rng(0)
    for split, count in (("train", N_TRAIN), ("test", N_TEST)):
        (folder / "data" / split).mkdir(parents=True)
        rows = []
        for index in range(count):
            label = ("plain", "striped", "spotted")[index % 3]
            pixels = np.asarray(picture(1000 * (split == "test") + index, 48)).astype(float)
            if label == "striped":
                pixels[::4] *= 0.3
            if label == "spotted":
                pixels[rng.integers(0, 48, 60), rng.integers(0, 48, 60)] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / split / f"{split}{index:02d}.png")
            rows.append(f"{split}{index:02d},{label if split == 'train' else 'plain'}")
        name = "train.csv" if split == "train" else "sample_submission.csv"
        (folder / "data" / name).write_text("\n".join(["id,label", *rows]) + "\n")
    (folder / "solution.csv").write_text(
        "id,label\n"
        + "".join(f"test{index:02d},{('plain', 'striped', 'spotted')[index % 3]}\n" for index in range(N_TEST))
    )
    (folder / "permafeat.toml").write_text(
        '[featurize]\nbackbone = ["squeezenet1_1"]\nweights = "random"\nsize = 64\n\n[fit-heads]\nfolds = 3\n'
    )
    return folder


@pytest.fixture
def inside(challenge: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(challenge)
    return challenge


def test_three_bare_lines_make_a_submission_and_may_be_typed_again(inside: Path, run_cli: Run) -> None:
    code, out, err = run_cli("featurize", "--augment", "2")
    assert (code, out) == (0, "")
    assert f"features/train.h5: {N_TRAIN} images x 3 views x 512 columns" in err
    assert "RANDOM WEIGHTS" in err
    code, out, err = run_cli("fit-heads")
    assert code == 0, err
    assert "ensemble" in out
    assert "RANDOM WEIGHTS" in out.upper()
    assert "runs/001" in err
    code, out, err = run_cli("submit")
    assert (code, out) == (0, "")
    assert "random weights" in err.lower()
    first = pd.read_csv("submission.csv", dtype=str)
    assert list(first.columns) == ["id", "label"]
    assert first["id"].tolist() == [f"test{index:02d}" for index in range(N_TEST)]
    assert set(first["label"]) <= {"plain", "striped", "spotted"}

    written = Path("features/train.h5").stat().st_mtime_ns
    code, _, err = run_cli("featurize", "--augment", "2")
    assert code == 0
    assert "complete, nothing to compute" in err
    assert Path("features/train.h5").stat().st_mtime_ns == written
    assert run_cli("fit-heads")[0] == 0
    assert Path("runs/latest").resolve().name == "002"
    assert run_cli("submit")[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv("submission.csv", dtype=str), first)
    Path("submission.csv").write_text("id,label\nmine,1\n")
    code, _, err = run_cli("submit")
    assert code == 2
    assert "--overwrite" in err
    assert run_cli("submit", "--overwrite")[0] == 0


def test_the_run_folder_holds_what_the_design_says(inside: Path, run_cli: Run) -> None:
    run = Path("runs/001")
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {
        "run.json",
        "metrics.json",
        "oof.csv",
        "heads/ridge.json",
        "heads/ridge.safetensors",
        "heads/mlp.safetensors",
    } <= names
    assert sum(name.endswith(".png") for name in names) >= 3
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["heads"]) == {"ridge", "logistic", "mlp", "ensemble"}
    assert metrics["random_weights"] is True
    assert metrics["n_views_averaged"] == 3
    for figures in metrics["heads"].values():
        headline = [name for name, value in figures.items() if isinstance(value, dict) and "low" in value]
        assert headline == ["balanced_accuracy", "accuracy", "macro_f1", "weighted_f1", "log_loss"]
        assert (
            figures["balanced_accuracy"]["low"]
            <= figures["balanced_accuracy"]["value"]
            <= figures["balanced_accuracy"]["high"]
        )
    oof = pd.read_csv(run / "oof.csv", dtype=str)
    assert len(oof) == 4 * N_TRAIN
    assert {"id", "label", "fold", "group", "head", "plain", "striped", "spotted"} <= set(oof.columns)
    description = (run / "run.json").read_text()
    assert str(inside) not in description


def test_runs_evaluate_and_inspect_answer_people_and_programs(inside: Path, run_cli: Run) -> None:
    code, out, _ = run_cli("runs")
    assert code == 0
    assert "001" in out
    assert "002" in out
    listed = json.loads(run_cli("runs", "--json")[1])
    assert [row["run"] for row in listed][:2] == ["001", "002"]
    code, out, _ = run_cli("evaluate", "--features", "features/test.h5", "--labels", "solution.csv", "--json")
    assert code == 0
    assert json.loads(out)["heads"]["ensemble"]["balanced_accuracy"]["value"] >= 0.5
    code, _, err = run_cli("evaluate", "--features", "features/train.h5", "--labels", "data/train.csv")
    assert code == 2
    assert "fitted on" in err
    code, out, _ = run_cli("inspect", "features/test.h5")
    assert code == 0
    assert f"{N_TEST} images x 3 views x 512 columns, float16" in out
    assert json.loads(run_cli("inspect", "features/test.h5", "--json")[1])["blocks"][0]["name"] == "squeezenet1_1"


def test_a_dry_run_says_the_cost_and_computes_nothing(inside: Path, run_cli: Run) -> None:
    code, out, _ = run_cli("featurize", "--augment", "6", "--out", "elsewhere", "--dry-run")
    assert code == 0
    assert (
        f"train: {N_TRAIN} images x 7 views x 512 columns, {N_TRAIN * 7 * 512 * 2 / 1e6:.1f} MB on disk, about" in out
    )
    assert re.search(r"squeezenet1_1: 512 columns, \w+, random, sha256 [0-9a-f]{64}", out)
    assert not list(Path("elsewhere").glob("*.h5"))


def test_tta_gives_the_test_images_another_number_of_views(inside: Path, run_cli: Run) -> None:
    code, out, _ = run_cli("featurize", "--augment", "1", "--tta", "0", "--limit", "4", "--out", "tta", "--json")
    assert code == 0
    assert [(split["n_images"], split["n_views"]) for split in json.loads(out)["splits"]] == [(4, 2), (4, 1)]


def test_a_view_s_features_do_not_depend_on_what_else_is_computed(inside: Path, run_cli: Run) -> None:
    run_cli("featurize", "--augment", "3", "--limit", "5", "--out", "more")
    run_cli("featurize", "--augment", "1", "--limit", "4", "--out", "fewer", "--batch-size", "1", "--workers", "1")
    with FeatureCache(Path("more/train.h5")) as more, FeatureCache(Path("fewer/train.h5")) as fewer:
        assert more.blocks == fewer.blocks, "squeezenet1_1 has no batch norm, so nothing was set"
        np.testing.assert_array_equal(more.load(rows=slice(4), views=slice(2)), fewer.load())


def test_a_flag_comes_before_the_environment_before_the_file(
    inside: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def side(*words: str) -> str:
        out = run_cli("featurize", "--limit", "2", "--dry-run", "--out", "precedence", "--json", *words)[1]
        return str(json.loads(out)["splits"]["train"]["n_views"])

    Path("one.toml").write_text('[featurize]\nbackbone = "squeezenet1_1"\nweights = "random"\nsize = 64\naugment = 1\n')
    assert side("--config", "one.toml") == "2"
    monkeypatch.setenv("PERMAFEAT_FEATURIZE_AUGMENT", "2")
    assert side("--config", "one.toml") == "3"
    assert side("--config", "one.toml", "--augment", "4") == "5"


def test_paths_in_a_file_begin_at_its_folder_and_may_hold_variables(
    inside: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sub").mkdir()
    text = '[featurize]\ntrain-images = "$CHALLENGE/train"\ntest-images = "../data/test"\nout = "here"\nlimit = 2\n'
    Path("sub/p.toml").write_text(text + 'backbone = "squeezenet1_1"\nweights = "random"\nsize = 64\n')
    code, _, err = run_cli("featurize", "--config", "sub/p.toml")
    assert code == 2
    assert "needs the environment variable CHALLENGE" in err
    monkeypatch.setenv("CHALLENGE", str(inside / "data"))
    code, _, err = run_cli("featurize", "--config", "sub/p.toml")
    assert code == 0, err
    assert Path("sub/here/train.h5").is_file()


def featurize_in_a_process(folder: Path, out: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "featurize", "--augment", "6", "--out", out, "--batch-size", "2", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_parts(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while len(list(folder.glob("train.parts/*.h5"))) < count:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < limit, "no part in a minute"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_featurize_goes_on_and_ends_in_the_same_bytes(
    inside: Path, run_cli: Run, number: signal.Signals
) -> None:
    if not Path("undisturbed").is_dir():
        assert run_cli("featurize", "--augment", "6", "--out", "undisturbed")[0] == 0
    out = f"killed-{number.name}"
    process = featurize_in_a_process(inside, out)
    wait_for_parts(Path(out), 2, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75
        assert f"stopped by {number.name}; what was committed is safe. Type the same command again" in err
    code, _, err = run_cli("fit-heads", "--features", f"{out}/train.h5")
    assert code == 2
    assert "run `cli featurize` again to resume" in err
    before = {path.name: path.stat().st_mtime_ns for path in Path(out).glob("train.parts/*.h5")}
    assert before
    code, _, err = run_cli("featurize", "--augment", "6", "--out", out)
    assert code == 0, err
    computed = int(re.search(r"(\d+) computed", err)[1])
    assert computed <= N_TRAIN - 2 * len(before) + 1
    for split in ("train", "test"):
        assert Path(out, f"{split}.h5").read_bytes() == Path("undisturbed", f"{split}.h5").read_bytes()
    assert not list(Path(out).glob("*.parts"))


def test_a_stopped_fit_leaves_nothing_and_says_so(inside: Path, run_cli: Run) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
    script = (
        "import os, signal, sys, cli, heads.out_of_fold as story; whole = story.cross_fit\n"
        "def fit(*given, **named):\n    os.kill(os.getpid(), signal.SIGTERM); return whole(*given, **named)\n"
        "story.cross_fit = fit; sys.argv = ['cli', 'fit-heads', '--heads', 'ridge', '--out', 'runs/stopped']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGTERM; nothing was written. Type the same command again to begin anew" in done.stderr
    assert not Path("runs/stopped").exists()


def test_a_full_disk_stops_the_run_resumably(inside: Path, run_cli: Run) -> None:
    """A limit on file size stands for a quota: the part that is too large fails with EFBIG, and a raised limit goes on."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        code, _, err = run_cli("featurize", "--augment", "6", "--out", "full", "--batch-size", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 75
    assert "free some space and type the same command again" in err
    code, _, err = run_cli("featurize", "--augment", "6", "--out", "full", "--batch-size", "2")
    assert code == 0, err
    assert Path("full/train.h5").read_bytes() == Path("undisturbed/train.h5").read_bytes()


def test_every_command_s_help_ends_in_an_example_that_works(inside: Path, run_cli: Run) -> None:
    Path("new.csv").write_text(Path("solution.csv").read_text())
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__
        code, out, _ = run_cli(name, "--help")
        assert code == 0
        example = re.search(r"Example: cli (.*)$", command.epilog)[1]
        assert " ".join(example.split()) in " ".join(out.split())
        words = (
            example.replace("features/new.h5", "features/test.h5")
            .replace("--group-column well", "--group-column label")
            .split()
        )
        if name == "featurize":
            words[-1] = "2"
        if name == "export":
            words += ["--out", "exported.npz"]
        if "--group-column" in words:
            words = words[: words.index("--group-column")]
        code, _, err = run_cli(*words)
        if name == "merge":
            assert (code, "no parts to merge" in err) == (2, True)  # every cache here is whole
            continue
        assert code == 0, f"{example}: {err}"


def test_version_and_unknown_commands(run_cli: Run) -> None:
    assert re.match(r"permafeat \d+\.\d+\.\d+", run_cli("--version")[1])
    code, _, err = run_cli("featurise")
    assert code == 2
    assert "featurize" in err
    code, _, err = run_cli("fit-heads", "--heads", "rigde")
    assert code == 2
    assert "did you mean 'ridge'" in err


def test_auto_precision_follows_the_cache_that_is_there(inside: Path, run_cli: Run) -> None:
    assert run_cli("featurize", "--limit", "3", "--out", "carried", "--precision", "float32")[0] == 0
    code, _, err = run_cli("featurize", "--limit", "3", "--out", "carried")
    assert code == 0, err
    assert "complete, nothing to compute" in err
    code, _, err = run_cli("featurize", "--limit", "3", "--out", "carried", "--precision", "bfloat16")
    assert code == 2
    assert "precision: bfloat16 asked for, float32 found" in err
