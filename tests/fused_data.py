"""Made images and cells that know different halves of the truth: together they say all of it, alone either guesses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from crops_data import HEIGHT, WIDTH, write_crops, write_rows

from features_cache.writer import write_cache
from tests.heads_data import make_blocks, write_csv

SAMPLE_COLUMNS = ("ImageID", "ImageWidth", "ImageHeight", "PredictionString")
NAMES = ("0", "2", "10", "16")
"""Of classes: as numbers, 2 stands before 10."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
    """Images of one split with their cells.

    Parameters
    ----------
    ids : list of str
    members : bool array, shape (n_images, 4)
    X : float32 array, shape (n_images, n_views, 10)
    cell_ids : list of str
    parents : list of str
    places : int64 array, shape (n_cells,)
        Of each cell's image.
    cells : float32 array, shape (n_cells, n_views, 10)
    """

    ids: list[str]
    members: np.ndarray
    X: np.ndarray
    cell_ids: list[str]
    parents: list[str]
    places: np.ndarray
    cells: np.ndarray

    @property
    def cells_of(self) -> dict[str, list[str]]:
        """Ids of each image's cells; of some there are none."""
        found: dict[str, list[str]] = {image: [] for image in self.ids}
        for cell, parent in zip(self.cell_ids, self.parents, strict=True):
            found[parent].append(cell)
        return found


def draw_half(split: str, n_images: int, *, many: bool, n_views: int = 2, seed: int = 0, without: int = 9) -> Half:
    """Draw images of two hidden bits: the first shows in images, the second in their cells.

    Of one label the four classes are the four pairs of bits. Of many, an image may have four labels; two of them show in images,
    the others in a cell here and there. Every ``without``-th image has no cell.
    """
    rng = np.random.default_rng(seed)
    moves = 1.6 * np.random.default_rng(99).normal(size=(2, 4, 10))
    if many:
        members = rng.uniform(size=(n_images, 4)) < (0.5, 0.4, 0.5, 0.4)
        members[~members.any(axis=1), rng.integers(4)] = True
    else:
        members = np.eye(4, dtype=bool)[rng.permutation(n_images) % 4]
    shown = members @ _SEEN_IN_IMAGES if many else members @ _BITS[:, :1]
    images = shown @ moves[0, : shown.shape[1]] + rng.normal(size=(n_images, 10))
    n_cells = rng.integers(1, 7, n_images)
    n_cells[::without] = 0
    places = np.arange(n_images).repeat(n_cells)
    # Of many labels a cell shows each with one half.
    is_shown = rng.uniform(size=(len(places), 2)) < 0.5
    hidden = (members @ _SEEN_IN_CELLS)[places] & is_shown if many else members[places] @ _BITS[:, 1:]
    cells = hidden @ moves[1, : hidden.shape[1]] + rng.normal(size=(len(places), 10))
    ids = [f"{split}{place:03d}" for place in range(n_images)]
    numbers = np.concatenate([np.arange(count) for count in n_cells])
    return Half(
        ids=ids,
        members=members,
        X=_views(images, n_views, rng),
        cell_ids=[f"{ids[place]}/{number:03d}" for place, number in zip(places, numbers, strict=True)],
        parents=[ids[place] for place in places],
        places=places,
        cells=_views(cells, n_views, rng),
    )


_BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=bool)
_SEEN_IN_IMAGES = np.eye(4, dtype=bool)[:, :2]
_SEEN_IN_CELLS = np.eye(4, dtype=bool)[:, 2:]


def _views(rows: np.ndarray, n_views: int, rng: np.random.Generator) -> np.ndarray:
    views = rows[:, None] + 0.1 * rng.normal(size=(len(rows), n_views, rows.shape[1]))
    return (5 + 3 * views).astype(np.float32)


def label_texts(members: np.ndarray) -> list[str]:
    return ["|".join(name for name, member in zip(NAMES, row, strict=True) if member) for row in members]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedProject:
    """A project folder with caches of images and of cells, and tables of both."""

    folder: Path
    train: Half
    test: Half
    many: bool

    def path(self, name: str) -> Path:
        """A cache: ``train``, ``test``, ``train_cells`` or ``test_cells``."""
        return self.folder / "features" / f"{name}.h5"

    def labels(self, split: str) -> Path:
        """The labels of a split."""
        return self.folder / f"{split}.csv"

    @property
    def sample(self) -> Path:
        """A sample that asks for cells, in an order of its own."""
        return self.folder / "sample_submission.csv"

    @property
    def cells_table(self) -> Path:
        """The table of the test images' cells."""
        return self.folder / "cells" / "test.csv"

    @property
    def separator(self) -> str | None:
        """Between labels."""
        return "|" if self.many else None


def make_fused_project(folder: Path, *, many: bool = False, n_images: int = 160, n_test: int = 60) -> FusedProject:
    halves = {
        "train": draw_half("train", n_images, many=many),
        "test": draw_half("test", n_test, many=many, seed=1),
    }
    project = FusedProject(folder=folder, many=many, **halves)
    for split, half in halves.items():
        write_cache(project.path(split), ids=half.ids, features=half.X, blocks=make_blocks())
        write_cells(project.path(f"{split}_cells"), half)
        write_csv(
            project.labels(split),
            ["id", "label", "well"],
            [
                (image, text, f"w{place // 4 % 20}")
                for place, (image, text) in enumerate(zip(half.ids, label_texts(half.members), strict=True))
            ],
        )
        write_tables(folder / "cells", split, half)
    rows = [(image, WIDTH, HEIGHT, "0 1 eNo=") for image in reversed(halves["test"].ids)]
    write_rows(project.sample, SAMPLE_COLUMNS, rows)
    return project


def write_cells(path: Path, half: Half, **changes: object) -> Path:
    """Write the cache of a split's cells."""
    fields = {"ids": half.cell_ids, "features": half.cells, "blocks": make_blocks(), "parents": half.parents}
    write_cache(path, **(fields | changes), replace=True)  # type: ignore[arg-type]
    return path


def write_tables(folder: Path, split: str, half: Half, **options: object) -> None:
    """Write the tables of a split's crops; crops themselves are not needed here."""
    write_crops(folder, split, half.cells_of, with_pictures=False, **options)  # type: ignore[arg-type]
