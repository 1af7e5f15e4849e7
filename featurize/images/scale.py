"""How stored numbers become pixels in [0, 1]: ``--scale``, part of the recipe."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Self

from features_cache.errors import OptionError

SCALE_BY_TYPE = "dtype"
_EXPECTED = (
    "expected dtype, the stored value that becomes 1 (4095), those that become 0 and 1 (200:4095), or percentiles that do, of each "
    "image (image:1:99) or of each of its channels (channel:1:99)"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Which stored values become 0 and 1.

    Parameters
    ----------
    text : str
        As it was asked for; kept in the recipe.
    kind : {"dtype", "range", "image", "channel"}
        By the number type (255, 65,535, and 1 for floats), a fixed range, or percentiles of all of an image's values or of each
        channel's.
    low, high : float
        The range, or the percentiles; unused by ``dtype``.
    """

    text: str
    kind: Literal["dtype", "range", "image", "channel"]
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``--scale`` says.

        Raises
        ------
        OptionError
            If it is none of the forms.

        Examples
        --------
        >>> Scale.parse("200:4095").high
        4095.0
        """
        if text == SCALE_BY_TYPE:
            return cls(text=text, kind="dtype")
        first, *rest = text.split(":")
        if first in {"image", "channel"}:
            ends, kind = _numbers(rest), first
            is_sound = len(ends) == 2 and 0 <= ends[0] < ends[-1] <= 100
        else:
            ends, kind = _numbers([first, *rest]), "range"
            ends = [0.0, *ends] if len(ends) == 1 else ends
            is_sound = len(ends) == 2 and ends[0] < ends[1]
        if not is_sound:
            msg = f"--scale is {text!r}; {_EXPECTED}"
            raise OptionError(msg)
        return cls(text=text, kind=kind, low=ends[0], high=ends[1])  # type: ignore[arg-type]


def _numbers(texts: list[str]) -> list[float]:
    """Return finite numbers; none where a text is no number."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
