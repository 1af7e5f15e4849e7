"""A cell's mask as text: COCO run-length, then zlib, then base64, as cell-level submissions ask for.

COCO's run lengths go down the columns and begin with a run of background, which may be empty. As bytes, each length from the fourth
on is replaced by its difference from the one two before it; each number is cut into groups of five bits, the lowest first, with a
sixth bit where more follow and the sign in the last; and 48 is added to each group (LEB128, but for the width of a group).
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import TableError

Counts = NDArray[np.int64]
_BITS = 5
_MORE = 1 << _BITS
_SIGN = 1 << (_BITS - 1)
_FIRST_CHARACTER = 48
_MOST_GROUPS = 12


def encode_mask(mask: NDArray[np.bool_]) -> str:
    """Encode a mask of a whole image.

    Parameters
    ----------
    mask : bool array, shape (height, width)
        At least one pixel.

    Returns
    -------
    str
        ASCII.

    Examples
    --------
    >>> encode_mask(np.eye(3, dtype=bool))
    'eNozMDQ2MDAAAAQHASU='
    >>> decode_mask(encode_mask(np.eye(3, dtype=bool)), 3, 3).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    return encode_box(mask, x=0, y=0, height=mask.shape[0], width=mask.shape[1])


def encode_box(mask: NDArray[np.bool_], *, x: int, y: int, height: int, width: int) -> str:
    """Encode a mask of which only the pixels in a box are given, without building the whole of it.

    Parameters
    ----------
    mask : bool array, shape (rows, columns)
        What lies in the box.
    x, y : int
        The box's first column and row in the image, px from 0.
    height, width : int
        The image's size in px.

    Returns
    -------
    str
        ASCII.

    Raises
    ------
    ValueError
        If the box is empty, or reaches out of the image.
    """
    rows, columns = mask.shape
    if not (mask.size and 0 <= x <= width - columns and 0 <= y <= height - rows):
        msg = f"a box of {columns} x {rows} px at ({x}, {y}); expected one inside an image of {width} x {height}"
        raise ValueError(msg)
    return base64.b64encode(zlib.compress(_to_bytes(_run_lengths(mask, x, y, height, width)), level=9)).decode("ascii")


def decode_mask(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode what :func:`encode_mask` or :func:`encode_box` gave.

    Parameters
    ----------
    text : str
    height, width : int
        The image's size in px.

    Returns
    -------
    bool array, shape (height, width)

    Raises
    ------
    TableError
        If it is no such text, or a mask of another number of pixels.
    """
    try:
        # No mask of this size has more bytes: a foreign text must not fill the memory.
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(text, validate=True), _MOST_GROUPS * (height * width + 2))
        is_whole = stream.eof and not stream.unused_data
    except (binascii.Error, ValueError, zlib.error) as error:
        msg = f"mask {text[:20]!r}…: not base64 of zlib ({error}); expected what `cli cells` writes"
        raise TableError(msg) from error
    if not is_whole:
        msg = f"mask {text[:20]!r}…: cut off, or longer than one of {width} x {height} pixels can be; expected what `cli cells` writes"
        raise TableError(msg)
    counts = _from_bytes(raw)
    if counts.min() < 0 or counts.max() > height * width or counts.sum() != height * width:
        msg = f"mask {text[:20]!r}…: its runs are not those of {width} x {height} = {height * width} pixels"
        raise TableError(msg)
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def _run_lengths(mask: NDArray[np.bool_], x: int, y: int, height: int, width: int) -> Counts:
    """Count background and mask in turn, down the columns of the whole image."""
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns, axis=1)
    begins, ends = (
        (x + column) * height + y + row for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    # Where the mask goes on at the top of the next column, no run ends.
    goes_on = np.zeros(len(begins) + 1, bool)
    goes_on[1:-1] = begins[1:] == ends[:-1]
    bounds = np.stack([begins[~goes_on[:-1]], ends[~goes_on[1:]]], axis=1).ravel()
    edges = np.concatenate([[0], bounds, [height * width]])
    counts: Counts = np.diff(edges)
    return counts if len(counts) == 1 or counts[-1] else counts[:-1]


def _to_bytes(counts: Counts) -> bytes:
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    groups, is_there = [], []
    going = np.ones(len(numbers), bool)
    while going.any():
        low = numbers & (_MORE - 1)
        numbers = numbers >> _BITS
        # What is left is all sign, and the sign is in the group already: the last one.
        ends = np.where(low & _SIGN, numbers == -1, numbers == 0)
        groups.append(np.where(ends, low, low | _MORE) + _FIRST_CHARACTER)
        is_there.append(going)
        going = going & ~ends
    characters: NDArray[np.uint8] = np.stack(groups, axis=1)[np.stack(is_there, axis=1)].astype(np.uint8)
    return characters.tobytes()


def _from_bytes(raw: bytes) -> Counts:
    groups = np.frombuffer(raw, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    is_last = (groups & _MORE) == 0
    number = np.cumsum(is_last) - is_last
    begins = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    place = np.arange(len(groups)) - begins[number] if len(groups) else number
    if (
        not len(groups)
        or not is_last[-1]
        or groups.min() < 0
        or groups.max() >= 2 * _MORE
        or place.max() >= _MOST_GROUPS
    ):
        msg = "a mask whose run lengths are cut off or hold other characters; expected what `cli cells` writes"
        raise TableError(msg)
    numbers = np.zeros(int(is_last.sum()), np.int64)
    np.add.at(numbers, number, (groups & (_MORE - 1)) << (_BITS * place))
    last = np.flatnonzero(is_last)
    numbers -= np.where(groups[last] & _SIGN, np.int64(1) << (_BITS * (place[last] + 1)), 0)
    for first in (
        1,
        2,
    ):  # each difference is from the number two before it, so odd and even places are sums of their own
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
