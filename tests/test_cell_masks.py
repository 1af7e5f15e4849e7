"""Masks as text: every pixel comes back, other tools read and write the same bytes, hostile texts are refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from features_cache.errors import TableError
from featurize.cells.masks import decode_mask, encode_box, encode_mask

Mask = NDArray[np.bool_]
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def of_counts(counts: bytes) -> str:
    return base64.b64encode(zlib.compress(counts)).decode()


def by_pycocotools(mask: Mask) -> bytes:
    counts: bytes = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools decodes by NumPy 1's rules
@given(MASKS)
def test_every_pixel_comes_back_and_pycocotools_writes_the_same_bytes(mask: Mask) -> None:
    text = encode_mask(mask)
    counts = zlib.decompress(base64.b64decode(text, validate=True))
    assert counts == by_pycocotools(mask)
    np.testing.assert_array_equal(decode_mask(text, *mask.shape), mask)
    np.testing.assert_array_equal(coco.decode({"size": list(mask.shape), "counts": counts}), mask)


@given(MASKS)
def test_what_pycocotools_writes_is_read(mask: Mask) -> None:
    np.testing.assert_array_equal(decode_mask(of_counts(by_pycocotools(mask)), *mask.shape), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 9)])
def test_empty_and_full_masks_come_back(shape: tuple[int, int]) -> None:
    for value in (False, True):
        mask = np.full(shape, value)
        text = encode_mask(mask)
        assert zlib.decompress(base64.b64decode(text)) == by_pycocotools(mask)
        np.testing.assert_array_equal(decode_mask(text, *shape), mask)


def test_a_mask_of_a_large_image_has_runs_of_many_digits() -> None:
    mask = np.zeros((3000, 2500), bool)
    mask[2999, 2499] = mask[0, 0] = True
    mask[100:2900, 700:1900] = True
    text = encode_mask(mask)
    assert zlib.decompress(base64.b64decode(text)) == by_pycocotools(mask)
    np.testing.assert_array_equal(decode_mask(text, *mask.shape), mask)


@given(MASKS, st.tuples(*[st.integers(0, 5)] * 4))
def test_a_box_has_the_text_of_the_whole_image(mask: Mask, room: tuple[int, int, int, int]) -> None:
    above, below, left, right = room
    whole = np.pad(mask, [(above, below), (left, right)])
    height, width = whole.shape
    assert encode_box(mask, x=left, y=above, height=height, width=width) == encode_mask(whole)


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (0, -1), (3, 0), (0, 2)])
def test_a_box_that_reaches_out_of_the_image_is_an_error(x: int, y: int) -> None:
    with pytest.raises(ValueError, match=r"a box of 3 x 2 px at .* inside an image of 5 x 3"):
        encode_box(np.ones((2, 3), bool), x=x, y=y, height=3, width=5)


def test_a_box_without_pixels_is_an_error() -> None:
    with pytest.raises(ValueError, match="a box of 0 x 2 px"):
        encode_box(np.ones((2, 0), bool), x=0, y=0, height=3, width=5)


GOOD = encode_mask(np.eye(5, dtype=bool))
HOSTILE = {
    "no base64": ("not base64!", "not base64 of zlib"),
    "letters of no alphabet": ("é" * 8, "not base64 of zlib"),
    "no zlib": (base64.b64encode(b"plain").decode(), "not base64 of zlib"),
    "nothing": ("", "cut off"),
    "nothing compressed": (of_counts(b""), "cut off or hold other characters"),
    "cut off": (base64.b64encode(base64.b64decode(GOOD)[:-4]).decode(), "cut off"),
    "more behind it": (base64.b64encode(base64.b64decode(GOOD) + b"more").decode(), "cut off, or longer"),
    "a zip bomb": (of_counts(b"0" * 50_000_000), "longer than one of 5 x 5 pixels"),
    "a number without an end": (of_counts(b"P" * 11), "cut off or hold other characters"),
    "a number of too many digits": (of_counts(b"P" * 13 + b"0"), "cut off or hold other characters"),
    "characters of no number": (of_counts(b"\x00\xff"), "cut off or hold other characters"),
    "runs below 0": (of_counts(b"OI"), "its runs are not those of 5 x 5 = 25 pixels"),
    "a huge run": (of_counts(b"P" * 11 + b"7"), "its runs are not those of 5 x 5 = 25 pixels"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_is_refused_in_words(kind: str) -> None:
    text, match = HOSTILE[kind]
    with pytest.raises(TableError, match=match):
        decode_mask(text, 5, 5)


@pytest.mark.parametrize("shape", [(5, 6), (4, 5), (1, 1)])
def test_a_mask_of_an_image_of_another_number_of_pixels_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(TableError, match="pixels"):
        decode_mask(GOOD, *shape)


@given(st.binary(max_size=40))
def test_whatever_runs_a_text_holds_it_is_read_or_refused(counts: bytes) -> None:
    text = of_counts(counts)
    try:
        mask = decode_mask(text, 6, 7)
    except TableError:
        return
    assert mask.shape == (6, 7)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), 6, 7), mask)
