"""By which rules image files become planes of pixels."""

from __future__ import annotations

import dataclasses

from featurize.images.blends import COLOURS
from featurize.images.scale import Scale


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read of each image.

    Parameters
    ----------
    planes : tuple of str
        Names of an image's planes; the three colours where nobody named them.
    by_file : bool
        Whether each plane is a file.
    scale : Scale
        How stored numbers become [0, 1].
    max_pixels : int
        Largest width times height that is decoded.
    frame : int or None
        Which page of each file, from 0.
    """

    planes: tuple[str, ...] = COLOURS
    by_file: bool = False
    scale: Scale
    max_pixels: int
    frame: int | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """The planes' places in a file; empty where they are files, or the colours of an ordinary image."""
        return () if self.by_file or self.planes == COLOURS else tuple(range(len(self.planes)))
