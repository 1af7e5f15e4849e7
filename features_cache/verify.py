"""Every byte of a cache against what its writer sealed, and every value against what its status promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from features_cache.errors import CacheDamaged, listed
from features_cache.reader import FeatureCache

_CHUNK_IMAGES = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found.

    Parameters
    ----------
    path : Path
        The cache.
    format_version : int
        Of the file.
    n_images, n_bytes : int
        What was read.
    n_quarantined : int
        Images without features.
    damaged : tuple of str
        Ids of images whose features are not what was written.
    faults : tuple of str
        All that is wrong, a sentence each; empty where nothing is.
    """

    path: Path
    format_version: int
    n_images: int
    n_bytes: int
    n_quarantined: int
    damaged: tuple[str, ...]
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return dataclasses.asdict(self) | {"path": self.path.as_posix(), "ok": not self.faults}


def verify(path: Path) -> Verification:
    """Read a cache wholly.

    At opening: the seal, the size, all bytes around the features, ids without doubles, known statuses, blocks that cover the
    columns, recipes of the digests that they claim. Here: each image's features against their checksum, finite where the
    image is good and zero where it is quarantined, and the whole file against its hash.

    Raises
    ------
    CacheError, ForeignCache
        If it cannot be opened at all, as :class:`~features_cache.reader.FeatureCache`.
    """
    faults: list[str] = []
    with FeatureCache(path) as cache:
        damaged = np.zeros(cache.n_images, bool)
        not_finite, not_zero = damaged.copy(), damaged.copy()
        for first in range(0, cache.n_images, _CHUNK_IMAGES):
            rows = np.arange(first, min(first + _CHUNK_IMAGES, cache.n_images))
            stored = cache.stored(rows)
            damaged[rows] = cache.checksum is not None and cache.damaged(rows)
            good = cache.good[rows]
            not_finite[rows] = good & ~np.isfinite(stored).all(axis=(1, 2))
            not_zero[rows] = ~good & (cache.seal.version > 1) & np.any(stored != 0, axis=(1, 2))
        for rows, what in (
            (damaged, "the features of {} are not what was written"),
            (not_finite, "the features of {} are not all finite"),
            (not_zero, "{} are quarantined, and yet have features"),
        ):
            if rows.any():
                names = listed([cache.ids[row] for row in np.flatnonzero(rows)])
                faults.append(what.format(f"{int(rows.sum())} images ({names})"))
        try:
            cache.check_bytes()
        except CacheDamaged:
            faults.append("the file as a whole is not what was written (its checksum differs)")
        return Verification(
            path=path,
            format_version=cache.seal.version,
            n_images=cache.n_images,
            n_bytes=cache.seal.n_bytes,
            n_quarantined=int((~cache.good).sum()),
            damaged=tuple(cache.ids[row] for row in np.flatnonzero(damaged)),
            faults=tuple(faults),
        )


def verify_lines(verification: Verification) -> list[str]:
    """Lay a verification out for people."""
    if not verification.faults:
        read = f"{verification.n_bytes:,} bytes, {verification.n_images:,} images ({verification.n_quarantined} quarantined)"
        return [f"{verification.path}: sound; {read}, all as they were written"]
    lines = [f"{verification.path}: {fault}" for fault in verification.faults]
    if verification.damaged:
        lines.append(
            "`cli featurize --repair`, with the options that made it, computes these images anew and no others"
        )
    return lines
