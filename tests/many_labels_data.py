"""Images of several classes, real and made."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np


def hpa2018(real_data: Path) -> np.ndarray:
    """Which of 28 classes each of 31,072 real images is of; a test without them is skipped by the fixture ``real_data``."""
    with (real_data / "hpa2018" / "train.csv").open(newline="") as lines:
        targets = [row["Target"].split() for row in csv.DictReader(lines)]
    members = np.zeros((len(targets), 28), dtype=bool)
    for row, target in enumerate(targets):
        members[row, [int(name) for name in target]] = True
    return members


def draw_members(n_images: int, n_classes: int, seed: int = 0) -> np.ndarray:
    """Classes from common to rare, that like to come together; some images are of none."""
    rng = np.random.default_rng(seed)
    shares = 0.6 * np.arange(1, n_classes + 1) ** -2.0
    return rng.random((n_images, n_classes)) < shares * rng.choice([0.5, 1.5], (n_images, 1))
