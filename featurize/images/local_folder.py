"""A folder of images on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from features_cache.errors import ImagesMissing, image_changed
from features_cache.sources import SourceFile, sign_of_file
from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.nothing_found import nothing_found
from featurize.images.walk import walk


@dataclasses.dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder of images on this machine; see :class:`featurize.images.places.Place`.

    Parameters
    ----------
    path : Path
    """

    path: Path

    @property
    def where(self) -> Path:
        """What :func:`featurize.images.places.place_of` opens again."""
        return self.path

    def __str__(self) -> str:
        return str(self.path)

    def files(self, *, follow_links: bool, skip_unsafe: bool, named_by: str) -> Iterator[SourceFile]:
        """Yield the image files, as :func:`featurize.images.walk.walk`."""
        return walk(self.path, follow_links=follow_links, skip_unsafe=skip_unsafe, named_by=named_by)

    def read(self, file: SourceFile) -> bytes:
        """Read a file that is as it was listed."""
        path = self.path / file.path
        try:
            state = path.stat()
            if (state.st_size, sign_of_file(state)) != (file.n_bytes, file.sign):
                raise image_changed(path)
            return path.read_bytes()
        except OSError as error:
            raise BadImage(Status.UNREADABLE, f"{error.strerror} (errno {error.errno})") from error

    def nothing_found(self, pattern: str | None) -> ImagesMissing:
        """Say that it holds no image."""
        return nothing_found(self.path, pattern)

    def holds(self, path: Path) -> bool:
        """Whether a path lies in it."""
        return path.resolve().is_relative_to(self.path.resolve())
