"""Drawn crops of cells with their tables, in the form in which they are published."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache_data import picture
from PIL import Image

COLUMNS = ("id", "parent", "x", "y", "width", "height", "image_width", "image_height", "touches_border", "mask")
IMAGE_COLUMNS = ("id", "width", "height", "n_cells", "reason")
WIDTH, HEIGHT = 96, 64


def mask_of(cell: str) -> str:
    """A text such as a mask has: no blanks; its letters, digits, + and /."""
    return "eNp" + "".join(f"{ord(char):02x}" for char in cell) + "+/=="


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def write_crops(
    folder: Path,
    split: str,
    cells_of: Mapping[str, Sequence[str]],
    pictures: Mapping[str, Image.Image] | None = None,
    reasons: Mapping[str, str] | None = None,
    *,
    with_pictures: bool = True,
) -> None:
    """Write a split of crops.

    Parameters
    ----------
    folder : Path
        Of all crops.
    split : {"train", "test"}
    cells_of : mapping of str to sequence of str
        Ids of each image's cells; of some there are none.
    pictures : mapping of str to picture, optional
        By cell; any picture unless given.
    reasons : mapping of str to str, optional
        Why an image was quarantined.
    with_pictures : bool
        Whether there are crops, or tables alone.
    """
    rows = []
    for image, cells in sorted(cells_of.items()):
        for place, cell in enumerate(cells):
            box = (3 * place, 2 * place, 20, 18)
            rows.append((cell, image, *box, WIDTH, HEIGHT, int(place == 0), mask_of(cell)))
            if with_pictures:
                crop = picture(sum(map(ord, cell)), 24) if pictures is None else pictures[cell]
                target = folder / split / f"{cell}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                crop.save(target)
    write_rows(folder / f"{split}.csv", COLUMNS, rows)
    images = [
        (image, WIDTH, HEIGHT, len(cells), (reasons or {}).get(image, "")) for image, cells in sorted(cells_of.items())
    ]
    write_rows(folder / f"{split}_images.csv", IMAGE_COLUMNS, images)
