"""The numbers that heads take: a parameter means the same in every head, and has one range."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping

from features_cache.errors import OptionError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a number may be.

    Parameters
    ----------
    above : float, optional
        Excluded.
    least : float, optional
        Included, as is ``most``.
    below : float, optional
        Excluded.
    most : float, optional
    whole : bool
        Whether it counts something.
    """

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf
    whole: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if self.whole else numbers.Real):
            return False
        number = float(value)
        return math.isfinite(number) and self.above < number < self.below and self.least <= number <= self.most

    def __str__(self) -> str:
        limits = (("above", self.above), ("at least", self.least), ("below", self.below), ("at most", self.most))
        said = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        return f"{'a whole number' if self.whole else 'a number'} {', '.join(said)}"


_POSITIVE = Range(above=0)
_COUNT = Range(least=1, whole=True)
_SHARE = Range(above=0, most=1)

RANGES: Mapping[str, Range] = {
    "alpha": _POSITIVE,
    "C": _POSITIVE,
    "k": _COUNT,
    "epochs": _COUNT,
    "schedule_epochs": _COUNT,
    "width": _COUNT,
    "dropout": Range(least=0, below=1),
    "learning_rate": _POSITIVE,
    "weight_decay": Range(least=0),
    "batch_rows": _COUNT,
    "shrinkage": _SHARE,
    "closeness": _POSITIVE,
    "smoothing": _POSITIVE,
    "temperature": _POSITIVE,
    "power": _POSITIVE,
    "tolerance": _POSITIVE,
    "max_steps": _COUNT,
    "seed": Range(least=0, below=2**31, whole=True),
}


def check_parameters(parameters: Mapping[str, object], where: str = "") -> None:
    """Check the parameters of a head.

    Parameters
    ----------
    parameters : mapping of str to object
        By name, as of ``get_params``.
    where : str
        What a message begins with.

    Raises
    ------
    OptionError
        If one is out of its range.

    Examples
    --------
    >>> check_parameters({"alpha": 10, "width": 256})
    """
    for name, value in parameters.items():
        if not RANGES[name].holds(value):
            msg = f"{where}{name} is {value!r}; expected {RANGES[name]}"
            raise OptionError(msg)
