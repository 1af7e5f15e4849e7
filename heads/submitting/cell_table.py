"""What `cli cells` wrote of images: each one's size and cells, and each cell's mask."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from features_cache.errors import SubmissionError, TableError, listed
from features_cache.tables import read_table

_CELL_COLUMNS = ("id", "parent", "mask")
_IMAGE_COLUMNS = ("id", "width", "height", "n_cells", "reason")
_AGAIN = "Run `cli cells` again, or name another table with --cells-table"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """What is known of an image that was looked through for cells.

    Parameters
    ----------
    width, height : int
        In px; 0 where it could not be read.
    n_cells : int
    reason : str
        Why it was quarantined; empty where it was not.
    """

    width: int
    height: int
    n_cells: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellTable:
    """Cells of images.

    Parameters
    ----------
    path : Path
        The table of cells; that of images lies beside it.
    parents : dict of str to str
        Of each cell its image.
    masks : dict of str to str
        Of each cell its mask, ready for a submission.
    images : dict of str to PictureSize
        Of all images, also those without cells.
    """

    path: Path
    parents: dict[str, str]
    masks: dict[str, str]
    images: dict[str, PictureSize]


def images_table(path: Path) -> Path:
    """Return where the table of images lies: beside that of their cells.

    Examples
    --------
    >>> images_table(Path("cells/test.csv")).as_posix()
    'cells/test_images.csv'
    """
    return path.with_name(f"{path.stem}_images{path.suffix}")


def read_cell_table(path: Path) -> CellTable:
    """Read the table of cells, and that of images beside it.

    Parameters
    ----------
    path : Path
        Such as ``cells/test.csv``.

    Returns
    -------
    CellTable

    Raises
    ------
    TableError
        If one cannot be read, or lacks a column.
    SubmissionError
        If the two do not tell of the same images and cells, or a mask could not stand in a submission.
    """
    images = _read_images(images_table(path))
    if not any(each.n_cells for each in images.values()):
        return CellTable(path=path, parents={}, masks={}, images=images)
    rows = read_table(path, required=_CELL_COLUMNS)
    _check_ids(path, rows)
    is_bad = (rows["mask"] == "") | rows["mask"].str.contains(r"\s", regex=True)
    if is_bad.any():
        lines = rows.index[is_bad].tolist()
        msg = f"{path}: {len(lines)} masks are empty or hold blanks (lines {listed(lines)}); expected one word each. {_AGAIN}"
        raise SubmissionError(msg)
    found = Counter(rows["parent"])
    differing = sorted(
        image_id
        for image_id in images.keys() | found.keys()
        if image_id not in images or found[image_id] != images[image_id].n_cells
    )
    if differing:
        msg = (
            f"{path}: {len(differing)} images have another number of cells here than in {images_table(path)} ({listed(differing, 5)}); "
            f"expected the same, as `cli cells` writes them. {_AGAIN}"
        )
        raise SubmissionError(msg)
    ids = rows["id"].tolist()
    return CellTable(
        path=path,
        parents=dict(zip(ids, rows["parent"], strict=True)),
        masks=dict(zip(ids, rows["mask"], strict=True)),
        images=images,
    )


def _read_images(path: Path) -> dict[str, PictureSize]:
    rows = read_table(path, required=_IMAGE_COLUMNS)
    _check_ids(path, rows)
    numbers = rows[["width", "height", "n_cells"]]
    # Of a file that could not be read nobody knows a size.
    unknown = (rows["reason"] != "").to_numpy()[:, None] & (numbers == "").to_numpy()
    numbers = numbers.mask(unknown, "0")
    is_bad = ~np.all([numbers[name].str.fullmatch(r"\d+") for name in numbers], axis=0)
    if is_bad.any():
        lines = rows.index[is_bad].tolist()
        msg = f"{path}: {len(lines)} rows hold a width, height or number of cells that is no whole number (lines {listed(lines)}). {_AGAIN}"
        raise TableError(msg)
    columns = zip(rows["id"], numbers["width"], numbers["height"], numbers["n_cells"], rows["reason"], strict=True)
    return {
        image_id: PictureSize(width=int(width), height=int(height), n_cells=int(n_cells), reason=reason)
        for image_id, width, height, n_cells, reason in columns
    }


def _check_ids(path: Path, rows: pd.DataFrame) -> None:
    double = rows["id"].duplicated()
    if double.any():
        lines = rows.index[double].tolist()
        msg = f"{path}: {len(lines)} ids stand in an earlier row, too (lines {listed(lines)}); expected each once. {_AGAIN}"
        raise SubmissionError(msg)
