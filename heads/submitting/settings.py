"""What `submit` is asked to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from features_cache.errors import OptionError
from heads.submitting.prediction_string import LEAST_CONFIDENCE, check_least
from heads.submitting.submission_format import FORMATS, Format


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings:
    """Settings of one submission.

    Parameters
    ----------
    runs : tuple of Path
        Run folders (or ``runs/latest``); each counts by its number of heads, and within a run its ensemble's weights hold.
    features : Path
        The cache of the test images.
    sample : Path, optional
        A sample submission: ids in its first column, then labels, or a column a class. Without one, the cache's ids.
    format : {"auto", "label", "labels", "probabilities"}
        What stands beside an id; auto goes by the sample's columns.
    out : Path
        Where the submission goes.
    probabilities : Path, optional
        Where a CSV of probabilities goes, a column a class.
    heads : tuple of str
        Which heads; empty for all. The weight of cells, and thresholds of what is fused, stay those that all were chosen for.
    overwrite : bool
        Whether a file that we did not write may be replaced.
    fill_quarantined : {"no", "prior"}
        Whether a quarantined image gets the training images' class frequencies (an error otherwise).
    test_cells : Path, optional
        The cache of the test images' cells, for runs with heads of cells.
    cells_table : Path, optional
        The table of these cells, for samples that ask for them.
    least_confidence : float
        Of a class of a cell that is told, 0 to 1; the most confident one always is.
    without_cells : bool
        Whether images speak alone, although runs have heads of cells.
    excel_safe : bool
        Whether a text that a spreadsheet would take for a formula gets an apostrophe; Kaggle would not know such an id.
    """

    runs: tuple[Path, ...]
    features: Path
    sample: Path | None
    out: Path
    format: Format = "auto"
    probabilities: Path | None = None
    heads: tuple[str, ...] = ()
    overwrite: bool = False
    fill_quarantined: Literal["no", "prior"] = "no"
    test_cells: Path | None = None
    cells_table: Path | None = None
    least_confidence: float = LEAST_CONFIDENCE
    without_cells: bool = False
    excel_safe: bool = False

    def __post_init__(self) -> None:
        if not self.runs:
            msg = "no run; expected at least one folder that `cli fit-heads` wrote (--run)"
            raise OptionError(msg)
        if self.fill_quarantined not in ("no", "prior"):
            msg = f"--fill-quarantined {self.fill_quarantined!r}; expected no or prior"
            raise OptionError(msg)
        if self.format not in FORMATS:
            msg = f"--format {self.format!r}; expected {', '.join(FORMATS)}"
            raise OptionError(msg)
        check_least(self.least_confidence)
        if self.probabilities is not None and self.probabilities == self.out:
            msg = f"--probabilities {self.probabilities} is also --out; expected two files"
            raise OptionError(msg)
