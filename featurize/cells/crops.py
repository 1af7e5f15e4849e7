"""A cell cut out of its image: a padded square, and the files that hold it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from featurize.cells.masks import encode_box

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
_WHOLE = 1e-3
"""How far from a whole 255th a value may lie by rounding; of 16-bit values the nearest other one is 1 / 257 away."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where a cell lies in its image.

    Parameters
    ----------
    number : int
        Its label.
    x, y, width, height : int
        The smallest box that holds it, px; x to the right, y down, from 0.
    touches_border : bool
        Whether it reaches the image's border, and so may be cut.
    mask : str
        As :func:`featurize.cells.masks.encode_mask` gives.
    """

    number: int
    x: int
    y: int
    width: int
    height: int
    touches_border: bool
    mask: str


def list_cells(labels: NDArray[np.integer]) -> Iterator[Cell]:
    """Describe the cells of a label image, by number.

    Parameters
    ----------
    labels : int array, shape (height, width)
        0 background.

    Yields
    ------
    Cell
    """
    n_rows, n_columns = labels.shape
    for number, box in _boxes(labels):
        rows, columns = box
        yield Cell(
            number=number,
            x=columns.start,
            y=rows.start,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
            touches_border=rows.start == 0 or columns.start == 0 or rows.stop == n_rows or columns.stop == n_columns,
            mask=encode_box(labels[box] == number, x=columns.start, y=rows.start, height=n_rows, width=n_columns),
        )


def _boxes(labels: NDArray[np.integer]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    # Labels of other tools may be any numbers: find_objects makes a list as long as the largest.
    numbers, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + int(numbers[0] != 0)
    yield from zip(numbers[numbers != 0].tolist(), ndimage.find_objects(dense), strict=True)


def without_border_nuclei(labels: NDArray[np.integer], nuclei: NDArray[np.integer]) -> NDArray[np.integer]:
    """Take out the cells whose nucleus touches the image's border, of which too little may be seen.

    Parameters
    ----------
    labels, nuclei : int array, shape (height, width)
        A nucleus has its cell's number; the same array where only cells are known.

    Examples
    --------
    >>> without_border_nuclei(np.array([[1, 0, 0], [0, 0, 0], [0, 2, 0], [0, 2, 0], [3, 0, 0]]), np.zeros((5, 3), int)).max()
    np.int64(3)
    """
    edges = np.concatenate([nuclei[0], nuclei[-1], nuclei[:, 0], nuclei[:, -1]])
    return np.where(np.isin(labels, edges[edges > 0]), 0, labels)


def cut(
    planes: NDArray[np.float32],
    labels: NDArray[np.integer],
    cell: Cell,
    *,
    margin: float,
    background: str,
) -> NDArray[np.float32]:
    """Cut a square about the middle of a cell's box.

    Its side is the longer side of the box and twice the margin, rounded up; what lies beyond the image is 0.

    Parameters
    ----------
    planes : float32 array, shape (height, width, n_channels)
        In [0, 1].
    labels : int array, shape (height, width)
    cell : Cell
        Of that label image.
    margin : float
        Room on each side, as a share of the box's longer side.
    background : {"zero", "keep"}
        Whether pixels of other cells and of none become 0.

    Returns
    -------
    float32 array, shape (side, side, n_channels)
    """
    longer = max(cell.width, cell.height)
    side = longer + 2 * int(np.ceil(margin * longer))
    square = np.zeros((side, side, planes.shape[2]), np.float32)
    first = [cell.y - (side - cell.height) // 2, cell.x - (side - cell.width) // 2]
    seen = tuple(slice(max(0, at), min(size, at + side)) for at, size in zip(first, labels.shape, strict=True))
    place = tuple(slice(span.start - at, span.stop - at) for span, at in zip(seen, first, strict=True))
    square[place] = planes[seen]
    if background == "zero":
        square[place][labels[seen] != cell.number] = 0
    return square


class CropFiles:
    """How the crops of one image are stored: decided once, by all of its pixels.

    A plane whose values are all whole 255ths is stored in 8 bits, any other as 16-bit grey, in which every stored value of 16 bits
    comes back. Three channels that came in one file are one RGB file, or a grey one where they are all the same; of colour, PNG as
    Pillow writes it has 8 bits.

    Parameters
    ----------
    planes : float32 array, shape (height, width, n_channels)
        The image, in [0, 1].
    channels : sequence of str
        Names of the channels where each has a file of its own; empty where one file held all.

    Attributes
    ----------
    notes : tuple of str
        What the user should know; the run counts them.
    """

    def __init__(self, planes: NDArray[np.float32], channels: Sequence[str]) -> None:
        self._channels = channels
        self._is_grey = not channels and bool((planes == planes[..., :1]).all())
        kept = planes[..., :1] if self._is_grey else planes
        self._is_8_bit = [
            bool((np.abs(np.rint(plane * 255) - plane * 255) < _WHOLE).all()) for plane in np.moveaxis(kept, 2, 0)
        ]
        is_colour = not channels and not self._is_grey
        self.notes: tuple[str, ...] = ()
        if not all(self._is_8_bit):
            self.notes = ("colour rounded to 8 bits",) if is_colour else ("crops of 16-bit grey",)
        if is_colour:
            self._is_8_bit = [True] * 3

    def of(self, number: int, square: NDArray[np.float32]) -> Mapping[str, bytes]:
        """Encode a crop.

        Parameters
        ----------
        number : int
            The cell's.
        square : float32 array, shape (side, side, n_channels)

        Returns
        -------
        mapping of str to bytes
            PNG files by name.
        """
        if self._channels:
            planes = zip(self._channels, np.moveaxis(square, 2, 0), self._is_8_bit, strict=True)
            return {
                f"{number:03d}_{channel}.png": _png(_stored(plane, is_8_bit)) for channel, plane, is_8_bit in planes
            }
        pixels = square[..., 0] if self._is_grey else square
        return {f"{number:03d}.png": _png(_stored(pixels, self._is_8_bit[0]))}


def _stored(values: NDArray[np.float32], is_8_bit: bool) -> Pixels:  # noqa: FBT001
    return np.rint(values * 255).astype(np.uint8) if is_8_bit else np.rint(values * 65535).astype(np.uint16)


def _png(pixels: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
