"""The form of a submission: which rows and columns, and what stands in a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from features_cache.errors import SubmissionError, listed
from features_cache.tables import read_table
from heads.arrays import Bool, Float64, Indices
from heads.fused_run import CellCounts
from heads.labelled import label_texts

Format = Literal["auto", "label", "labels", "probabilities"]
FORMATS: tuple[Format, ...] = ("auto", "label", "labels", "probabilities")


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """What a submission looks like.

    Parameters
    ----------
    format : {"label", "labels", "probabilities"}
        One class a row, its classes in one cell, or a column a class.
    columns : tuple of str
        The first is the ids'.
    ids : list of str
        In the rows' order.
    """

    format: Format
    columns: tuple[str, ...]
    ids: list[str]

    def table(
        self, probabilities: Float64, called: Bool | None, classes: Sequence[str], separator: str
    ) -> pd.DataFrame:
        """Fill the form.

        Parameters
        ----------
        probabilities : float64 array, shape (n_ids, n_classes)
        called : bool array, same shape, or None
            What images are called, where they may have many labels.
        classes : sequence of str
        separator : str
            Between the labels of an image.

        Returns
        -------
        DataFrame
        """
        if self.format == "probabilities":
            places = [list(classes).index(name) for name in self.columns[1:]]
            chosen = pd.DataFrame(probabilities[:, places], columns=list(self.columns[1:]))
            return pd.concat([pd.DataFrame({self.columns[0]: self.ids}), chosen], axis=1)
        if called is None:
            called = probabilities.argmax(axis=1)[:, None] == np.arange(len(classes))
        return pd.DataFrame(dict(zip(self.columns, (self.ids, label_texts(called, classes, separator)), strict=True)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """Forms that were filled.

    Parameters
    ----------
    files : dict of Path to DataFrame
        What goes where.
    n_rows : int
        Of the submission.
    counts : int64 array, shape (n_classes,)
        How often each class was told.
    n_filled : int
        Quarantined images that got the class frequencies.
    cells : CellCounts or None
        Of the cells that were heard or told.
    """

    files: dict[Path, pd.DataFrame]
    n_rows: int
    counts: Indices
    n_filled: int
    cells: CellCounts | None


def read_form(
    sample: Path | None, cache_ids: Sequence[str], classes: Sequence[str], wanted: Format, *, many: bool
) -> Form:
    """Take the form of a sample submission, or a plain one without a sample.

    Parameters
    ----------
    sample : Path, optional
        Ids in its first column. With two columns the second is for labels; with more each is a class's probability.
    cache_ids : sequence of str
        The ids without a sample.
    classes : sequence of str
    wanted : {"auto", "label", "labels", "probabilities"}
    many : bool
        Whether images may have many labels.

    Returns
    -------
    Form

    Raises
    ------
    SubmissionError
        If the sample cannot be filled so.
    """
    if sample is None:
        found: Format = ("labels" if many else "label") if wanted == "auto" else wanted
        rest = tuple(classes) if found == "probabilities" else ("label",)
        return _checked(Form(found, ("id", *rest), list(cache_ids)), "the run", many=many)
    table = read_table(sample)
    columns = tuple(table.columns)
    ids = ids_of(sample, table)
    if wanted == "auto":
        wanted = "probabilities" if len(columns) > 2 else "labels" if many else "label"
    if wanted == "probabilities":
        unknown = [name for name in columns[1:] if name not in classes]
        lacking = [name for name in classes if name not in columns[1:]] if len(columns) > 2 else []
        if unknown or lacking or len(columns) < 2:
            parts = [f"{listed(unknown)} are no classes of the run"] if unknown else []
            parts += [f"no column for {listed(lacking)}"] if lacking else []
            msg = (
                f"{sample}:1: columns {', '.join(columns)}: {'; '.join(parts) or 'only ids'}; expected an id and a column for each "
                f"class, or two columns, ids and labels (--probabilities FILE writes probabilities beside them). The run's "
                f"classes are {listed(list(classes))}"
            )
            raise SubmissionError(msg)
    elif len(columns) != 2:
        msg = f"{sample}:1: columns {', '.join(columns)}; expected two, ids and labels, or --format probabilities"
        raise SubmissionError(msg)
    return _checked(Form(wanted, columns, ids), str(sample), many=many)


def _checked(form: Form, where: str, *, many: bool) -> Form:
    if form.format == "label" and many:
        msg = f"{where}: --format label, but images may have many labels here; use --format labels or probabilities"
        raise SubmissionError(msg)
    return form


def ids_of(sample: Path, table: pd.DataFrame) -> list[str]:
    """Return the ids of a sample submission, its first column.

    Raises
    ------
    SubmissionError
        If one occurs twice.
    """
    ids = table[table.columns[0]]
    double = ids[ids.duplicated()]
    if len(double):
        names = list(dict.fromkeys(double.tolist()))
        lines = [str(line) for line in ids.index[ids.isin(names[:5])].tolist()]
        msg = (
            f"{sample}: {len(names)} ids occur more than once ({listed(names, 5)}; lines {', '.join(lines[:10])}); "
            f"expected each id once. Mend the sample"
        )
        raise SubmissionError(msg)
    found: list[str] = ids.tolist()
    return found
