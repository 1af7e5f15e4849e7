"""What `cli featurize` says: before (``--dry-run``) and after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from features_cache.recipe import RANDOM_WEIGHTS
from featurize.backbones.listing import BackboneEntry
from featurize.backbones.origin import licence_warnings
from featurize.summary import Summary
from featurize.work import Work, seconds_per_view


def estimate(work: Work) -> dict[str, Any]:
    """Say what a run would do and cost; four forward passes over grey pictures are timed.

    Returns
    -------
    dict
        JSON values: images, views, columns and bytes of each split, seconds, weights and their hashes.
    """
    per_view_s = seconds_per_view(work)
    splits = {
        split: {
            "n_images": len(plan.ids),
            "n_views": plan.n_views,
            "n_columns": plan.n_columns,
            "n_bytes": plan.n_feature_bytes,
            "seconds": round(per_view_s * len(plan.ids) * plan.n_views, 1),
        }
        for split, plan in work.plans.items()
    }
    weights = [
        {
            "backbone": network.block.name,
            "columns": network.block.columns,
            "file": str(network.origin.file) if network.origin.file else network.origin.words,
            "licence": network.origin.licence,
            "sha256": network.block.recipe.weights_sha256,
            "precision": network.block.recipe.precision,
        }
        for network in work.networks
    ]
    return {
        "splits": splits,
        "weights": weights,
        "views_per_s": round(1 / per_view_s, 2),
        "random_weights": work.random_weights,
        "warnings": licence_warnings(network.origin for network in work.networks),
    }


def estimate_lines(estimated: dict[str, Any]) -> list[str]:
    """Lay an estimate out for people."""
    lines = [RANDOM_WEIGHTS] if estimated["random_weights"] else []
    for split, plan in estimated["splits"].items():
        lines.append(
            f"{split}: {plan['n_images']:,} images x {plan['n_views']} views x {plan['n_columns']} columns, "
            f"{plan['n_bytes'] / 1e6:.1f} MB on disk, about {_duration(plan['seconds'])} at {estimated['views_per_s']:g} views/s"
        )
    lines += [
        f"{entry['backbone']}: {entry['columns']} columns, {entry['precision']}, "
        f"{', '.join(filter(None, (entry['file'], entry['licence'])))}, sha256 {entry['sha256']}"
        for entry in estimated["weights"]
    ]
    lines += [f"warning: {text}" for text in estimated["warnings"]]
    return [*lines, "nothing was computed (--dry-run)"]


def summary_lines(summary: Summary) -> list[str]:
    """Lay out what a run did, one line a split, warnings after them."""
    lines = []
    for split in summary.splits:
        shape = f"{split.n_images:,} images x {split.n_views} views x {split.n_columns} columns, {split.n_bytes / 1e6:.1f} MB"
        did = (
            f"{split.n_computed:,} computed in {_duration(split.wall_s)} ({split.images_per_s:.1f} images/s)"
            if split.n_computed
            else "nothing computed"
            if split.n_waiting
            else "complete, nothing to compute"
        )
        if split.n_waiting:
            parts = f"{split.n_waiting} parts of other shards are missing"
            lines.append(f"{split.path}: {did}; {parts}: the last shard to finish publishes, or `cli merge` does")
            continue
        bad = (
            f", {split.n_quarantined} quarantined ({split.path.with_suffix('.quarantine.csv')})"
            if split.n_quarantined
            else ""
        )
        lines.append(f"{split.path}: {shape}; {did}{bad}")
        lines += [f"  {count} images: {note}" for note, count in sorted(split.notes.items())]
    lines += [f"warning: {text}" for text in summary.warnings]
    return [*lines, RANDOM_WEIGHTS] if summary.random_weights else lines


def backbone_lines(entries: Iterable[BackboneEntry], *, as_json: bool, name_width: int = 20) -> Iterator[str]:
    """Lay out the list of networks, a line each, as they become known."""
    layout = f"{{name:<{name_width}}} " + "{columns:>7} {size_px:>4} {here:<5} {size_mb:>8} {licence:<14} {weights}"
    if not as_json:
        yield layout.format(
            name="name",
            columns="columns",
            size_px="px",
            here="here",
            size_mb="MB",
            licence="licence",
            weights="weights",
        )
    for entry in entries:
        fields = dataclasses.asdict(entry)
        if as_json:
            yield json.dumps(fields)
        else:
            told = {
                "columns": entry.columns or "-",  # of a network that is not built for a list
                "size_px": entry.size_px or "-",
                "here": "yes" if entry.here else "no",
                "size_mb": "-" if entry.size_mb is None else f"{entry.size_mb:.1f}",
                "licence": entry.licence[:14] or "-",
                "weights": entry.fault or entry.file or entry.weights,
            }
            yield layout.format_map(fields | told)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
