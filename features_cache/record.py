"""``NAME.json`` beside a cache: what moves no number, and how the networks ran, which an extension follows as far as it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from features_cache.files import open_regular
from features_cache.plan import Execution

EXECUTION, WEIGHTS = "execution", "weights"


def read_record(path: Path) -> dict[str, Any]:
    """Read the record beside a cache; empty where it is lost or not as it was written: the cache is whole without it.

    Parameters
    ----------
    path : Path
        The cache.
    """
    try:
        with open_regular(path.with_suffix(".json")) as file:
            record = json.load(file)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def execution_in(record: dict[str, Any]) -> Execution | None:
    """Return how the networks ran, as far as a record tells."""
    try:
        return Execution(**record[EXECUTION])
    except (KeyError, TypeError, ValueError):
        return None
