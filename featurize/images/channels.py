"""From the files of one image to its planes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from features_cache.layout import HASH_BYTES
from features_cache.sources import SourceFile
from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.decode import Decoded, decode
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.images.unit_range import unit_range

_MOST_OF_12_BITS = 4095
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """One image, ready to be resized.

    Parameters
    ----------
    pixels : float32 array, shape (height, width, n_planes)
        In [0, 1].
    content_hash : uint8 array, shape (16,)
        blake2b-128 of the bytes of all its files in order.
    notes : tuple of str
        Which conversions were made.
    """

    pixels: NDArray[np.float32]
    content_hash: NDArray[np.uint8]
    notes: tuple[str, ...]


def load_image(root: Place, sources: Sequence[SourceFile], reading: Reading) -> Loaded:
    """Read, hash, decode and stack the files of one image. Each file is read once.

    Parameters
    ----------
    root : Place
        Folder of the images.
    sources : sequence of SourceFile
        The image's files: one, or one a plane.
    reading : Reading
        Which planes there are, and by which rules they are read.

    Raises
    ------
    BadImage
        If a file cannot be used.
    ImageChanged
        If a file is not the one that was planned.
    StoreUnreachable
        If a store gives no answer.
    """
    names = reading.planes if reading.by_file else ("",)
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    found: list[Decoded] = []
    for channel, source in zip(names, sources, strict=True):
        where = f"channel {channel}: " if channel else ""
        if not source.path:
            raise BadImage(Status.CHANNEL, f"channel {channel} has no file")
        try:
            raw = root.read(source)
            digest.update(raw)
            found.append(
                decode(
                    raw,
                    suffix=PurePosixPath(source.path).suffix,
                    max_pixels=reading.max_pixels,
                    frame=reading.frame,
                    n_planes=len(reading.planes) if reading.places else None,
                )
            )
        except BadImage as error:
            raise BadImage(error.status, where + error.reason) from error
    notes = tuple(note for decoded in found for note in decoded.notes)
    pixels, more = _stacked(found, names, reading) if reading.by_file else _of_one_file(found[0], reading)
    return Loaded(pixels, np.frombuffer(digest.digest(), np.uint8), (*notes, *more, *_notes_on(found, reading)))


def hash_image(root: Place, sources: Sequence[SourceFile]) -> NDArray[np.uint8]:
    """Hash the files of one image without decoding them; as ``Loaded.content_hash``.

    Raises
    ------
    BadImage
        If a file is missing or cannot be read.
    ImageChanged
        If a file is not the one that was planned.
    StoreUnreachable
        If a store gives no answer.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for source in sources:
        if not source.path:
            raise BadImage(Status.CHANNEL, "a channel has no file")
        digest.update(root.read(source))
    return np.frombuffer(digest.digest(), np.uint8)


def _notes_on(found: Sequence[Decoded], reading: Reading) -> tuple[str, ...]:
    """Say where the rule of the number type makes an image dark: cameras of 12 bits fill files of 16."""
    deep = [decoded.pixels for decoded in found if decoded.pixels.dtype == np.uint16]
    if reading.scale.kind != "dtype" or not deep or max(int(pixels.max()) for pixels in deep) > _MOST_OF_12_BITS:
        return ()
    return (
        "16 bits a channel, none of them above 4095: nearly black, unless --scale 4095 or image:0:100 says otherwise",
    )


def _of_one_file(decoded: Decoded, reading: Reading) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    pixels = unit_range(decoded.pixels, reading.scale)
    if reading.places or pixels.shape[2] == 3:
        return pixels, ()
    return np.repeat(pixels, 3, axis=2), ("grey turned to RGB",)


def _stacked(
    found: Sequence[Decoded], names: Sequence[str], reading: Reading
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Stack files of one channel each; numbers of all files are scaled together where percentiles are an image's."""
    notes: tuple[str, ...] = ()
    together = reading.scale.kind == "image"
    planes: list[NDArray[np.float32]] = []
    for decoded, name in zip(found, names, strict=True):
        try:
            plane = decoded.pixels.astype(np.float32) if together else unit_range(decoded.pixels, reading.scale)
        except BadImage as error:
            raise BadImage(error.status, f"channel {name}: {error.reason}") from error
        if plane.shape[2] == 3:
            plane = (plane @ _LUMA)[..., None]
            notes = (*notes, "colour channel file turned to grey (BT.601)")
        if planes and plane.shape != planes[0].shape:
            here, first = (f"{part.shape[1]} x {part.shape[0]}" for part in (plane, planes[0]))
            raise BadImage(Status.CHANNEL, f"channel {name} is {here}; channel {names[0]} is {first}")
        planes.append(plane)
    stacked = np.concatenate(planes, axis=2)
    return (unit_range(stacked, reading.scale) if together else stacked), notes
