"""From the files of one image to the three planes that a network takes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ImageChanged
from features_cache.layout import HASH_BYTES
from features_cache.sources import SourceFile, kept_mtime_ns
from features_cache.status import Status
from featurize.decode import BadImage, Decoded, decode, unit_range

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """One image, ready to be resized.

    Parameters
    ----------
    pixels : float32 array, shape (height, width, 3)
        In [0, 1].
    content_hash : uint8 array, shape (16,)
        blake2b-128 of the bytes of all its files in order.
    notes : tuple of str
        Which conversions were made.
    """

    pixels: NDArray[np.float32]
    content_hash: NDArray[np.uint8]
    notes: tuple[str, ...]


def load_image(
    root: Path, sources: Sequence[SourceFile], channels: Sequence[str], *, scale: str, max_pixels: int
) -> Loaded:
    """Read, hash, decode and stack the files of one image. Each file is read once.

    Raises
    ------
    BadImage
        If a file cannot be used.
    ImageChanged
        If a file is not the one that was planned.
    """
    names = channels or ("",)
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    planes: list[Decoded] = []
    for channel, source in zip(names, sources, strict=True):
        where = f"channel {channel}: " if channel else ""
        if not source.path:
            raise BadImage(Status.CHANNEL, f"channel {channel} has no file")
        raw = _read(root / source.path, source, where)
        digest.update(raw)
        try:
            planes.append(decode(raw, suffix=Path(source.path).suffix, max_pixels=max_pixels))
        except BadImage as error:
            raise BadImage(error.status, where + error.reason) from error
    notes = tuple(note for plane in planes for note in plane.notes)
    pixels, more = _as_rgb(planes[0], scale) if len(planes) == 1 else _stacked(planes, names, scale)
    return Loaded(pixels, np.frombuffer(digest.digest(), np.uint8), (*notes, *more))


def hash_image(root: Path, sources: Sequence[SourceFile]) -> NDArray[np.uint8]:
    """Hash the files of one image without decoding them; as ``Loaded.content_hash``.

    Raises
    ------
    BadImage
        If a file is missing or cannot be read.
    ImageChanged
        If a file is not the one that was planned.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for source in sources:
        if not source.path:
            raise BadImage(Status.CHANNEL, "a channel has no file")
        digest.update(_read(root / source.path, source, ""))
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: Path, source: SourceFile, where: str) -> bytes:
    try:
        state = path.stat()
        if (state.st_size, kept_mtime_ns(state)) != (source.n_bytes, source.mtime_ns):
            msg = f"{path}: changed since the run began. Put it back as it was, or begin anew with --overwrite"
            raise ImageChanged(msg)
        return path.read_bytes()
    except OSError as error:
        raise BadImage(Status.UNREADABLE, f"{where}{error.strerror} (errno {error.errno})") from error


def _as_rgb(plane: Decoded, scale: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    pixels = unit_range(plane.pixels, scale)
    if pixels.ndim == 3:
        return pixels, ()
    return np.repeat(pixels[..., None], 3, axis=2), ("grey turned to RGB",)


def _stacked(
    planes: Sequence[Decoded], names: Sequence[str], scale: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    greys: list[NDArray[np.float32]] = []
    for plane, name in zip(planes, names, strict=True):
        try:
            grey = unit_range(plane.pixels, scale)
        except BadImage as error:
            raise BadImage(error.status, f"channel {name}: {error.reason}") from error
        if grey.ndim == 3:
            grey = grey @ _LUMA
            notes = (*notes, "colour channel file turned to grey (BT.601)")
        if greys and grey.shape != greys[0].shape:
            found = f"channel {name} is {grey.shape[1]} x {grey.shape[0]}"
            raise BadImage(Status.CHANNEL, f"{found}; channel {names[0]} is {greys[0].shape[1]} x {greys[0].shape[0]}")
        greys.append(grey)
    return np.stack(greys, axis=2), notes
