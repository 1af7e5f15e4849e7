"""What a run did, for people and programs to read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """What became of one split.

    Parameters
    ----------
    split : str
        ``train`` or ``test``.
    path : Path
        The cache.
    n_images, n_views, n_columns : int
        Its shape.
    n_bytes : int
        Its size.
    n_computed : int
        Images that this run computed; 0 where the cache was complete.
    n_quarantined : int
        Images without features.
    wall_s : float
        Seconds that this run took for it.
    notes : dict of str to int
        How many images were converted, by rule.
    n_waiting : int
        Parts that other shards have yet to make; 0 where the cache is published.
    """

    split: str
    path: Path
    n_images: int
    n_views: int
    n_columns: int
    n_bytes: int
    n_computed: int
    n_quarantined: int
    wall_s: float
    notes: dict[str, int]
    n_waiting: int = 0

    @property
    def images_per_s(self) -> float:
        """Images a second of this run, with all their views; 0 where nothing was computed."""
        return self.n_computed / self.wall_s if self.n_computed else 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `cli featurize` did.

    Parameters
    ----------
    splits : tuple of SplitSummary
        Train, then test.
    warnings : tuple of str
        What the user should know.
    random_weights : bool
        Whether the networks were never trained.
    """

    splits: tuple[SplitSummary, ...]
    warnings: tuple[str, ...]
    random_weights: bool

    @property
    def n_quarantined(self) -> int:
        """Images without features, in all splits."""
        return sum(split.n_quarantined for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        splits = [dataclasses.asdict(split) | {"path": split.path.as_posix()} for split in self.splits]
        return {"splits": splits, "warnings": list(self.warnings), "random_weights": self.random_weights}
