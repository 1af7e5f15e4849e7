"""The example projects as a user types them: data made by their script, their own permafeat.toml, overrides by flags."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGES = EXAMPLES.parent / "docs" / "examples"
SYSTEMS = ("s0", "s1", "s2", "s3", "s4")

Run = Callable[..., tuple[int, str, str]]


def make(system: str, folder: Path, *words: object) -> None:
    """Type `make_data.py`."""
    command = [sys.executable, str(EXAMPLES / "make_data.py"), system, str(folder), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def typed(run_cli: Run, system: str, command: str, *words: object, config: str = "permafeat.toml") -> tuple[str, str]:
    """Type a command with an example's own settings; it must end well."""
    code, out, err = run_cli(command, "--config", EXAMPLES / system / config, *words)
    assert code == 0, err
    return out, err


def table(path: str | Path) -> pd.DataFrame:
    """Read a table as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def require_rows_of_the_sample(columns: list[str]) -> pd.DataFrame:
    """Check that submission.csv has the sample's columns and, row for row, its ids; return it."""
    submission, sample = table("submission.csv"), table("data/sample_submission.csv")
    assert list(submission.columns) == list(sample.columns) == columns
    assert submission.iloc[:, 0].tolist() == sample.iloc[:, 0].tolist()
    return submission


def require_labels(column: pd.Series, n_classes: int, separator: str = " ") -> None:
    """Check that every cell holds at least one class, ascending, none twice, and no other."""
    for text in column:
        numbers = [int(word) for word in text.split(separator)]
        assert numbers == sorted(set(numbers)), text
        assert set(numbers) <= set(range(n_classes)), text


def labels_of(path: Path, column: str) -> dict[str, str]:
    """Read which labels an image has, by id."""
    with path.open(newline="") as lines:
        return {next(iter(row.values())): row[column] for row in csv.DictReader(lines)}


def lines_typed(page: Path) -> list[str]:
    """All lines in a page's code blocks."""
    return [
        line
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
