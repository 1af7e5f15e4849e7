"""Labels as the user wrote them: a record an image, one label or many in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from features_cache.errors import LabelError, listed
from features_cache.tables import read_table, require_column

# What people type into a cell that has no label.
MISSING_LABELS = frozenset({"", "?", "nan"})
_GROUP_NAMES = ("well", "plate", "patient", "slide", "batch")
_SEPARATORS = (" ", "|", ";", ",")
_MOST_EXAMPLES = 5
# Of tables that give a column a class, for messages and for submissions.
COLUMNS_SEPARATOR = " "


def separator_of(label_column: Sequence[str], separator: str | None) -> str | None:
    """Return what stands between labels where images may have many, else None; several columns are a class each."""
    return separator or (COLUMNS_SEPARATOR if len(label_column) > 1 else None)


def read_labels(
    path: Path,
    *,
    id_column: str = "id",
    label_column: Sequence[str] = ("label",),
    separator: str | None = None,
    group_column: str | None = None,
    drop_missing: bool = False,
    will_fold: bool = True,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a labels CSV: one record an image, every cell text.

    Parameters
    ----------
    path : Path
        The file.
    id_column : str
        Where ids stand.
    label_column : sequence of str
        Where labels stand; several columns are a class each, of 0 and 1.
    separator : str, optional
        What stands between the labels of an image, where it may have many; a blank is any white space.
    group_column : str, optional
        What images that must stay together share: a well, a plate, a patient.
    drop_missing : bool
        Leave out records whose label is blank, ``NaN`` or ``?`` (an error otherwise).
    will_fold : bool
        Whether folds follow, so that a column that looks like a group is worth a warning.

    Returns
    -------
    table : DataFrame of str
        Columns ``id``, ``label`` (its text), ``classes`` (tuple of str; None where the label was missing and dropped), ``group``
        (``""`` without a group column), ``line``.
    warnings : tuple of str

    Raises
    ------
    TableError
        If the file cannot be read, or lacks a column.
    LabelError
        If a label or group is missing, a cell of a class's column is neither 0 nor 1, or an id occurs twice with different
        labels.
    """
    raw = read_table(path, required=(id_column, *label_column))
    if group_column is not None:
        require_column(path, list(raw.columns), group_column)
    warnings: list[str] = []
    if len(label_column) > 1:
        classes = _classes_of_columns(path, raw, label_column)
    else:
        classes = _classes_of_cells(path, raw[label_column[0]].str.strip(), separator, warnings)
    joiner = separator or COLUMNS_SEPARATOR
    table = pd.DataFrame(
        {
            "id": raw[id_column],
            "label": [joiner.join(sorted(each or ())) for each in classes],
            "classes": pd.Series(classes, index=raw.index, dtype=object),
            "group": raw[group_column].str.strip() if group_column is not None else "",
            "line": raw.index,
        }
    )
    missing = table["classes"].isna()
    if missing.any():
        table = _without_missing(path, table, missing, warnings, drop_missing=drop_missing)
    if group_column is not None:
        blank = table.loc[table["classes"].notna() & table["group"].str.lower().isin(MISSING_LABELS), "line"]
        if len(blank):
            msg = (
                f"{path}: {len(blank)} records have no {group_column!r} (lines {listed(blank.tolist())}); expected every "
                f"image in a group. Fill them in, or leave out --group-column"
            )
            raise LabelError(msg)
    elif will_fold:
        warnings += _ungrouped(path, list(raw.columns), {id_column, *label_column})
    return _without_duplicates(path, table, warnings), tuple(warnings)


def _classes_of_cells(
    path: Path, cells: pd.Series[str], separator: str | None, warnings: list[str]
) -> list[tuple[str, ...] | None]:
    missing = cells.str.lower().isin(MISSING_LABELS)
    if separator is None:
        warnings += _looks_like_many(path, cells[~missing])
        return [None if blank else (cell,) for cell, blank in zip(cells, missing, strict=True)]
    _require_separator(path, cells[~missing], separator)
    found: list[tuple[str, ...] | None] = []
    for cell, blank in zip(cells, missing, strict=True):
        parts = cell.split() if separator == " " else [part.strip() for part in cell.split(separator)]
        named = tuple(dict.fromkeys(part for part in parts if part))
        found.append(None if blank or not named else named)
    return found


def _require_separator(path: Path, cells: pd.Series[str], separator: str) -> None:
    """Refuse a separator that stands in no cell where another one seems to part labels."""
    if cells.str.contains(separator, regex=False).any():
        return
    for other in _SEPARATORS:
        held = cells.str.contains(other, regex=False)
        if other != separator and held.sum() > 1:
            example = cells[held].iloc[0]
            msg = (
                f"{path}: no label holds the separator {separator!r}, but labels such as {example!r} hold {other!r}; expected what "
                f"stands between the labels of an image. Type --separator {other!r}, or leave it out where images have one label"
            )
            raise LabelError(msg)


