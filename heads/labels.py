"""Labels joined to the images of a cache by id: which rows may be learned from, and what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features_cache.errors import LabelError, did_you_mean, listed
from features_cache.tables import read_table, require_column
from heads.arrays import Indices

# What people type into a cell that has no label.
MISSING_LABELS = frozenset({"", "?", "nan"})
_GROUP_NAMES = ("well", "plate", "patient", "slide", "batch")
_MOST_EXAMPLES = 5
_CURE = "Complete the CSV, check --id-column, or leave them out with --ignore-unlabelled"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """The images of a cache that have a label, in the cache's order.

    Parameters
    ----------
    ids : tuple of str, length n_images
        Their ids.
    rows : int64 array, shape (n_images,)
        Their rows in the cache, ascending.
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1; every class occurs.
    classes : tuple of str, length n_classes
        Names, sorted.
    groups : int64 array, shape (n_images,), or None
        Group indices; None where images stand for themselves.
    group_names : tuple of str
        Name of each group; empty without groups.
    n_quarantined : int
        Labelled images left out because the cache holds zeros for them.
    n_unlabelled : int
        Images of the cache that no label was given for.
    warnings : tuple of str
        What the user should hear of.
    """

    ids: tuple[str, ...]
    rows: Indices
    labels: Indices
    classes: tuple[str, ...]
    groups: Indices | None
    group_names: tuple[str, ...]
    n_quarantined: int
    n_unlabelled: int
    warnings: tuple[str, ...]

    @property
    def n_images(self) -> int:
        """How many images have a label."""
        return len(self.ids)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def class_counts(self) -> Indices:
        """Images of each class: int64 array, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)


