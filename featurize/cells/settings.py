"""What the user asked of `cli cells`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from features_cache.errors import OptionError, did_you_mean, listed
from featurize.images.settings import ImageSettings, auto_or_number

# Nothing heavy is imported here: `cli --help` shows these defaults and answers at once.
RULES = 1
"""Version of the rules; raised whenever the same images and settings would give other crops or tables."""
BACKGROUNDS = ("zero", "keep")
BORDERS = ("keep", "drop")
_NUCLEUS_NAMES = ("nucleus", "blue")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellsSettings(ImageSettings):
    """Options of one run; the defaults are those of the command line, and what images there are is :class:`ImageSettings`.

    Parameters
    ----------
    out : Path
        Folder of the crops and their tables.
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
    overwrite : bool
        Whether to begin anew where something stands already.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    out: Path = Path("cells")
    nucleus: str | None = None
    bodies: tuple[str, ...] = ()
    masks: Path | None = None
    diameter_px: float | None = None
    background: str = "zero"
    border: str = "keep"
    margin: float = 0.05
    overwrite: bool = False

    def __post_init__(self) -> None:
        ImageSettings.__post_init__(self)  # slots make another class of this one, which a bare super() does not know
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
        ):
            if number is not None and not least <= number <= most:
                msg = f"--{flag} is {number:g}; expected {least} to {most:g}: {unit}"
                raise OptionError(msg)
        if self.masks is not None:
            _refuse_beside_masks(self)
        elif len(set(self.roles)) != len(self.roles):
            doubled = sorted({name for name in self.roles if self.roles.count(name) > 1})
            msg = f"--nucleus and --cell name {listed(doubled)} twice; expected each channel once"
            raise OptionError(msg)

    @property
    def roles(self) -> tuple[str, ...]:
        """The channels that were named for a purpose."""
        return tuple(name for name in (self.nucleus, *self.bodies) if name)

    def nucleus_of(self, planes: Sequence[str]) -> str:
        """Tell which channel shows nuclei: the one named, else ``nucleus`` or ``blue``.

        Parameters
        ----------
        planes : sequence of str
            Names of the images' channels.

        Raises
        ------
        OptionError
            If it is not there, or a channel that fills cells is not, or one channel is both.
        """
        for name in self.roles:
            if name not in planes:
                found = ", ".join(planes)
                msg = f"--nucleus and --cell name {name!r}, which is no channel; expected some of {found}{did_you_mean(name, planes)}"
                raise OptionError(msg)
        nucleus = self.nucleus or next((name for name in _NUCLEUS_NAMES if name in planes), None)
        if nucleus is None:
            msg = (
                f"--nucleus is not given, and no channel is called nucleus or blue; expected one of {', '.join(planes)}"
            )
            raise OptionError(msg)
        if nucleus in self.bodies:
            msg = f"--cell names {nucleus!r}, which is the channel of nuclei; name another with --nucleus"
            raise OptionError(msg)
        return nucleus

    def rules(self, planes: Sequence[str], *, by_file: bool) -> dict[str, Any]:
        """Return what moves a byte of crops or table, as JSON values: a run goes on only with the same.

        Parameters
        ----------
        planes : sequence of str
            Names of the images' channels.
        by_file : bool
            Whether each channel of a crop has a file.
        """
        by_masks = self.masks is not None
        return {
            "version of the rules": RULES,
            "planes": list(planes) if by_file else [],
            "frame": self.frame,
            "scale": self.scale,
            "masks": by_masks,
            "nucleus": None if by_masks else self.nucleus_of(planes),
            "cell": [] if by_masks else list(self.bodies),
            "diameter": None if by_masks else self.diameter_px,
            "background": self.background,
            "border": self.border,
            "margin": self.margin,
        }

    @classmethod
    def from_options(cls, **options: Any) -> Self:  # noqa: ANN401 - the fields above, as typed on a command line
        """Take the fields as a command line gives them: ``auto`` where a number may be chosen, and tables found.

        Raises
        ------
        OptionError
            If a value makes no sense.
        """
        options["n_workers"] = auto_or_number("workers", str(options.get("n_workers", "auto")))
        return cls(**options).with_tables()


def _refuse_beside_masks(settings: CellsSettings) -> None:
    asked = (("--nucleus", settings.nucleus), ("--cell", settings.bodies), ("--diameter", settings.diameter_px))
    flags = [flag for flag, value in asked if value]
    if flags:
        msg = f"{', '.join(flags)} with --masks: the label images say where cells are; leave one of them out"
        raise OptionError(msg)