def _looks_like_many(path: Path, cells: pd.Series[str]) -> list[str]:
    """Warn of cells that hold several labels: as one label each, every combination would be a class."""
    names = set(cells)
    for separator in _SEPARATORS:
        combined = [name for name in names if separator in name]
        parts = {part for name in names for part in name.split(separator)}
        if len(combined) > 1 and len(parts) <= len(names) // 2:
            text = (
                f"{path}: labels such as {min(combined)!r} look like several labels of one image, {len(parts)} in all; taken for "
                f"{len(names)} classes. If they are several, give --separator {separator!r}"
            )
            return [text]
    return []


def _classes_of_columns(path: Path, raw: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...] | None]:
    cells = raw[list(columns)].apply(lambda column: column.str.strip().str.lower())
    yes, no = cells.isin(["1", "1.0", "true"]), cells.isin(["0", "0.0", "false"])
    wrong = ~(yes | no | cells.isin(list(MISSING_LABELS)))
    if wrong.to_numpy().any():
        lines = raw.index[wrong.any(axis=1)].tolist()
        column = next(name for name in columns if wrong[name].any())
        value = raw.loc[wrong[column], column].iloc[0]
        msg = (
            f"{path}: {len(lines)} records hold other values than 0 and 1 in the classes' columns (lines {listed(lines)}; "
            f"{column!r} is {value!r}); expected 1 where an image is of the class. Mend them, or name one --label-column"
        )
        raise LabelError(msg)
    known = (yes | no).all(axis=1)
    members = yes.to_numpy()
    return [
        tuple(name for name, member in zip(columns, row, strict=True) if member) if whole else None
        for row, whole in zip(members, known, strict=True)
    ]


def _without_missing(
    path: Path, table: pd.DataFrame, missing: pd.Series[bool], warnings: list[str], *, drop_missing: bool
) -> pd.DataFrame:
    lines = table.loc[missing, "line"].tolist()
    found = f"{path}: {len(lines)} of {len(table)} labels are blank, NaN or '?' (lines {listed(lines)})"
    if not drop_missing:
        msg = f"{found}; expected a class name. Fill them in, or leave those images out with --drop-missing"
        raise LabelError(msg)
    warnings.append(f"{found}: left out")
    kept = table.loc[~missing]
    # Their images are left out on purpose: without a record they would be reported as forgotten.
    dropped = table.loc[missing & ~table["id"].isin(kept["id"])].drop_duplicates("id").assign(group="")
    return pd.concat([kept, dropped])


def _ungrouped(path: Path, columns: Sequence[str], taken: set[str]) -> list[str]:
    alike = [
        column for column in columns if column not in taken and any(name in column.lower() for name in _GROUP_NAMES)
    ]
    if not alike:
        return []
    named = "a column" if len(alike) == 1 else "the columns"
    text = (
        f"{path} has {named} {listed(alike)}: images that share a value are likely alike, and figures from folds that cut "
        f"through are too good. Consider --group-column {' or '.join(alike)}"
    )
    return [text]


def _without_duplicates(path: Path, table: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    again = table["id"].duplicated(keep=False)
    if not again.any():
        return table
    conflicts: list[str] = []
    for image_id, records in table.loc[again].groupby("id", sort=True):
        for what in ("label", "group"):
            if records[what].nunique() > 1:
                cells = ", ".join(
                    f"{value!r} on line {line}" for value, line in zip(records[what], records["line"], strict=True)
                )
                conflicts.append(f"{image_id!r} has the {what}s {cells}")
    if conflicts:
        shown = "; ".join(conflicts[:20])
        msg = f"{path}: {len(conflicts)} ids occur with different labels or groups: {shown}. Expected one record an image; mend the file"
        raise LabelError(msg)
    first = table.loc[~table["id"].duplicated()]
    names = table.loc[table["id"].duplicated(), "id"].unique().tolist()
    warnings.append(
        f"{path}: {len(names)} ids occur more than once with the same label ({listed(names, 5)}); each is counted once"
    )
    return first


def labels_from_folders(ids: Sequence[str]) -> pd.DataFrame:
    """Take each image's class from the first folder of its id.

    Parameters
    ----------
    ids : sequence of str
        Relative paths, as in ``mitosis/a01.png``.

    Returns
    -------
    DataFrame of str
        As :func:`read_labels` gives.

    Raises
    ------
    LabelError
        If an id has no folder.

    Examples
    --------
    >>> labels_from_folders(["mitosis/a01", "rest/b07"])["label"].tolist()
    ['mitosis', 'rest']
    """
    flat = [image_id for image_id in ids if "/" not in image_id]
    if flat:
        msg = (
            f"no labels: {len(flat)} of {len(ids)} ids lie in no class folder ({listed(flat, _MOST_EXAMPLES)}). "
            f"Give a CSV with --labels, or featurize a folder of class folders"
        )
        raise LabelError(msg)
    labels = [image_id.split("/", 1)[0] for image_id in ids]
    classes = pd.Series([(label,) for label in labels], dtype=object)
    return pd.DataFrame({"id": list(ids), "label": labels, "classes": classes, "group": "", "line": 0}, dtype=object)
