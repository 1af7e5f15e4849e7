"""Small things that many tests need: drawn images, a quick network, the command line without a new process."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from features_cache.recipe import Block, Recipe

QUICK = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "64", "--device", "cpu")


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def recipe(backbone: str = "net", **fields: object) -> Recipe:
    """A valid recipe, with some fields replaced."""
    values: dict[str, object] = {
        "backbone": backbone,
        "weights_sha256": "0" * 64,
        "pretrained": True,
        "tap": "pool",
        "size_px": 64,
        "interpolation": "bilinear, antialias",
        "fill": "reflect",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "channels": (),
        "scale": "dtype",
        "augmentation": ("horizontal flip p=0.5",),
        "seed": 0,
        "precision": "float32",
        "storage": "float16",
        "decoding": "pillow-1",
    }
    return Recipe(**(values | fields))  # type: ignore[arg-type]


def blocks(*columns: int, **fields: object) -> tuple[Block, ...]:
    """Blocks of these many columns, named a, b, c, ..."""
    starts = np.concatenate([[0], np.cumsum(columns)])
    return tuple(
        Block(name=name, start=int(start), columns=width, recipe=recipe(name, **fields))
        for name, start, width in zip("abcdefgh", starts, columns, strict=False)
    )


def picture(seed: int, side_px: int = 40) -> Image.Image:
    """A smooth RGB picture that is the same on every machine."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


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


def quarantine(split: str = "train") -> dict[str, tuple[str, str]]:
    """Read the list beside a cache: id to status and reason."""
    with Path(f"features/{split}.quarantine.csv").open(newline="") as file:
        return {row["id"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small heads on one thread: a few rows are sooner done than two threads have met."""
    import torch  # not above: processes whose memory is measured import this module

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
