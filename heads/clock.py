"""How long each chapter of a run took."""

from __future__ import annotations

import time


class Clock:
    """Seconds of each chapter.

    Attributes
    ----------
    laps : dict of str to float
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a chapter."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