def read_labels(
    path: Path,
    *,
    id_column: str = "id",
    label_column: str = "label",
    group_column: str | None = None,
    drop_missing: bool = False,
    will_fold: bool = True,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a labels CSV: one record an image, every cell text.

    Parameters
    ----------
    path : Path
        The file.
    id_column, label_column : str
        Where ids and labels stand.
    group_column : str, optional
        What images that must stay together share: a well, a plate, a patient.
    drop_missing : bool
        Leave out records whose label is blank, ``NaN`` or ``?`` (an error otherwise).
    will_fold : bool
        Whether folds follow, so that a column that looks like a group is worth a warning.

    Returns
    -------
    table : DataFrame of str
        Columns ``id``, ``label``, ``group``, ``line``; ``group`` is ``""`` without a group column, ``label`` is ``""`` where
        it was missing and dropped.
    warnings : tuple of str

    Raises
    ------
    TableError
        If the file cannot be read, or lacks a column.
    LabelError
        If a label or group is missing, or an id occurs twice with different labels.
    """
    raw = read_table(path, required=(id_column, label_column))
    if group_column is not None:
        require_column(path, list(raw.columns), group_column)
    table = pd.DataFrame(
        {
            "id": raw[id_column],
            "label": raw[label_column].str.strip(),
            "group": raw[group_column].str.strip() if group_column is not None else "",
            "line": raw.index,
        }
    )
    warnings: list[str] = []
    missing = table["label"].str.lower().isin(MISSING_LABELS)
    if missing.any():
        table = _without_missing(path, table, missing, warnings, drop_missing=drop_missing)
    if group_column is not None:
        blank = table.loc[(table["label"] != "") & table["group"].str.lower().isin(MISSING_LABELS), "line"]
        if len(blank):
            msg = (
                f"{path}: {len(blank)} records have no {group_column!r} (lines {listed(blank.tolist())}); expected every "
                f"image in a group. Fill them in, or leave out --group-column"
            )
            raise LabelError(msg)
    elif will_fold:
        warnings += _ungrouped(path, list(raw.columns), {id_column, label_column})
    return _without_duplicates(path, table, warnings), tuple(warnings)


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
    dropped = table.loc[missing & ~table["id"].isin(kept["id"])].drop_duplicates("id").assign(label="", group="")
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
    return pd.DataFrame({"id": list(ids), "label": labels, "group": "", "line": 0}, dtype=object)


def join_labels(
    table: pd.DataFrame,
    ids: Sequence[str],
    good: NDArray[np.bool_],
    *,
    source: str,
    grouped: bool = False,
    exclude_class: Sequence[str] = (),
    ignore_unlabelled: bool = False,
    least_classes: int = 2,
    warnings: Sequence[str] = (),
) -> LabelledImages:
    """Join labels to the images of a cache.

    Parameters
    ----------
    table : DataFrame
        As :func:`read_labels` gives.
    ids : sequence of str, length n_rows
        The cache's ids, in its order.
    good : bool array, shape (n_rows,)
        False for quarantined images; they are left out and counted.
    source : str
        What to call the labels in messages.
    grouped : bool
        Whether the group cells mean anything.
    exclude_class : sequence of str
        Classes whose images are left out.
    ignore_unlabelled : bool
        Whether images without a label, and labels without an image, are left out and told (an error otherwise).
    least_classes : int
        2 to learn from, 1 to evaluate.
    warnings : sequence of str
        Told on.

    Returns
    -------
    LabelledImages

    Raises
    ------
    LabelError
        If ids do not match, a class to exclude is unknown, or too few classes are left.
    """
    known = set(ids)
    without_image = [image_id for image_id in table["id"] if image_id not in known]
    labelled = set(table["id"])
    without_label = [image_id for image_id in ids if image_id not in labelled]
    unmatched = _unmatched(len(table), len(ids), without_image, without_label)
    if unmatched and not ignore_unlabelled:
        msg = f"{source}: {unmatched}; expected one label for each image of the cache. {_CURE}"
        raise LabelError(msg)
    if unmatched:
        warnings = (*warnings, f"{source}: {unmatched}; left out")
    present = sorted(set(table["label"]) - {""})
    for name in exclude_class:
        if name not in present:
            msg = (
                f"--exclude-class {name!r}: no such class; {source} has {listed(present)}{did_you_mean(name, present)}"
            )
            raise LabelError(msg)
    kept = table.loc[~table["label"].isin(["", *exclude_class])].set_index("id")
    chosen = kept.index.intersection(pd.Index(list(ids), dtype=object))
    cells = kept.loc[chosen]
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    rows = np.array([row_of[image_id] for image_id in chosen], dtype=np.int64)
    order = np.argsort(rows)
    order = order[good[rows[order]]]
    classes, labels = np.unique(cells["label"].to_numpy(dtype="U")[order], return_inverse=True)
    if len(classes) < least_classes:
        msg = f"{source}: {len(order)} usable images in {len(classes)} class ({listed(classes.tolist())}); expected at least {least_classes}"
        raise LabelError(msg)
    group_names, groups = np.unique(cells["group"].to_numpy(dtype="U")[order], return_inverse=True)
    return LabelledImages(
        ids=tuple(str(chosen[place]) for place in order),
        rows=rows[order],
        labels=labels.astype(np.int64),
        classes=tuple(classes.tolist()),
        groups=groups.astype(np.int64) if grouped else None,
        group_names=tuple(group_names.tolist()) if grouped else (),
        n_quarantined=len(rows) - len(order),
        n_unlabelled=len(without_label),
        warnings=tuple(warnings),
    )


def _unmatched(n_labelled: int, n_rows: int, without_image: Sequence[str], without_label: Sequence[str]) -> str:
    parts = []
    if without_image:
        parts.append(
            f"{len(without_image)} of {n_labelled} labelled ids have no image ({listed(without_image, _MOST_EXAMPLES)})"
        )
    if without_label:
        parts.append(f"{len(without_label)} of {n_rows} images have no label ({listed(without_label, _MOST_EXAMPLES)})")
    return "; ".join(parts)
