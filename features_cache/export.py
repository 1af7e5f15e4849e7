"""Features for other tools: one row for each view of each image that is not quarantined."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
from numpy.typing import NDArray

from features_cache.errors import OptionError, OutputExists, did_you_mean
from features_cache.extras import load_extra
from features_cache.files import publish_written
from features_cache.layout import lay_out, reserve
from features_cache.reader import FeatureCache

_MOST_NAME_BYTES = 255


def export(
    path: Path, out: Path | None, to: str, *, view_0: bool = False, blocks: Sequence[str] = (), replace: bool = False
) -> Path:
    """Write a cache's features to a file of another format.

    ``parquet`` and ``csv`` have the columns ``id``, ``view``, then the features; ``npz`` the arrays ``ids`` and ``views`` (a row
    each), ``columns`` and ``features``; ``h5ad`` the features as ``X``, ``id`` and ``view`` in ``obs``, ``block`` in ``var``. Where
    images have parents, ``parent`` (``parents`` in ``npz``) follows the id. Values are float32, written piece by piece in bounded
    memory.

    Parameters
    ----------
    path : Path
        The cache.
    out : Path, optional
        The file; beside the cache, with the format's suffix, unless given.
    to : {"parquet", "npz", "h5ad", "csv"}
    view_0 : bool
        Only the images themselves, without their augmented copies.
    blocks : sequence of str
        Only these blocks; all unless given.
    replace : bool
        Whether a file that is there gives way.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OptionError
        If the format or a block is unknown, or the format's library is not installed.
    OutputExists
        If the file is there.
    CacheError, ForeignCache
        If the cache cannot be read.
    """
    if to not in FORMATS:
        msg = f"--to is {to!r}; expected one of {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}"
        raise OptionError(msg)
    target = out or path.with_suffix(f".{to}")
    if len(target.name.encode()) > _MOST_NAME_BYTES:
        msg = (
            f"--out: a name of {len(target.name.encode())} bytes cannot be written; expected {_MOST_NAME_BYTES} at most"
        )
        raise OptionError(msg)
    if target.exists() and path.exists() and target.samefile(path):
        msg = f"--out {target} is the cache itself; expected another file"
        raise OptionError(msg)
    if target.exists() and not replace:
        msg = f"{target}: exists; type --overwrite to replace it, or choose another --out"
        raise OutputExists(msg)
    with FeatureCache(path) as cache:
        cache.require_sound(np.flatnonzero(cache.good))
        table = _Table(cache, view_0=view_0, blocks=list(blocks) or None)
        publish_written(target, lambda place: FORMATS[to](table, place), replace=replace)
    return target


class _Table:
    """The rows and columns of an export."""

    def __init__(self, cache: FeatureCache, *, view_0: bool, blocks: list[str] | None) -> None:
        self._cache = cache
        self._blocks = blocks
        self._views = slice(0, 1) if view_0 else None
        self._rows = np.flatnonzero(cache.good)
        self.columns = cache.column_names(blocks)
        self.numbers = np.arange(1 if view_0 else cache.n_views)
        self.n_rows = len(self._rows) * len(self.numbers)

    def pieces(self) -> Iterator[tuple[dict[str, list[str]], NDArray[np.intp], NDArray[np.float32]]]:
        """Yield names (as :attr:`names`), views and features, a row for each view."""
        for rows, features in self._cache.chunks(rows=self._rows, views=self._views, blocks=self._blocks):
            yield self._names_of(rows), np.tile(self.numbers, len(rows)), features.reshape(-1, len(self.columns))

    @property
    def names(self) -> dict[str, list[str]]:
        """The ``id`` of each row, and its ``parent`` where images have one."""
        return self._names_of(self._rows)

    def _names_of(self, rows: NDArray[np.intp]) -> dict[str, list[str]]:
        texts = {"id": self._cache.ids, "parent": self._cache.parents}
        places = rows.repeat(len(self.numbers)).tolist()
        return {name: [each[row] for row in places] for name, each in texts.items() if each is not None}

    @property
    def name_columns(self) -> list[str]:
        """Which names there are."""
        return ["id"] if self._cache.parents is None else ["id", "parent"]

    @property
    def views(self) -> NDArray[np.intp]:
        """The view of each row."""
        return np.tile(self.numbers, len(self._rows))

    @property
    def block_of_column(self) -> list[str]:
        """The block of each column."""
        return [name.rpartition("_")[0] for name in self.columns]


def _to_parquet(table: _Table, place: Path) -> None:
    arrow, parquet = (load_extra(name, "export", "--to parquet") for name in ("pyarrow", "pyarrow.parquet"))
    fields = [*((name, arrow.string()) for name in table.name_columns), ("view", arrow.int32())]
    schema = arrow.schema([*fields, *((name, arrow.float32()) for name in table.columns)])
    with parquet.ParquetWriter(place, schema) as writer:
        for names, views, features in table.pieces():
            values = [arrow.array(column) for column in np.ascontiguousarray(features.T)]
            texts = [arrow.array(each, arrow.string()) for each in names.values()]
            arrays = [*texts, arrow.array(views, arrow.int32()), *values]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _to_csv(table: _Table, place: Path) -> None:
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*table.name_columns, "view", *table.columns])
        for names, views, features in table.pieces():
            # Nine digits give a float32 back to the bit.
            writer.writerows(
                [*texts, view, *(f"{value:.9g}" for value in row)]
                for texts, view, row in zip(
                    zip(*names.values(), strict=True), views.tolist(), features.tolist(), strict=True
                )
            )


def _to_npz(table: _Table, place: Path) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        small = {f"{name}s": np.array(texts, dtype=str) for name, texts in table.names.items()}
        small |= {"views": table.views, "columns": np.array(table.columns)}
        for name, values in small.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(values))
        with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as member:
            shape = (table.n_rows, len(table.columns))
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(member, header)
            for _, _, features in table.pieces():
                member.write(np.ascontiguousarray(features, "<f4").data)


def _npy(values: NDArray[np.generic]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, values, allow_pickle=False)
    return content.getvalue()


def _to_h5ad(table: _Table, place: Path) -> None:
    """Lay out AnnData's file by its specification (on-disk format 0.1.0): the library itself needs an older pandas than ours."""
    names = [f"{name}:{view}" for name, view in zip(table.names["id"], table.views.tolist(), strict=True)]

    def build(file: h5py.File) -> None:
        _encoded(file, "anndata", "0.1.0")
        _encoded(reserve(file, "X", (table.n_rows, len(table.columns)), np.dtype("<f4")), "array", "0.2.0")
        _data_frame(file.create_group("obs"), names, {**table.names, "view": table.views})
        _data_frame(file.create_group("var"), table.columns, {"block": table.block_of_column})
        for empty in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            _encoded(file.create_group(empty), "dict", "0.1.0")

    with place.open("wb") as content:
        for piece in lay_out(build):
            if isinstance(piece, bytes):
                content.write(piece)
            else:
                for _, _, features in table.pieces():
                    content.write(np.ascontiguousarray(features, dtype="<f4").data.cast("B"))


def _data_frame(group: h5py.Group, index: list[str], columns: Mapping[str, list[str] | NDArray[np.intp]]) -> None:
    _encoded(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    for name, values in {"_index": index, **columns}.items():
        if isinstance(values, np.ndarray):
            _encoded(group.create_dataset(name, data=values), "array", "0.2.0")
        else:
            _encoded(group.create_dataset(name, data=values, dtype=h5py.string_dtype()), "string-array", "0.2.0")


def _encoded(place: h5py.Group | h5py.Dataset, kind: str, version: str) -> None:
    place.attrs["encoding-type"] = kind
    place.attrs["encoding-version"] = version


FORMATS: Mapping[str, Callable[[_Table, Path], None]] = MappingProxyType(
    {"parquet": _to_parquet, "npz": _to_npz, "h5ad": _to_h5ad, "csv": _to_csv}
)
