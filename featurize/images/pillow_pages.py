"""Files that Pillow reads without a loss: nearly all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from features_cache.status import Status
from featurize.images.bad_image import BadImage

_ORIENTATION, _BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 0x0112, 258, 277
_SAMPLES = {"LA", "La", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}


class PillowPages:
    """Pages of an image file; see :class:`featurize.images.pages.Pages`.

    Parameters
    ----------
    image : ImageFile
        Opened, not loaded.
    """

    def __init__(self, image: ImageFile) -> None:
        self._image = image
        self.kind = str(image.format)
        self.size_px = image.size

    @property
    def n_frames(self) -> int:
        """How many pages or frames there are; the pictures in an MPO are one of several eyes."""
        try:
            return 1 if self.kind == "MPO" else int(getattr(self._image, "n_frames", 1))
        except Exception as error:
            raise self._damaged(error) from error

    @property
    def loses_bits(self) -> bool:
        """Whether the file holds colour of more than 8 bits, of which Pillow would quietly drop the lower ones, or fail."""
        if isinstance(self._image, TiffImageFile):
            tags = self._image.tag_v2
            return int(tags.get(_SAMPLES_PER_PIXEL, 1)) > 1 and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8
        mode = self._image.mode
        if mode in {"I", "F"} or mode.startswith("I;16") or self.kind == "BMP":
            return False  # 16 in a BMP's mode are the bits of a pixel
        # The other arguments of a decoder are numbers such as a row's bytes.
        tiles = self._image.tile
        modes = (tile[3] if isinstance(tile[3], str) else str((tile[3] or [""])[0]) for tile in tiles)
        return any("16" in mode for mode in modes)

    def read(self, page: int, *, as_stored: bool) -> tuple[NDArray[Any], list[str]]:
        """Decode a page and turn it upright; see :meth:`featurize.images.pages.Pages.read`."""
        try:
            if page:
                self._image.seek(page)
            # Asked first: loading a TIFF turns it, and forgets.
            turned = self._image.getexif().get(_ORIENTATION, 1) != 1
            self._image.load()
            upright = ImageOps.exif_transpose(self._image)
        except Exception as error:
            raise self._damaged(error) from error
        pixels, notes = _pixels(upright, self.kind, as_stored=as_stored)
        return pixels, [*(["turned by its EXIF orientation"] if turned else []), *notes]

    def _damaged(self, error: Exception) -> BadImage:
        return BadImage(Status.TRUNCATED, f"truncated or damaged {self.kind} ({error})")


def _pixels(image: Image.Image, kind: str, *, as_stored: bool) -> tuple[NDArray[Any], list[str]]:
    mode = image.mode
    if mode in {"L", "RGB"} or (as_stored and mode in _SAMPLES):
        return np.asarray(image), []
    if mode == "1":
        return np.asarray(image.convert("L")), ["1-bit turned to 0 and 255"]
    if mode in {"LA", "La"}:
        return np.asarray(image)[..., 0], ["alpha dropped"]
    if mode in {"RGBA", "RGBX", "RGBa"}:
        return np.asarray(image)[..., :3], ["alpha dropped"]
    if mode in {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}:
        name = {"P": "palette", "PA": "palette"}.get(mode, mode)
        return np.asarray(image.convert("RGB")), [f"{name} turned to RGB"]
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):
        return np.asarray(image).astype(np.uint16), ["16 bits a channel"]
    if mode == "F":
        return np.asarray(image), ["float pixels"]
    raise BadImage(Status.UNSUPPORTED, f"pixels of mode {mode!r}; expected 8 or 16 bit, or float")
