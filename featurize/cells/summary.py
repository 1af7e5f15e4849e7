"""What `cli cells` did, for people and programs to read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellsSplit:
    """What became of one split.

    Parameters
    ----------
    split : str
        ``train`` or ``test``.
    path : Path
        The table of cells.
    n_images, n_cells : int
        Images of the split, and cells that were cut out of them in all.
    n_empty : int
        Images in which there are none.
    n_quarantined : int
        Images that could not be used.
    n_cut : int
        Images whose cells this run cut out; 0 where all were there.
    wall_s : float
        Seconds that this run took for it.
    notes : dict of str to int
        How many images were converted, by rule.
    """

    split: str
    path: Path
    n_images: int
    n_cells: int
    n_empty: int
    n_quarantined: int
    n_cut: int
    wall_s: float
    notes: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellsSummary:
    """What a run did.

    Parameters
    ----------
    splits : tuple of CellsSplit
        Train, then test.
    warnings : tuple of str
        What the user should know.
    """

    splits: tuple[CellsSplit, ...]
    warnings: tuple[str, ...]

    @property
    def n_quarantined(self) -> int:
        """Images that could not be used, in all splits."""
        return sum(split.n_quarantined for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        splits = [dataclasses.asdict(split) | {"path": split.path.as_posix()} for split in self.splits]
        return {"splits": splits, "warnings": list(self.warnings)}

    def lines(self) -> list[str]:
        """Lay it out for people, one line a split, notes and warnings after it."""
        lines = []
        for split in self.splits:
            images = split.path.with_name(f"{split.split}_images.csv")
            did = (
                f"{split.n_cut:,} images cut in {split.wall_s:.1f} s ({split.n_cut / split.wall_s:.1f} images/s)"
                if split.n_cut
                else "complete, nothing to do"
            )
            empty = f", {split.n_empty:,} without cells" if split.n_empty else ""
            bad = f", {split.n_quarantined:,} quarantined ({images})" if split.n_quarantined else ""
            lines.append(f"{split.path}: {split.n_cells:,} cells of {split.n_images:,} images; {did}{empty}{bad}")
            lines += [f"  {count} images: {note}" for note, count in sorted(split.notes.items())]
            if not split.n_cells:
                lines.append(
                    f"warning: {split.path}: no cells in any image; look at --nucleus and --diameter, or give --masks"
                )
        return lines + [f"warning: {text}" for text in self.warnings]
