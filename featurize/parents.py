"""The tables of crops: which image each was cut from."""

from __future__ import annotations

from pathlib import Path

from features_cache.errors import TableError, listed
from features_cache.tables import read_table
from featurize.images.manifest import Manifest

_COLUMNS = ("id", "parent")


def parents_of(table: Path, manifest: Manifest) -> list[str]:
    """Read which image each crop was cut from.

    Parameters
    ----------
    table : Path
        CSV with the columns ``id`` and ``parent``.
    manifest : Manifest
        The crops, listed by the same table.

    Returns
    -------
    list of str, length n_images
        In the manifest's order.

    Raises
    ------
    TableError
        If a column is missing, a crop has no parent, or two of them.
    """
    rows = read_table(table)
    lacking = [name for name in _COLUMNS if name not in rows]
    if lacking:
        msg = (
            f"{table}:1: no column {listed(lacking)}; found columns {', '.join(rows.columns)}. Expected what `cli cells` writes: run "
            f"it again, or type --train-images {table.with_suffix('')} --labels {table} for images that stand for themselves"
        )
        raise TableError(msg)
    pairs = rows.loc[:, list(_COLUMNS)].drop_duplicates()
    blank, double = pairs["parent"] == "", pairs["id"].duplicated()
    for is_bad, what in ((blank, "no parent"), (double, "another parent in an earlier row")):
        if is_bad.any():
            lines = pairs.index[is_bad].tolist()
            msg = f"{table}: {len(lines)} crops have {what} (lines {listed(lines)}); expected one each. Run `cli cells` again"
            raise TableError(msg)
    parent_of = dict(zip(pairs["id"], pairs["parent"], strict=True))
    return [parent_of[image_id] for image_id in manifest.ids]
