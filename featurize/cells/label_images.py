"""Label images by other tools: a whole number a cell, 0 the background, one file an image."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features_cache.errors import ImagesMissing
from features_cache.sources import SourceFile
from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.manifest import list_images

_FORMATS = ("PNG", "TIFF")
_EXACT = 2**24
_NUMBERS = ("L", "P", "I", "F")
"""Pillow's modes of one number a pixel: of a palette's images the number counts, not its colour."""


def list_label_images(folder: Path, split: str, *, follow_links: bool = False) -> tuple[Path, dict[str, SourceFile]]:
    """Find label images by the ids that they belong to.

    Parameters
    ----------
    folder : Path
        Holds ``{id}.png`` or ``{id}.tif``; or, as the same id may be in training and test, a folder of the split's name with these.
    split : str
        ``train`` or ``test``.
    follow_links : bool
        Whether links may lead out of the folder.

    Returns
    -------
    root : Path
        The folder in which they lie.
    files : dict of str to SourceFile
        By id without extension.

    Raises
    ------
    ImagesMissing
        If there is none, or two for one id.
    UnsafePath
        As :func:`featurize.images.walk.walk`.
    """
    root = folder / split if (folder / split).is_dir() else folder
    manifest = list_images(root, ids=None, follow_links=follow_links, named_by="--masks")
    files: dict[str, SourceFile] = {}
    for name, (source,) in zip(manifest.ids, manifest.sources, strict=True):
        stem = PurePosixPath(name).with_suffix("").as_posix()
        if stem in files:
            msg = f"{root}: two label images for {stem!r} ({files[stem].path!r}, {source.path!r}); remove one"
            raise ImagesMissing(msg)
        files[stem] = source
    return root, files


def decode_labels(raw: bytes, shape: tuple[int, int], max_pixels: int) -> NDArray[np.int64]:
    """Decode a label image.

    Parameters
    ----------
    raw : bytes
        The file.
    shape : (int, int)
        Height and width of its image, px.
    max_pixels : int
        Largest width times height, checked before a pixel is decoded.

    Returns
    -------
    int64 array, shape ``shape``

    Raises
    ------
    BadImage
        If it cannot be read, has another size, or holds anything but whole numbers from 0 on.
    """
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except Exception as error:
        raise BadImage(
            Status.NOT_AN_IMAGE,
            "label image: damaged, of 64 bits, or neither PNG nor TIFF; expected 8, 16 or 32 bits",
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(Status.TOO_LARGE, f"label image: {width} x {height} pixels; at most {max_pixels} (--max-pixels)")
    if (height, width) != shape:
        raise BadImage(Status.CHANNEL, f"label image is {width} x {height}; the image is {shape[1]} x {shape[0]}")
    if image.mode not in _NUMBERS and not image.mode.startswith("I;16"):
        found = f"label image: pixels of mode {image.mode!r}"
        raise BadImage(
            Status.UNSUPPORTED, f"{found}; expected whole numbers, 0 and one a cell (8, 16 or 32 bits of grey)"
        )
    try:
        n_pages = getattr(image, "n_frames", 1)
        pixels = np.asarray(image)
    except Exception as error:
        raise BadImage(Status.TRUNCATED, f"label image: truncated or damaged {image.format} ({error})") from error
    if n_pages > 1:
        raise BadImage(Status.UNSUPPORTED, f"label image: {n_pages} pages; expected one")
    # From 2 ** 24 on floats skip whole numbers, and two cells may have become one.
    most = _EXACT if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    if not ((pixels >= 0).all() and (pixels <= most).all() and (pixels == np.floor(pixels)).all()):
        found = f"label image: numbers below 0, with a fraction, or as floats above {_EXACT}"
        raise BadImage(Status.UNSUPPORTED, f"{found}; expected 0 and one a cell")
    labels = pixels.astype(np.int64)
    if labels.max() == 255 and set(np.unique(labels)) <= {0, 255}:
        raise BadImage(
            Status.UNSUPPORTED, "label image: only 0 and 255, black and white; expected a number of its own a cell"
        )
    return labels
