"""Where settings of heads are looked for: ranges to draw from."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import numpy as np


class Space(Protocol):
    """The values that one parameter may take in a search."""

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Uniform:
    """Any number of a range alike.

    Parameters
    ----------
    low, high : float

    Examples
    --------
    >>> Uniform(0, 0.8).draw(np.random.default_rng(0))
    0.51
    """

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number, rounded to two places."""
        return round(float(rng.uniform(self.low, self.high)), 2)


@dataclasses.dataclass(frozen=True, slots=True)
class LogUniform:
    """Any order of magnitude of a range alike.

    Parameters
    ----------
    low, high : float
        Above 0.
    whole : bool
        Whether only whole numbers will do.

    Examples
    --------
    >>> LogUniform(1e-6, 10).draw(np.random.default_rng(0))
    0.029
    """

    low: float
    high: float
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number, rounded to two digits."""
        drawn = float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.2g}")
        return round(drawn) if self.whole else drawn


@dataclasses.dataclass(frozen=True, slots=True)
class OneOf:
    """One of some numbers.

    Parameters
    ----------
    values : tuple of float
    """

    values: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one of them."""
        return self.values[int(rng.integers(len(self.values)))]
