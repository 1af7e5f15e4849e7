"""What a cache holds, for `cli inspect`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features_cache.reader import FeatureCache
from features_cache.recipe import RANDOM_WEIGHTS
from features_cache.record import WEIGHTS, execution_in, read_record
from features_cache.status import Status


def describe(path: Path) -> dict[str, Any]:
    """Describe a cache without reading its features.

    Parameters
    ----------
    path : Path
        The ``*.h5`` file.

    Returns
    -------
    dict
        JSON values: shape, storage type, bytes, format version, checksum, counts of statuses, blocks with recipes; and, from
        the file beside the cache, as far as it is there, where each block's weights came from, and how the networks ran.

    Raises
    ------
    CacheError, ForeignCache
        As :class:`~features_cache.reader.FeatureCache`.
    """
    record = read_record(path)
    execution = execution_in(record)
    with FeatureCache(path) as cache:
        counts = Counter(Status(code).name.lower() for code in cache.status)
        return {
            "path": path.as_posix(),
            "format_version": cache.seal.version,
            "n_bytes": cache.seal.n_bytes,
            "checksum": cache.seal.checksum.hex(),
            "n_images": cache.n_images,
            "n_views": cache.n_views,
            "n_columns": cache.n_columns,
            "storage": cache.storage,
            "random_weights": cache.random_weights,
            "statuses": dict(sorted(counts.items())),
            "first_ids": list(cache.ids[:3]),
            "n_parents": None if cache.parents is None else len(set(cache.parents)),
            "blocks": [block.to_json() for block in cache.blocks],
            "weights": _weights(record, [block.name for block in cache.blocks]),
            "execution": None if execution is None else dataclasses.asdict(execution),
        }


def _weights(record: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
    told = record.get(WEIGHTS)
    return {name: str(told[name]) for name in names if name in told} if isinstance(told, dict) else {}


def describe_lines(description: dict[str, Any]) -> list[str]:
    """Lay a description out for people, one fact a line."""
    shape = "{n_images:,} images x {n_views} views x {n_columns} columns, {storage}".format_map(description)
    lines = [
        f"{description['path']}: {shape}, {description['n_bytes'] / 1e6:.1f} MB, format {description['format_version']}",
        "statuses: " + ", ".join(f"{name} {count}" for name, count in description["statuses"].items()),
        "ids: " + ", ".join(description["first_ids"]) + (", ..." if description["n_images"] > 3 else ""),
    ]
    if description["n_parents"] is not None:
        lines.append(f"parents: {description['n_parents']:,}")
    if description["random_weights"]:
        lines.append(RANDOM_WEIGHTS)
    if description["execution"] is not None:
        lines.append(
            "networks run by {runtime} on {device}, {micro_batch} views at a time, {n_threads} threads".format_map(
                description["execution"]
            )
        )
    for block in description["blocks"]:
        stop = block["start"] + block["columns"] - 1
        lines.append(f"block {block['name']}: columns {block['start']} to {stop}, digest {block['digest']}")
        lines += [f"  {key}: {value}" for key, value in block["recipe"].items()]
        if block["name"] in description["weights"]:
            lines.append(f"  weights: {description['weights'][block['name']]}")
    return lines
