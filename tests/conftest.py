"""Fixtures that many tests need: a project of drawn images, the command line without a new process, real data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cache_data import picture

import cli


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with six training and three test images, and the process inside it."""
    for split, count in (("train", 6), ("test", 3)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for index in range(count):
            picture(index + 100 * (split == "test")).save(folder / f"{split}{index}.png")
    rows = [f"train{index},{'ab'[index % 2]}" for index in range(6)]
    (tmp_path / "data" / "train.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    rows = [f"test{index},a" for index in range(3)]
    (tmp_path / "data" / "sample_submission.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type a command; get its exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cli", *map(str, words)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return code, out, " ".join(err.split())

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real microscopy, or a reason why not."""
    place = os.environ.get("PERMAFEAT_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("PERMAFEAT_DATA does not name the folder of real microscopy")
    return Path(place)


@pytest.fixture(scope="session")
def real_weights(real_data: Path) -> Path:
    """The folder of small networks with real ImageNet weights, beside the data."""
    folder = real_data.parent / "weights"
    if not (folder / "mobilenet_v2.pth").is_file():
        pytest.skip("no weights beside PERMAFEAT_DATA")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small heads on one thread: a few rows are sooner done than two threads have met."""
    import torch  # not above: tests that need no network start sooner

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def torch_runs_networks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``--runtime auto`` mean torch, but where a test is about OpenVINO: its seconds of start-up would be paid a thousand times."""
    if request.node.get_closest_marker("openvino") is None:
        monkeypatch.setenv("PERMAFEAT_FEATURIZE_RUNTIME", "torch")
        import featurize.device

        monkeypatch.setattr(featurize.device, "openvino_is_there", lambda: False)
