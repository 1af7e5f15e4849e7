"""The tables that close a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.table import Table

from features_cache.recipe import RANDOM_WEIGHTS
from heads.fusion import FUSED
from heads.metrics.scoring import headline_names
from heads.pooling import POOLS

TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_average_precision": "mAP",
    "exact_match": "exact match",
    "weighted_f1": "weighted F1",
    "log_loss": "log-loss",
}


class HasMetrics(Protocol):
    """A run, as far as the table is concerned."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """As in metrics.json."""


def metrics_table(shown: HasMetrics | Mapping[str, Any]) -> Table:
    """Lay out the headline figures of each head, with 95 % intervals, for a terminal.

    Parameters
    ----------
    shown : Run, or mapping
        A run, or what `evaluate` returned.

    Returns
    -------
    rich.table.Table
    """
    metrics = shown if isinstance(shown, Mapping) else shown.metrics
    by = f"{metrics['n_groups']} groups" if metrics.get("n_groups") else "images"
    caption = (
        f"{metrics['n_images']} images, {len(metrics['classes'])} classes; [95 % interval, bootstrap over {by}]; "
        f"an image's prediction is the mean over {metrics['n_views_averaged']} views"
    )
    if metrics["random_weights"]:
        caption = f"{RANDOM_WEIGHTS}. {caption}"
    table = Table(title=f"{metrics['estimate']} figures", caption=caption)
    names = headline_names(many=metrics.get("many_labels", False))
    beside = "macro_f1" if "macro_f1" in names[:1] else "weighted_f1"
    table.add_column("head")
    for name in names:
        table.add_column(TITLES[name], justify="right")
    table.add_column(f"{TITLES[beside]}, view 0", justify="right")
    for name, scores in metrics["heads"].items():
        cells = [f"{scores[key]['value']:.3f} [{scores[key]['low']:.3f}, {scores[key]['high']:.3f}]" for key in names]
        view_0 = scores.get("view_0")
        table.add_row(name, *cells, f"{view_0[beside]:.3f}" if view_0 else "")
    return table


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the headline figures without each block, and how far they are from those with all."""
    table = Table(title="each block left out", caption="in brackets: less, or more, than with all blocks")
    table.add_column("left out")
    table.add_column("head")
    whole, *others = rows
    names = list(next(iter(whole["heads"].values())))
    for name in names:
        table.add_column(TITLES[name], justify="right")
    for row in (whole, *others):
        title = row["left_out"] or "nothing"
        for head, scores in row["heads"].items():
            cells = [
                f"{scores[key]:.3f}"
                + (f" ({scores[key] - whole['heads'][head][key]:+.3f})" if row is not whole else "")
                for key in names
            ]
            table.add_row(title, head, *cells)
            title = ""
    return table


def fusion_table(metrics: Mapping[str, Any]) -> Table:
    """Lay out what each weight of cells against images gives, for a terminal.

    Parameters
    ----------
    metrics : mapping
        As metrics.json, of a run with cells.

    Returns
    -------
    rich.table.Table
    """
    cells = metrics["cells"]
    first, pool = headline_names(many=metrics["many_labels"])[0], cells["pool"]
    other = next(name for name in POOLS if name != pool)
    chosen = metrics["heads"][FUSED][first]
    folds = ", ".join(f"{weight:g}" for weight in cells["weights_in_folds"])
    caption = (
        f"{cells['n_cells']} cells of {cells['n_images_with_cells']} images ({cells['n_images_without_cells']} images without cells speak "
        f"alone); chosen inside the folds: {folds}, which gives {chosen['value']:.3f} [{chosen['low']:.3f}, {chosen['high']:.3f}]; the best "
        f"row of a table is a little too good"
    )
    table = Table(title="cells and images, out of fold: w · cells + (1 - w) · image", caption=caption)
    table.add_column("w")
    for title in (f"{TITLES[first]}, {pool} of cells", "log-loss, calibrated", f"{TITLES[first]}, {other} of cells"):
        table.add_column(title, justify="right")
    ends = {0.0: "0 (images alone)", 1.0: "1 (cells alone)"}
    for row in cells["table"]:
        weight = row["weight"]
        title = ends.get(weight, f"{weight:g}" + (" (chosen)" if weight == cells["weight"] else ""))
        values = row[pool][first], row[pool]["calibrated_log_loss"], row[other][first]
        table.add_row(title, *(f"{value:.3f}" for value in values))
    return table


def runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out runs side by side, as `list_runs` gives them, a line each head."""
    table = Table(title="runs", caption="out-of-fold figures of every head")
    for title in ("run", "images", "classes", "groups", "blocks", "head"):
        table.add_column(title)
    known = {name for run in runs for scores in run.get("heads", {}).values() for name in scores}
    names = [name for name in TITLES if name in known]
    for name in names:
        table.add_column(TITLES[name], justify="right")
    for run in runs:
        if "error" in run:
            table.add_row(run["run"], *[""] * 4, "cannot be read", *[""] * len(names))
            continue
        title = f"{run['run']} (RANDOM WEIGHTS)" if run["random_weights"] else run["run"]
        described = [
            title,
            str(run["n_images"]),
            str(run["n_classes"]),
            run["group_column"] or "",
            ", ".join(run["blocks"]),
        ]
        for head, scores in run["heads"].items():
            cells = [f"{scores[key]['value']:.3f}" if key in scores else "" for key in names]
            table.add_row(*described, head, *cells)
            described = [""] * len(described)
    return table


def search_table(search: Mapping[str, Any]) -> Table:
    """Lay out what a search tried, a line each head, for a terminal.

    Parameters
    ----------
    search : mapping
        As in run.json.

    Returns
    -------
    rich.table.Table
    """
    table = Table(
        title="search",
        caption="log-loss of the images that the final fit's settings were chosen by, which flatters the chosen; each fold searched for itself",
    )
    for title in ("head", "fits", "folds that left the default", "the final fit's settings"):
        table.add_column(title)
    table.add_column("log-loss, default", justify="right")
    table.add_column("log-loss, chosen", justify="right")
    for name, told in search.items():
        final, folds = told["final"], told["folds"]
        trials = final["trials"]
        met = {json.dumps(trial["drawn"]): trial["loss"] for trial in trials if trial["rung"] == trials[-1]["rung"]}
        losses = met.get("{}"), met.get(json.dumps(final["won"]))
        settings = ", ".join(f"{key} {value:g}" for key, value in final["won"].items()) or "the default"
        left = sum(bool(fold["won"]) for fold in folds)
        shown = ["" if loss is None else f"{loss:.3f}" for loss in losses]
        table.add_row(name, str(told["n_fits"]), f"{left} of {len(folds)}", settings, *shown)
    return table
