"""CSV files as the user wrote them: every cell text, every fault named by file and row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from features_cache.errors import TableError, did_you_mean, listed

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(path: Path, *, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a comma-separated UTF-8 file (with or without a byte-order mark) with a header row.

    Nothing is guessed: ``007`` and ``1e5`` stay text, an empty cell stays ``""``.

    Parameters
    ----------
    path : Path
        The file.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    DataFrame of str
        One row a record; the index is the line on which the record begins in the file (the header is line 1).

    Raises
    ------
    TableError
        If the file is missing, empty, without records, not UTF-8, not comma-separated, holds a NUL or an unclosed
        quote, a record has more or fewer cells than the header, or a required column is missing.
    """
    text = _decoded(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    records: list[list[str]] = []
    lines: list[int] = []
    begins = 1
    try:
        for record in reader:
            if not header:
                header = [name.strip() for name in record]
                _check_header(path, header, required)
            elif record:
                if len(record) != len(header):
                    msg = f"{path}:{begins}: {len(record)} cells; expected {len(header)}, as in the header {header}"
                    raise TableError(msg)
                records.append(record)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        # A quote that never closes swallows the rest of the file: the line where the record begins is the one to mend.
        msg = f"{path}:{begins}: malformed CSV ({error}); look for a quote that is not closed"
        raise TableError(msg) from error
    if not header:
        msg = f"{path}: empty; expected a header row and one row an image"
        raise TableError(msg)
    if not records:
        msg = f"{path}: only a header ({', '.join(header)}); expected one row an image"
        raise TableError(msg)
    return pd.DataFrame(records, columns=header, index=pd.Index(lines, name="line"), dtype=str)


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"{path}: no such file; expected a CSV. Give its place with an option or in permafeat.toml"
        raise TableError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); expected a CSV file"
        raise TableError(msg) from error
    if b"\x00" in raw:
        line = raw[: raw.index(b"\x00")].count(b"\n") + 1
        msg = f"{path}:{line}: a NUL byte; expected text. Save the table as CSV, UTF-8"
        raise TableError(msg)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the table as CSV, UTF-8"
        raise TableError(msg) from error


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    if len(header) == 1:
        for delimiter, name in _OTHER_DELIMITERS.items():
            if delimiter in header[0]:
                msg = (
                    f"{path}:1: the columns are separated by {name}; expected commas. Save the table as comma-separated"
                )
                raise TableError(msg)
    doubles = sorted({name for name in header if header.count(name) > 1})
    if doubles:
        msg = f"{path}:1: columns named twice: {listed(doubles)}"
        raise TableError(msg)
    for name in required:
        require_column(path, header, name)


def require_column(path: Path, columns: Sequence[str], name: str) -> None:
    """Check that a table has a column.

    Raises
    ------
    TableError
        If it has not; the message lists the columns found and suggests the nearest.
    """
    if name not in columns:
        alike = next((column for column in columns if column.lower() == name.lower()), None)
        hint = f"; did you mean {alike!r}?" if alike else did_you_mean(name, columns)
        msg = f"{path}:1: no column {name!r}; found columns {', '.join(columns)}{hint or '.'} Name it as it is there (--id-column or its like)"
        raise TableError(msg)
