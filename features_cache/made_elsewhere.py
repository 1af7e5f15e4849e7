"""Features that other programs made: arrays and tables, a row an image (or a row a view of an image)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features_cache.errors import OptionError, TableError, did_you_mean, listed
from features_cache.extras import load_extra
from features_cache.tables import read_table, require_column

KINDS = (".npy", ".parquet", ".csv")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MadeElsewhere:
    """Features and whose they are.

    Parameters
    ----------
    path : Path
        Where they came from.
    ids : tuple of str
        No two equal; in the order of the rows.
    features : float array, shape (n_images, n_views, n_columns)
        Perhaps on the disk.
    """

    path: Path
    ids: tuple[str, ...]
    features: NDArray[Any]


def read_features(path: Path, ids: Path | None, id_column: str | None) -> MadeElsewhere:
    """Read features by their file's kind.

    ``.npy``: (images, columns) or (images, views, columns), with ids from a table of their own. ``.csv`` and ``.parquet``: numbers
    in all columns but that of the ids and ``view`` (a row for each view of each image then, as `cli export` writes them; ``parent``
    is left out).

    Parameters
    ----------
    path : Path
    ids : Path, optional
        CSV of the rows' ids, or a text file with one a line. Needed for an array; a table's own column of ids must name the same
        images, and says which row is whose.
    id_column : str, optional
        Column of ids; the one named ``id`` unless given.

    Returns
    -------
    MadeElsewhere

    Raises
    ------
    OptionError
        If the file is of another kind, or a library is missing.
    TableError
        If it cannot be read, holds what are no numbers, or ids do not fit.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        msg = f"{path}: expected a name that ends in {', '.join(KINDS)}{did_you_mean(suffix, KINDS)}"
        raise OptionError(msg)
    if not path.is_file():
        msg = f"{path}: no such file; expected features as .npy, .parquet or .csv"
        raise TableError(msg)
    if suffix == ".npy":
        if ids is None:
            msg = f"{path}: an array has no ids; name them with --ids, a CSV with a row for each of its rows"
            raise OptionError(msg)
        features = _array(path)
        return _joined(path, _ids_of(ids, id_column), features if features.ndim == 3 else features[:, None, :])
    table = _csv(path, id_column) if suffix == ".csv" else _parquet(path)
    own = id_column or "id"
    if ids is not None and own in table:
        table = _in_order_of(path, table, own, ids, _ids_of(ids, id_column))
    names = list(_ids_of(ids, id_column)) if ids is not None else _column(path, table, own)
    views = _column(path, table, "view") if "view" in table and ids is None else None
    values = table.drop(columns=[name for name in (own, "view", "parent") if name in table])
    return _joined(path, names, *_by_view(path, names, views, _numbers(path, values)))


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        msg = f"{path}: cannot be read as a NumPy array ({error}); save it with numpy.save, as numbers and no objects"
        raise TableError(msg) from error
    if array.ndim not in {2, 3} or array.dtype.kind not in "fiu" or 0 in array.shape:
        msg = f"{path}: an array of shape {array.shape} and type {array.dtype}; expected numbers, (images, columns) or (images, views, columns)"
        raise TableError(msg)
    return array


def _csv(path: Path, id_column: str | None) -> pd.DataFrame:
    table = read_table(path)
    if id_column:
        require_column(path, list(table.columns), id_column)
    return table


def _parquet(path: Path) -> pd.DataFrame:
    arrow, parquet = (
        load_extra(name, "export", f"{path}: reading .parquet") for name in ("pyarrow", "pyarrow.parquet")
    )
    try:
        table: pd.DataFrame = parquet.read_table(path).to_pandas()
    except (arrow.ArrowException, OSError, ValueError) as error:
        msg = f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})"
        raise TableError(msg) from error
    return table.reset_index() if table.index.name else table


def _column(path: Path, table: pd.DataFrame, name: str) -> list[str]:
    require_column(path, list(table.columns), name)
    return [str(value) for value in table[name]]


def _ids_of(path: Path, id_column: str | None) -> list[str]:
    if path.suffix.lower() == ".txt":
        try:
            return path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read as a list of ids, one a line ({error})"
            raise TableError(msg) from error
    table = read_table(path)
    name = id_column or next((name for name in table.columns if name.lower() == "id"), table.columns[0])
    return _column(path, table, name)


def _in_order_of(path: Path, table: pd.DataFrame, own: str, ids: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """Put rows that have ids of their own into the order of other ids: by place they might be another image's.

    Raises
    ------
    TableError
        If the ids are not the same ones.
    """
    found = _column(path, table, own)
    if sorted(found) != sorted(wanted):
        strange = sorted(set(found) ^ set(wanted))
        msg = (
            f"{path}: its column {own!r} and {ids} name other images ({len(strange)} in one alone: {listed(strange, 5)}; {len(found)} and "
            f"{len(wanted)} rows); expected the same ids. Leave --ids out, or the column"
        )
        raise TableError(msg)
    place = {name: row for row, name in enumerate(found)}
    return table.iloc[[place[name] for name in wanted]].reset_index(drop=True)


def _numbers(path: Path, table: pd.DataFrame) -> NDArray[np.float64]:
    """Turn all columns into numbers, or name the first cell that is none."""
    if table.shape[1] == 0:
        msg = f"{path}: no column of features; expected numbers beside the ids"
        raise TableError(msg)
    found = {}
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce").astype("float64")
        if numbers.isna().any():
            place = int(np.flatnonzero(numbers.isna())[0])
            msg = (
                f"{path}: column {name!r} holds {table[name].iloc[place]!r} in row {place + 1}; expected a number. Name the column of "
                f"ids with --id-column, and leave out columns that are no features"
            )
            raise TableError(msg)
        found[name] = numbers.to_numpy()
    return np.stack(list(found.values()), axis=1)


def _by_view(
    path: Path, names: list[str], views: list[str] | None, rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64]]:
    """Gather the rows of an image's views."""
    if views is None:
        return (rows[:, None, :],)
    n_views = len(set(views))
    places = {(name, view): row for row, (name, view) in enumerate(zip(names, views, strict=True))}
    ids = list(dict.fromkeys(names))
    if (
        len(places) != len(rows)
        or len(places) != len(ids) * n_views
        or set(views) != {str(view) for view in range(n_views)}
    ):
        msg = f"{path}: {len(rows)} rows are not {n_views} views of {len(ids)} images; expected each view, from 0, of each image once"
        raise TableError(msg)
    order = [[places[name, str(view)] for view in range(n_views)] for name in ids]
    return (rows[np.array(order)],)


def _joined(path: Path, names: Sequence[str], features: NDArray[Any]) -> MadeElsewhere:
    ids = list(names) if len(names) == len(features) else list(dict.fromkeys(names))
    if len(ids) != len(features):
        msg = f"{path}: {len(features)} rows of features and {len(ids)} ids; expected one each, in the same order"
        raise TableError(msg)
    doubled = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if doubled or "" in ids:
        msg = f"{path}: ids must differ, and none be empty; {listed(doubled, 5) if doubled else 'one is empty'}"
        raise TableError(msg)
    return MadeElsewhere(path=path, ids=tuple(ids), features=features)
