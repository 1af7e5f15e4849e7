"""From a file's bytes to pixels, by written rules, or a reason why not.

Rules, version 1. The content decides, not the extension. Formats: JPEG, PNG, WEBP, TIFF, BMP, GIF. The EXIF orientation is
applied. 1-bit becomes 0 and 255; palette, CMYK, YCbCr, LAB and HSV become RGB; alpha is dropped. Where the planes of a file are
named, its pages and the samples of a pixel are planes in that order, and only palettes are converted. A file of several pages,
whose planes are not named, needs ``--frame``. What Pillow would read with a loss (16-bit colour) or not at all (more than four
samples, other compressions) is left to tifffile and imagecodecs where these are installed.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.deep_pages import PngPage, TiffPages
from featurize.images.pages import Pages
from featurize.images.pillow_pages import PillowPages
from featurize.images.settings import MAX_PIXELS

DECODING = "pillow-1"
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg"},
    "MPO": {".jpg", ".jpeg"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
}
_TIFF = rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"
_SIGNATURES = (
    (rb"\s*(<!doctype html|<html|<head|<\?xml|<svg)", "HTML or XML"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb".{257}ustar", "a tar archive"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"8BPS", "PSD"),
    (rb"SIMPLE  =", "FITS"),
    (rb"\x89HDF", "HDF5"),
    (rb"[\t\n\r\x20-\x7e]{1,512}\Z", "text"),
)
_DAMAGED = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG", "PNG"),
    (_TIFF, "TIFF"),
    (rb"GIF8", "GIF"),
)

# Image.open would warn, and above twice its own limit fail, before we can compare the size with --max-pixels: decode() does
# that from the header, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # what it logs of odd files, it also raises


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels as stored.

    Parameters
    ----------
    pixels : uint8, uint16 or float32 array, shape (height, width, n_planes)
        Grey (1) or RGB (3), or the planes that were named.
    notes : tuple of str
        Which conversions were made; the run counts them.
    """

    pixels: NDArray[Any]
    notes: tuple[str, ...]


def decode(
    raw: bytes,
    *,
    suffix: str = "",
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    n_planes: int | None = None,
) -> Decoded:
    """Decode an image that is wholly in memory.

    Parameters
    ----------
    raw : bytes
        The file.
    suffix : str
        Its extension with the dot; only compared with the content.
    max_pixels : int
        Largest width times height, checked from the header before a pixel is decoded.
    frame : int, optional
        Which page, from 0.
    n_planes : int, optional
        How many planes pages and samples must give together; grey or RGB unless given.

    Returns
    -------
    Decoded

    Raises
    ------
    BadImage
        If it is not an image, truncated, too large, of an unsupported kind, or holds NaN or infinite pixels.
    """
    pages = _identified(raw)
    width, height = pages.size_px
    _require_few(width * height, max_pixels, f"{width} x {height} pixels")
    notes = []
    if suffix.lower() not in _SUFFIXES[pages.kind]:
        notes.append(f"extension says {suffix or 'nothing'}, content is {pages.kind}")
    if min(width, height) < 8 or max(width, height) > 8 * min(width, height):
        notes.append("smaller than 8 px or longer than 8:1")
    frames = _frames(pages.n_frames, frame, n_planes)
    if len(frames) > 1:
        _require_few(width * height * len(frames), max_pixels, f"{len(frames)} pages of {width} x {height} pixels")
    planes = []
    for page in frames:
        pixels, more = pages.read(page, as_stored=n_planes is not None)
        planes.append(pixels if pixels.ndim == 3 else pixels[..., None])
        notes += [note for note in more if note not in notes]
    return Decoded(_together(planes, n_planes), tuple(notes))


def _identified(raw: bytes) -> Pages:
    """Read the header, and choose who can read the pixels without a loss."""
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except UnidentifiedImageError as error:
        bad = _not_an_image(raw)
        if bad.status == Status.TRUNCATED and re.match(_TIFF, raw):
            return TiffPages.open(raw, bad)
        raise bad from error
    except Exception as error:
        raise BadImage(Status.TRUNCATED, f"damaged header ({error})") from error
    pages = PillowPages(image)
    if not pages.loses_bits:
        return pages
    deep = (
        f"16 bits a channel in one {image.format} of mode {image.mode}; expected 8 (or one grey 16-bit file a channel)"
    )
    if image.format == "TIFF":
        return TiffPages.open(raw, BadImage(Status.UNSUPPORTED, deep))
    return PngPage.open(raw, image.size, BadImage(Status.UNSUPPORTED, deep))


def _require_few(n_pixels: int, max_pixels: int, found: str) -> None:
    if n_pixels > max_pixels:
        raise BadImage(Status.TOO_LARGE, f"{found}; at most {max_pixels} (--max-pixels)")


def _frames(n_frames: int, frame: int | None, n_planes: int | None) -> range:
    """Which pages are read."""
    if frame is not None:
        if frame >= n_frames:
            raise BadImage(Status.UNSUPPORTED, f"{n_frames} frames or pages; --frame {frame} counts from 0")
        return range(frame, frame + 1)
    if n_frames > 1 and n_planes is None:
        found = f"{n_frames} frames or pages; expected one"
        raise BadImage(Status.UNSUPPORTED, f"{found}. --frame N takes one, --planes names them as channels")
    if n_planes is not None and n_frames > n_planes:
        raise BadImage(Status.UNSUPPORTED, f"{n_frames} frames or pages; expected {n_planes} planes, as --planes names")
    return range(n_frames)


def _together(planes: list[NDArray[Any]], n_planes: int | None) -> NDArray[Any]:
    """Join the planes of pages, and check what they are."""
    if any(page.shape[:2] != planes[0].shape[:2] for page in planes):
        raise BadImage(Status.UNSUPPORTED, f"its {len(planes)} pages differ in size; --frame N takes one")
    pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    if n_planes is None and pixels.shape[2] not in {1, 3}:
        raise BadImage(Status.UNSUPPORTED, f"{pixels.shape[2]} planes; expected 1 or 3, or their names (--planes)")
    if n_planes is not None and pixels.shape[2] != n_planes:
        raise BadImage(Status.UNSUPPORTED, f"{pixels.shape[2]} planes; expected {n_planes}, as --planes names")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        n_bad = int((~np.isfinite(pixels)).sum())
        raise BadImage(Status.NOT_FINITE, f"{n_bad} NaN or infinite pixels")
    return pixels


def _not_an_image(raw: bytes) -> BadImage:
    if not raw:
        return BadImage(Status.NOT_AN_IMAGE, "not an image (empty file)")
    start = raw[:512]
    for signature, name in _DAMAGED:
        if re.match(signature, start, re.DOTALL):
            return BadImage(
                Status.TRUNCATED,
                f"begins as {name}, but cannot be read: damaged, or a kind of {name} that is not supported",
            )
    for signature, name in _SIGNATURES:
        if re.match(signature, start, re.DOTALL | re.IGNORECASE):
            return BadImage(Status.NOT_AN_IMAGE, f"not an image (looks like {name})")
    return BadImage(Status.NOT_AN_IMAGE, f"not an image of a supported format ({', '.join(_FORMATS)})")
