"""What the user asked of `cli cells`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from features_cache.errors import OptionError, did_you_mean, listed
from featurize.settings import MAX_PIXELS, SCALE_BY_TYPE

# Nothing heavy is imported here: `cli --help` shows these defaults and answers at once.
RULES = 1
"""Version of the rules; raised whenever the same images and settings would give other crops or tables."""
BACKGROUNDS = ("zero", "keep")
BORDERS = ("keep", "drop")
COLOURS = ("red", "green", "blue")
_NUCLEUS_NAMES = ("nucleus", "blue")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellsSettings:
    """Options of one run; the defaults are those of the command line.

    Parameters
    ----------
    train_images, test_images : Path
        Folders of images. A default folder that does not exist is left out; a named one must exist.
    labels, sample : Path or None
        CSVs that say which images there are; of ``labels`` the ids are read and never a label.
    id_column : str or None
        Column of ids in ``labels``; ``id`` in any case, else the first column, unless given.
    out : Path
        Folder of the crops and their tables.
    pattern : str or None
        Name of a channel file.
    channels : tuple of str
        Channels that have a file of their own; without them one file holds red, green and blue, or grey in all three.
    nucleus : str or None
        The channel of nuclei; ``nucleus``, else ``blue``, unless given.
    bodies : tuple of str
        Channels that fill cells; without any, a cell is its nucleus.
    masks : Path or None
        Folder of label images by another tool, instead of nuclei and bodies.
    diameter_px : float or None
        Typical diameter of a nucleus; estimated in each image unless given.
    background : {"zero", "keep"}
        Whether pixels of other cells and of none become 0 in a crop.
    border : {"keep", "drop"}
        Whether cells stay whose nucleus touches the image's border.
    margin : float
        Room around a cell, as a share of its box's longer side, 0 to 10.
    scale : str
        The stored value that becomes 1, or ``dtype``: the largest of the file's number type.
    max_bad : float
        Share of images, 0 to 1, that may be unusable; one image always may.
    max_pixels : int
        Largest image that is decoded.
    n_workers : int or None
        Threads, an image each; chosen unless given.
    overwrite : bool
        Whether to begin anew where something stands already.
    ignore_unlabelled : bool
        Whether images without a row in ``labels`` are left out instead of refused.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    train_images: Path = Path("data/train")
    test_images: Path = Path("data/test")
    labels: Path | None = None
    sample: Path | None = None
    id_column: str | None = None
    out: Path = Path("cells")
    pattern: str | None = None
    channels: tuple[str, ...] = ()
    nucleus: str | None = None
    bodies: tuple[str, ...] = ()
    masks: Path | None = None
    diameter_px: float | None = None
    background: str = "zero"
    border: str = "keep"
    margin: float = 0.05
    scale: str = SCALE_BY_TYPE
    max_bad: float = 0.01
    max_pixels: int = MAX_PIXELS
    n_workers: int | None = None
    overwrite: bool = False
    ignore_unlabelled: bool = False

    def __post_init__(self) -> None:
        for flag, word, known in (
            ("background", self.background, BACKGROUNDS),
            ("border", self.border, BORDERS),
        ):
            if word not in known:
                msg = f"--{flag} is {word!r}; expected one of {', '.join(known)}{did_you_mean(word, known)}"
                raise OptionError(msg)
        for flag, number, least, most, unit in (
            ("diameter", self.diameter_px, 4, 10_000, "px, of a typical nucleus"),
            ("margin", self.margin, 0, 10, "a share of the cell's longer side"),
            ("max-bad", self.max_bad, 0, 1, "a share of the images (0.01 is one in a hundred)"),
            ("max-pixels", self.max_pixels, 1, float("inf"), "pixels"),
            ("workers", self.n_workers, 1, float("inf"), "threads"),
        ):
            if number is not None and not least <= number <= most:
                upper = f" to {most:g}" if most < float("inf") else " or more"
                msg = f"--{flag} is {number:g}; expected {least}{upper}: {unit}"
                raise OptionError(msg)
        if self.scale != SCALE_BY_TYPE and not (self.scale.isascii() and self.scale.isdecimal() and int(self.scale)):
            msg = (
                f"--scale is {self.scale!r}; expected {SCALE_BY_TYPE}, or the stored value that becomes 1, such as 4095"
            )
            raise OptionError(msg)
        if self.channels and self.pattern is None:
            msg = "--channels needs --pattern, such as '{id}_{channel}.png'"
            raise OptionError(msg)
        _check_roles(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels of an image, in order."""
        return self.channels or COLOURS

    @property
    def nucleus_name(self) -> str:
        """The channel of nuclei."""
        return self.nucleus or next(name for name in _NUCLEUS_NAMES if name in self.names)

    def rules(self) -> dict[str, Any]:
        """Return what moves a byte of crops or table, as JSON values: a run goes on only with the same."""
        by_masks = self.masks is not None
        return {
            "version of the rules": RULES,
            "channels": list(self.channels),
            "masks": by_masks,
            "nucleus": None if by_masks else self.nucleus_name,
            "cell": [] if by_masks else list(self.bodies),
            "diameter": None if by_masks else self.diameter_px,
            "background": self.background,
            "border": self.border,
            "margin": self.margin,
            "scale": self.scale,
            "max-pixels": self.max_pixels,
        }

    @classmethod
    def from_options(cls, **options: Any) -> Self:  # noqa: ANN401 - the fields above, as typed on a command line
        """Take the fields as a command line gives them: ``auto`` where a number may be chosen, and tables found.

        Unless they are given, ``labels`` is the CSV beside the training folder that has its name (``data/train.csv``), and
        ``sample`` the ``sample_submission.csv`` beside the test folder, where they exist.

        Raises
        ------
        OptionError
            If a value makes no sense.
        """
        text = str(options.get("n_workers", "auto"))
        if text != "auto" and not text.lstrip("-").isdecimal():
            msg = f"--workers is {text!r}; expected auto or a number"
            raise OptionError(msg)
        options["n_workers"] = None if text == "auto" else int(text)
        settings = cls(**options)
        train = settings.train_images
        labels = train.with_name(f"{train.name}.csv") if train.name else Path(f"{train.absolute().name}.csv")
        sample = settings.test_images.parent / "sample_submission.csv"
        return dataclasses.replace(
            settings,
            labels=settings.labels or (labels if labels.is_file() else None),
            sample=settings.sample or (sample if sample.is_file() else None),
        )


def _check_roles(settings: CellsSettings) -> None:
    """Check that the channels of nuclei and bodies are channels of the images, and are asked for where they are used."""
    named: Sequence[str] = [name for name in (settings.nucleus, *settings.bodies) if name]
    if settings.masks is not None:
        flags = [
            flag
            for flag, value in (
                ("--nucleus", settings.nucleus),
                ("--cell", settings.bodies),
                ("--diameter", settings.diameter_px),
            )
            if value
        ]
        if flags:
            msg = f"{', '.join(flags)} with --masks: the label images say where cells are; leave one of them out"
            raise OptionError(msg)
        return
    for name in named:
        if name not in settings.names:
            there = ", ".join(settings.names)
            msg = f"--nucleus and --cell name {name!r}, which is no channel; expected some of {there}{did_you_mean(name, settings.names)}"
            raise OptionError(msg)
    if len(set(named)) != len(named):
        doubled = sorted({name for name in named if named.count(name) > 1})
        msg = f"--nucleus and --cell name {listed(doubled)} twice; expected each channel once"
        raise OptionError(msg)
    if settings.nucleus is None and not set(_NUCLEUS_NAMES) & set(settings.names):
        msg = f"--nucleus is not given, and no channel is called nucleus or blue; expected one of {', '.join(settings.names)}"
        raise OptionError(msg)
    if settings.nucleus is None and settings.nucleus_name in settings.bodies:
        msg = f"--cell names {settings.nucleus_name!r}, which is the channel of nuclei; name another with --nucleus"
        raise OptionError(msg)
