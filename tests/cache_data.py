"""What tests and benches make caches of: drawn images, recipes, the words of a quick network."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

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


def quarantine(split: str = "train") -> dict[str, tuple[str, str]]:
    """Read the list beside a cache: id to status and reason."""
    with Path(f"features/{split}.quarantine.csv").open(newline="") as file:
        return {row["id"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
