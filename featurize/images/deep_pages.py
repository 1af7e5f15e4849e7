"""Files that Pillow would read with a loss, or not at all: colour of 16 bits, many samples a pixel, rarer compressions.

They need the extra ``tiff``; without it they are quarantined, with a word on what to install.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features_cache.status import Status
from featurize.images.bad_image import BadImage

_INSTALL = "`pip install 'permafeat[tiff]'` reads it"
_NUMBERS = {"uint8", "uint16", "float16", "float32", "float64"}
_ORIENTATION = 274


class TiffPages:
    """Pages of a TIFF, read by tifffile and imagecodecs; see :class:`featurize.images.pages.Pages`.

    Parameters
    ----------
    pages : list
        tifffile's, of a file that stays in memory.
    """

    kind = "TIFF"

    def __init__(self, pages: list[Any]) -> None:
        self._pages = pages
        self.size_px = (int(pages[0].imagewidth), int(pages[0].imagelength))
        self.n_frames = len(pages)

    @classmethod
    def open(cls, raw: bytes, otherwise: BadImage) -> Self:
        """Read the headers.

        Raises
        ------
        BadImage
            ``otherwise``, with what to install, where the extra is missing; or if the file is damaged.
        """
        try:
            import tifffile
        except ImportError as error:
            raise BadImage(otherwise.status, f"{otherwise.reason}; {_INSTALL}") from error
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of damaged files, it also raises
        with _damages():
            return cls(list(tifffile.TiffFile(io.BytesIO(raw)).pages))

    def read(self, page: int, *, as_stored: bool) -> tuple[NDArray[Any], list[str]]:
        """Decode a page; see :meth:`featurize.images.pages.Pages.read`."""
        found = self._pages[page]
        with _damages():
            # A page may promise any size: what it would take is known before it is decoded.
            width, height, axes = int(found.imagewidth), int(found.imagelength), str(found.axes)
            if (width, height) != self.size_px or axes not in {"YX", "YXS", "SYX"}:
                raise BadImage(
                    Status.UNSUPPORTED, f"a page of axes {axes}, {width} x {height}; expected planes of one size"
                )
            if str(found.dtype) not in _NUMBERS or found.samplesperpixel > _MOST_SAMPLES:
                kind = f"{found.samplesperpixel} samples a pixel of type {found.dtype}"
                raise BadImage(Status.UNSUPPORTED, f"{kind}; expected at most {_MOST_SAMPLES} of 8 or 16 bit, or float")
            if _ORIENTATION in found.tags and found.tags[_ORIENTATION].value != 1:
                raise BadImage(Status.UNSUPPORTED, "a TIFF of deep colour that is to be turned; save it upright")
            pixels = found.asarray()
            if pixels.dtype.kind == "f":
                pixels = pixels.astype(np.float32)
        pixels = np.moveaxis(pixels, 0, -1) if axes == "SYX" else pixels
        by_type = {"u2": ["16 bits a channel"], "f4": ["float pixels"]}
        notes = ["read by tifffile", *by_type.get(pixels.dtype.str[1:], [])]
        if not as_stored and pixels.ndim == 3 and pixels.shape[2] in {2, 4} and len(found.extrasamples) == 1:
            pixels, notes = pixels[..., :-1], [*notes, "alpha dropped"]
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), notes


class PngPage:
    """A PNG of 16-bit colour, read by imagecodecs; see :class:`featurize.images.pages.Pages`.

    Parameters
    ----------
    raw : bytes
        The file.
    size_px : tuple of int
        Width and height.
    """

    kind = "PNG"
    n_frames = 1

    def __init__(self, raw: bytes, size_px: tuple[int, int]) -> None:
        self._raw = raw
        self.size_px = size_px

    @classmethod
    def open(cls, raw: bytes, size_px: tuple[int, int], otherwise: BadImage) -> Self:
        """Check that the extra is there.

        Raises
        ------
        BadImage
            ``otherwise``, with what to install, where it is not.
        """
        try:
            import imagecodecs  # noqa: F401 - whether it is there
        except ImportError as error:
            raise BadImage(otherwise.status, f"{otherwise.reason}; {_INSTALL}") from error
        return cls(raw, size_px)

    def read(self, page: int, *, as_stored: bool) -> tuple[NDArray[Any], list[str]]:  # noqa: ARG002 - a PNG has one page
        """Decode it; see :meth:`featurize.images.pages.Pages.read`."""
        import imagecodecs

        with _damages():
            pixels = imagecodecs.png_decode(self._raw)
        notes = ["read by imagecodecs", "16 bits a channel"]
        if not as_stored and pixels.shape[2] in {2, 4}:
            pixels, notes = pixels[..., :-1], [*notes, "alpha dropped"]
        return pixels, notes


_MOST_SAMPLES = 64


@contextlib.contextmanager
def _damages() -> Iterator[None]:
    """Make whatever a damaged file does to its reader a reason for quarantine."""
    try:
        yield
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(Status.TRUNCATED, f"truncated or damaged ({error})") from error
