"""Where images lie: a folder of this machine, or one that fsspec reaches by a URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from features_cache.errors import ImagesMissing
from features_cache.sources import SourceFile
from features_cache.urls import Url
from featurize.images.local_folder import LocalFolder
from featurize.images.remote_folder import RemoteFolder


class Place(Protocol):
    """A folder of images; ``str`` of it names it in messages, without secrets."""

    @property
    def where(self) -> Path | Url:
        """What :func:`place_of` opens again, in another process too."""

    def files(self, *, follow_links: bool, skip_unsafe: bool, named_by: str) -> Iterator[SourceFile]:
        """Yield the image files below the folder, relative to it, in no order.

        Parameters
        ----------
        follow_links : bool
            Whether links may lead out of it, where there are links.
        skip_unsafe : bool
            Whether what would be refused is passed over.
        named_by : str
            The option that names the folder, for messages.

        Raises
        ------
        ImagesMissing
            If there is no such folder, or one that cannot be listed.
        UnsafePath
            If a file is refused.
        StoreUnreachable
            If a store gives no answer.
        """

    def read(self, file: SourceFile) -> bytes:
        """Read a file that is as it was listed.

        Raises
        ------
        BadImage
            If it is missing or cannot be read.
        ImageChanged
            If it is another one than was listed.
        StoreUnreachable
            If a store gives no answer.
        """

    def nothing_found(self, pattern: str | None) -> ImagesMissing:
        """Say that it holds no image, and what to do; ``pattern`` is that of channel files."""

    def holds(self, path: Path) -> bool:
        """Whether a path of this machine lies in it."""


def place_of(where: Path | Url) -> Place:
    """Open a folder of images.

    Raises
    ------
    OptionError
        If a library that the URL needs is not installed, or the URL is of no known kind.
    """
    return RemoteFolder(where) if isinstance(where, Url) else LocalFolder(where)
