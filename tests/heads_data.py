"""Small caches with labels that the tests of heads share."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features_cache.recipe import Block, Recipe
from features_cache.writer import write_cache

CLASSES = ("anaphase", "interphase", "prophase")


def make_recipe(backbone="tiny", **changes):
    fields = Recipe(
        backbone=backbone,
        weights_sha256="ab" * 32,
        pretrained=True,
        tap="pool",
        size_px=32,
        interpolation="bilinear",
        fill="reflect",
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        channels=(),
        scale="u8",
        augmentation=("hflip",),
        seed=0,
        precision="float32",
        storage="float32",
        decoding="1",
    )
    return dataclasses.replace(fields, **changes)


def make_blocks(*, pretrained=True, seed=0):
    return (
        Block(name="tiny", start=0, columns=6, recipe=make_recipe(pretrained=pretrained, seed=seed)),
        Block(name="wee", start=6, columns=4, recipe=make_recipe("wee", pretrained=pretrained, seed=seed)),
    )


def draw_features(labels, n_views=3, n_columns=10, seed=0, spread=1.0):
    """Classes as clouds; views of an image lie close together."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(1 + max(labels), n_columns))
    images = centres[labels] + spread * rng.normal(size=(len(labels), n_columns))
    views = images[:, None] + 0.2 * rng.normal(size=(len(labels), n_views, n_columns))
    return (5 + 3 * views).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Project:
    """A project folder with a training and a test cache."""

    folder: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    wells: tuple[str, ...]

    @property
    def train(self) -> Path:
        """The cache of the training images."""
        return self.folder / "features" / "train.h5"

    @property
    def test(self) -> Path:
        """The cache of the test images."""
        return self.folder / "features" / "test.h5"

    @property
    def csv(self) -> Path:
        """Labels."""
        return self.folder / "train.csv"

    @property
    def sample(self) -> Path:
        """The sample submission."""
        return self.folder / "sample.csv"


def write_csv(path: Path, header: Sequence[str], records: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *records])
    return path


def make_project(folder: Path, *, n_images=60, pretrained=True, test_views=3) -> Project:
    indices = np.arange(n_images) % len(CLASSES)
    # Well after well of three images, one of each class; ids such as 0007 and 1e05 must stay text.
    ids = tuple(f"{index:04d}" if index % 2 else f"{index}e05" for index in range(n_images))
    order = np.argsort(ids)
    ids, indices = tuple(np.array(ids)[order].tolist()), indices[order]
    labels = tuple(CLASSES[index] for index in indices)
    wells = tuple(f"w{place // 3 % 12}" for place in order)
    project = Project(folder, ids, labels, wells)
    blocks = make_blocks(pretrained=pretrained)
    write_cache(project.train, ids=ids, features=draw_features(indices), blocks=blocks)
    test_ids = [f"t{place:02d}" for place in range(12)]
    test = draw_features(np.arange(12) % 3, n_views=test_views, seed=1)
    write_cache(project.test, ids=test_ids, features=test, blocks=blocks)
    write_csv(project.csv, ["id", "label", "lab"], list(zip(ids, labels, wells, strict=True)))
    write_csv(project.sample, ["name", "phase"], [(name, "interphase") for name in reversed(test_ids)])
    return project
