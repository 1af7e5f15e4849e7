"""The tables beside the crops: a row a cell, and a row an image."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from features_cache.errors import CacheDamaged
from features_cache.files import publish
from featurize.cells.records import Parent, read_parent

CELL_COLUMNS = (
    "id",
    "parent",
    "x",
    "y",
    "width",
    "height",
    "image_width",
    "image_height",
    "touches_border",
    "mask",
)
IMAGE_COLUMNS = ("id", "width", "height", "n_cells", "reason")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """An image as the table of images has it.

    Parameters
    ----------
    width, height : int
        Px.
    n_cells : int
        How many were cut out.
    """

    width: int
    height: int
    n_cells: int


def size_of(parent: Parent) -> Size:
    """Return what the table of images says of a parent."""
    return Size(width=parent.width, height=parent.height, n_cells=len(parent.cells))


def images_csv(ids: Sequence[str], sizes: Mapping[int, Size], reasons: Mapping[int, str]) -> bytes:
    """Lay out the table of images: those without cells and those that cannot be used are in it, too.

    Parameters
    ----------
    ids : sequence of str
        Of all images.
    sizes : mapping of int to Size
        Of the images that could be used, by row.
    reasons : mapping of int to str
        Why an image could not, by row.

    Returns
    -------
    bytes
        CSV, UTF-8.
    """
    rows = (
        (image_id, sizes[row].width, sizes[row].height, sizes[row].n_cells, "")
        if row in sizes
        else (image_id, "", "", 0, reasons[row])
        for row, image_id in enumerate(ids)
    )
    return b"".join(_lines([IMAGE_COLUMNS, *rows]))


def publish_cells(path: Path, ids: Sequence[str], folders: Sequence[str], rows: Iterable[int]) -> None:
    """Write the table of cells from the records beside their crops; one image at a time is in memory.

    Parameters
    ----------
    path : Path
        The CSV; the crops lie in the folder of its name without the suffix.
    ids, folders : sequence of str
        Of all images.
    rows : iterable of int
        The images whose cells were cut out, in order.

    Raises
    ------
    CacheDamaged
        If a record or a crop is missing.
    """

    def cells() -> Iterator[Sequence[object]]:
        yield CELL_COLUMNS
        for row in rows:
            folder = path.with_suffix("") / folders[row]
            parent = read_parent(folder)
            if parent is None:
                msg = f"{folder}: gone while the table was written; type the same command again"
                raise CacheDamaged(msg)
            for cell in parent.cells:
                place = (cell.x, cell.y, cell.width, cell.height, parent.width, parent.height)
                yield f"{folders[row]}/{cell.number:03d}", ids[row], *place, int(cell.touches_border), cell.mask

    publish(path, _lines(cells()), replace=True)


def _lines(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
