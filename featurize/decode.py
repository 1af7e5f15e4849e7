"""From a file's bytes to pixels, by written rules, or a reason why not.

Rules, version 1. The content decides, not the extension. Formats: JPEG, PNG, WEBP, TIFF, BMP, GIF. The EXIF orientation is
applied. 1-bit becomes 0 and 255; palette, CMYK, YCbCr, LAB and HSV become RGB; alpha is dropped. Pixels are divided by
the value that ``--scale`` names or, unless it does, by the largest of their type (255, 65,535, and 1 for floats); none may lie
outside of [0, 1] then. Nothing is clipped.
"""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from features_cache.status import Status
from featurize.settings import MAX_PIXELS, SCALE_BY_TYPE

DECODING = "pillow-1"
_ORIENTATION = 0x0112
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
    (rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", "TIFF"),
    (rb"GIF8", "GIF"),
)

# Image.open would warn, and above twice its own limit fail, before we can compare the size with --max-pixels: decode() does
# that from the header, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class BadImage(Exception):
    """An image that has to be quarantined.

    Parameters
    ----------
    status : Status
        The code.
    reason : str
        What was found, for the list beside the cache.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels as stored.

    Parameters
    ----------
    pixels : uint8, uint16 or float32 array, shape (height, width) or (height, width, 3)
        Grey or RGB.
    notes : tuple of str
        Which conversions were made; the run counts them.
    """

    pixels: NDArray[Any]
    notes: tuple[str, ...]


def decode(raw: bytes, *, suffix: str = "", max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image that is wholly in memory.

    Parameters
    ----------
    raw : bytes
        The file.
    suffix : str
        Its extension with the dot; only compared with the content.
    max_pixels : int
        Largest width times height, checked from the header before a pixel is decoded.

    Returns
    -------
    Decoded

    Raises
    ------
    BadImage
        If it is not an image, truncated, too large, of an unsupported kind, or holds NaN or infinite pixels.
    """
    image = _identified(raw, max_pixels)
    width, height = image.size
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1  # asked first: loading a TIFF turns it, and forgets
        n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        upright = ImageOps.exif_transpose(image)
    except Exception as error:
        raise BadImage(Status.TRUNCATED, f"truncated or damaged {image.format} ({error})") from error
    if n_frames > 1:
        raise BadImage(Status.UNSUPPORTED, f"{n_frames} frames or pages; expected one")
    notes = []
    if suffix.lower() not in _SUFFIXES[str(image.format)]:
        notes.append(f"extension says {suffix or 'nothing'}, content is {image.format}")
    if turned:
        notes.append("turned by its EXIF orientation")
    if min(width, height) < 8 or max(width, height) > 8 * min(width, height):
        notes.append("smaller than 8 px or longer than 8:1")
    pixels, note = _pixels(upright, str(image.format))
    return Decoded(pixels, (*notes, *note))


def _identified(raw: bytes, max_pixels: int) -> ImageFile:
    """Read the header, and refuse what must not be decoded."""
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise _not_an_image(raw) from error
    except Exception as error:
        raise BadImage(Status.TRUNCATED, f"damaged header ({error})") from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(Status.TOO_LARGE, f"{width} x {height} pixels; at most {max_pixels} (--max-pixels)")
    if image.mode not in {"I", "F"} and not image.mode.startswith("I;16") and _is_16_bit(image):
        deep = f"16 bits a channel in one {image.format} of mode {image.mode}"
        raise BadImage(Status.UNSUPPORTED, f"{deep}; expected 8 (or one grey 16-bit file a channel)")
    return image


def _is_16_bit(image: ImageFile) -> bool:
    """Whether the file holds 16 bits a channel, of which Pillow would quietly drop the lower 8."""
    # The other arguments of a decoder are numbers such as a row's bytes; and 16 in a BMP's mode are the bits of a pixel.
    modes = (tile[3] if isinstance(tile[3], str) else str((tile[3] or [""])[0]) for tile in image.tile)
    return image.format != "BMP" and any("16" in mode for mode in modes)


def _pixels(image: Image.Image, kind: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    mode = image.mode
    if mode in {"L", "RGB"}:
        return np.asarray(image), ()
    if mode == "1":
        return np.asarray(image.convert("L")), ("1-bit turned to 0 and 255",)
    if mode in {"LA", "La"}:
        return np.asarray(image)[..., 0], ("alpha dropped",)
    if mode in {"RGBA", "RGBX", "RGBa"}:
        return np.asarray(image)[..., :3], ("alpha dropped",)
    if mode in {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}:
        name = {"P": "palette", "PA": "palette"}.get(mode, mode)
        return np.asarray(image.convert("RGB")), (f"{name} turned to RGB",)
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):
        return np.asarray(image).astype(np.uint16), ("16 bits a channel",)
    if mode == "F":
        pixels = np.asarray(image)
        if not np.isfinite(pixels).all():
            n_bad = int((~np.isfinite(pixels)).sum())
            raise BadImage(Status.NOT_FINITE, f"{n_bad} NaN or infinite pixels")
        return pixels, ("float pixels",)
    raise BadImage(Status.UNSUPPORTED, f"pixels of mode {mode!r}; expected 8 or 16 bit, or float")


def unit_range(pixels: NDArray[Any], scale: str = SCALE_BY_TYPE) -> NDArray[np.float32]:
    """Bring stored pixels to [0, 1] by a rule that all images share: never by each image's own brightest pixel.

    Parameters
    ----------
    pixels : uint8, uint16 or float32 array
        Finite.
    scale : str
        The stored value that becomes 1, in decimal digits, such as ``4095`` for a 12-bit camera; ``dtype`` stands for the
        largest value of the type, 1 for floats.

    Raises
    ------
    BadImage
        If a pixel would lie outside of [0, 1].

    Examples
    --------
    >>> unit_range(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    >>> unit_range(np.array([0, 1024, 4095], np.uint16), "4095").round(3).tolist()
    [0.0, 0.25, 1.0]
    """
    by_type = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    peak = by_type if scale == SCALE_BY_TYPE else float(scale)
    if pixels.min() < 0 or pixels.max() > peak:
        found = f"pixels from {pixels.min():g} to {pixels.max():g}"
        raise BadImage(Status.UNSUPPORTED, f"{found}; expected 0 to {peak:g} (--scale)")
    return pixels.astype(np.float32) / np.float32(peak)


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
