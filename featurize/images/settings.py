"""Which images a command reads, and how their files become planes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Self

from features_cache.errors import OptionError
from features_cache.urls import Url, require_local
from featurize.images.channel_files import compile_pattern
from featurize.images.scale import SCALE_BY_TYPE, Scale

# Nothing heavy is imported here: `cli --help` shows these defaults and answers at once.
SPLITS = ("train", "test")
DEFAULT_FOLDERS = (Path("data/train"), Path("data/test"))
MAX_PIXELS = 100_000_000
_REMOTE_READERS = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Options of every command that reads images; the defaults are those of the command line.

    Parameters
    ----------
    train_images, test_images : Path or Url
        Folders of images. A default folder that does not exist is left out; a named one must exist.
    labels, sample : Path or None
        CSVs that say which images there are; of ``labels`` the ids are read and never a label.
    id_column : str or None
        Column of ids in ``labels``; ``id`` in any case, else the first column, unless given.
    pattern : str or None
        Name of a channel file.
    planes : tuple of str
        Names of an image's planes: channel files, or pages and samples of a file. Found unless given.
    frame : int or None
        Which page of each file is read, from 0.
    scale : str
        Which stored values become 0 and 1; see :class:`featurize.images.scale.Scale`.
    max_pixels : int
        Largest image that is decoded.
    limit : int or None
        Only the first images of each split, in id order.
    ignore_unlabelled : bool
        Whether images without a row in ``labels`` are left out instead of refused.
    follow_symlinks : bool
        Whether links may lead out of the folders of images.
    max_bad : float
        Share of images, 0 to 1, that may be unusable; one image always may.
    n_workers : int or None
        Threads that read images; chosen unless given.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    train_images: Path | Url = DEFAULT_FOLDERS[0]
    test_images: Path | Url = DEFAULT_FOLDERS[1]
    labels: Path | None = None
    sample: Path | None = None
    id_column: str | None = None
    pattern: str | None = None
    planes: tuple[str, ...] = ()
    frame: int | None = None
    scale: str = SCALE_BY_TYPE
    max_pixels: int = MAX_PIXELS
    limit: int | None = None
    ignore_unlabelled: bool = False
    follow_symlinks: bool = False
    max_bad: float = 0.01
    n_workers: int | None = None

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("limit", self.limit, 1),
            ("max-pixels", self.max_pixels, 1),
            ("frame", self.frame, 0),
            ("workers", self.n_workers, 1),
        ):
            if value is not None and value < least:
                msg = f"--{flag} is {value}; expected {least} or more"
                raise OptionError(msg)
        if not 0 <= self.max_bad <= 1:
            msg = f"--max-bad is {self.max_bad}; expected a share from 0 to 1 (0.01 is one image in a hundred)"
            raise OptionError(msg)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path):
                require_local(f"--{field.name.replace('_', '-')}", value)
        Scale.parse(self.scale)
        if self.pattern is not None:
            compile_pattern(self.pattern)

    @property
    def n_threads(self) -> int:
        """Threads that work on images: four at most unless more are asked for, as the networks need cores too."""
        return self.n_workers or min(4, os.cpu_count() or 1)

    @property
    def n_readers(self) -> int:
        """Threads that read images: more where they wait for a network, which takes no core."""
        is_remote = any(isinstance(folder, Url) for folder in (self.train_images, self.test_images))
        return self.n_workers or (_REMOTE_READERS if is_remote else self.n_threads)

    def allows(self, n_bad: int, n_images: int) -> bool:
        """Whether so many of the images may be unusable."""
        return n_bad <= max(1, self.max_bad * n_images)

    @property
    def named_planes(self) -> tuple[str, ...]:
        """The planes that are known before an image is looked at; empty where all channel files count."""
        return self.planes

    @property
    def splits(self) -> tuple[str, str]:
        """Names of the training and the test split."""
        return SPLITS

    def folder_of(self, split: str) -> Path | Url:
        """Return where the images of a split lie."""
        return self.test_images if split == self.splits[1] else self.train_images

    def is_left_out(self, split: str) -> bool:
        """Whether a split is to be passed over: nobody asked for its folder, and there is none."""
        folder = self.folder_of(split)
        return isinstance(folder, Path) and folder in DEFAULT_FOLDERS and not folder.exists()

    def require_folders(self) -> None:
        """Check, before images are listed, that what was asked for is laid out as it must be."""

    def with_tables(self) -> Self:
        """Find the tables that were not named.

        ``labels`` is the CSV beside the training folder that has its name (``data/train.csv``), and ``sample`` the
        ``sample_submission.csv`` beside the test folder, where they exist; beside the default folders, where images have a URL.
        """
        train, test = (
            default if isinstance(folder, Url) else folder
            for folder, default in zip((self.train_images, self.test_images), DEFAULT_FOLDERS, strict=True)
        )
        labels = train.with_name(f"{train.name}.csv") if train.name else Path(f"{train.absolute().name}.csv")
        sample = test.parent / "sample_submission.csv"
        return dataclasses.replace(
            self,
            labels=self.labels or (labels if labels.is_file() else None),
            sample=self.sample or (sample if sample.is_file() else None),
        )


def auto_or_number(flag: str, text: str) -> int | None:
    """Read an option that may be chosen: ``auto`` is None.

    Raises
    ------
    OptionError
        If it is neither that nor a whole number.
    """
    if text != "auto" and not text.lstrip("-").isdecimal():
        msg = f"--{flag} is {text!r}; expected auto or a number"
        raise OptionError(msg)
    return None if text == "auto" else int(text)
