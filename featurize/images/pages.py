"""What any reader of image files gives: pages, one at a time."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


class Pages(Protocol):
    """A file whose header was read."""

    @property
    def kind(self) -> str:
        """Its format, by its content."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the first page."""

    @property
    def n_frames(self) -> int:
        """How many pages or frames there are."""

    def read(self, page: int, *, as_stored: bool) -> tuple[NDArray[Any], list[str]]:
        """Decode a page.

        Parameters
        ----------
        page : int
            From 0.
        as_stored : bool
            Whether all samples of a pixel are given as they are, instead of grey or RGB.

        Returns
        -------
        pixels : uint8, uint16 or float32 array, shape (height, width) or (height, width, n_samples)
        notes : list of str
            Which conversions were made.

        Raises
        ------
        BadImage
            If it cannot be decoded.
        """
