"""Evaluation: a run's heads on images with known labels that it was not fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features_cache.errors import LabelError, listed
from features_cache.reader import FeatureCache
from features_cache.recipe import any_random
from features_cache.tables import read_table
from heads.arrays import Float64
from heads.ensemble import overall
from heads.features import require_finite
from heads.fitted import check_blocks
from heads.fitted_run import FittedRun
from heads.fused_run import CellCounts, find_cells, predict_fused
from heads.fusion import CELLS, FUSED
from heads.labelled import LabelledImages, join_labels, recast
from heads.labels import labels_from_folders, read_labels
from heads.metrics.scoring import headline_of, score_of
from heads.run_folder import read_checked
from heads.seen import among
from heads.targets import Targets


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """Settings of one evaluation.

    Parameters
    ----------
    run : Path
        A run folder.
    features : Path
        The cache of the images.
    labels : Path, optional
        Their labels; without a CSV, the first folder of each id.
    id_column : str, optional
        As the run had it, where not given; so are the next three.
    label_column : tuple of str
    separator, group_column : str, optional
    drop_missing : bool
        Whether images without a label are left out.
    cells : Path, optional
        The cache of the images' cells, for a run with heads of cells.
    """

    run: Path
    features: Path
    labels: Path | None
    id_column: str | None = None
    label_column: tuple[str, ...] = ()
    separator: str | None = None
    group_column: str | None = None
    drop_missing: bool = False
    cells: Path | None = None


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a run's heads, and their ensemble, on images that they never saw.

    Parameters
    ----------
    settings : EvaluateSettings

    Returns
    -------
    dict
        JSON-able, as metrics.json but for the folds; ``estimate`` is ``"evaluation"``.

    Raises
    ------
    LabelError
        If an image was fitted on, or its label is no class of the run's.
    RunError, RecipeMismatch, TableError, CacheError
        If the run, the cache or the labels cannot be used.
    """
    fitted = FittedRun.load(settings.run)
    run = fitted.run
    with FeatureCache(settings.features) as cache:
        check_blocks(str(settings.features), fitted.heads[0].blocks, cache.blocks)
        images = _labelled(settings, run, cache)
        _check_kind(settings, images.targets, is_many=fitted.many_labels)
        content = cache.content_of(images.rows)
        _check_unseen(images.ids, content, read_checked(fitted.folder, run, "images.json"), settings.features)
        targets = recast(images, run["classes"], str(settings.labels or settings.features))
        cache.require_sound(images.rows)
        require_finite(cache, images.rows, fitted.views, fitted.block_names)
        averaged = fitted.predict_rows(cache, images.rows)
        view_0 = fitted.predict_rows(cache, images.rows, view_0=True)
        n_averaged = 1 if fitted.views else cache.n_views
    told = _with_cells(settings, fitted, images.ids, averaged, view_0)
    classes = tuple(run["classes"])
    scores = {}
    for name, probabilities in averaged.items():
        called = fitted.call(probabilities, name)
        scores[name] = score_of(
            targets,
            [probabilities],
            None if called is None else [called],
            classes,
            images.groups,
            thresholds=None if called is None else fitted.thresholds(name),
            seed=run["settings"]["seed"],
        )
        scores[name]["view_0"] = headline_of(targets, view_0[name], fitted.call(view_0[name], name))
    return {
        "format": 1,
        "estimate": "evaluation",
        "run": fitted.folder.name,
        "random_weights": any_random(fitted.heads[0].blocks),
        "many_labels": targets.is_many,
        "classes": list(classes),
        "class_counts": targets.counts.tolist(),
        "n_images": images.n_images,
        "n_groups": len(images.group_names) or None,
        "n_views_averaged": n_averaged,
        "heads": scores,
        "warnings": [*images.warnings, *told],
    }


def _with_cells(
    settings: EvaluateSettings,
    fitted: FittedRun,
    ids: Sequence[str],
    averaged: dict[str, Float64],
    view_0: dict[str, Float64],
) -> list[str]:
    """Add what cells say, alone and with their images, to what images say; return what the user should hear of.

    Of cells all views are averaged, also beside view 0 of the images.
    """
    if settings.cells is None:
        return (
            []
            if fitted.cells is None
            else [f"{fitted.folder}: its heads of cells were not asked; name a cache of cells with --cells"]
        )
    with FeatureCache(settings.cells) as cache:
        cells = find_cells(cache, ids, [fitted])
        if not len(cells.rows):
            found = f"none of its {cache.n_images} cells is of one of these {len(ids)} images ({listed(ids, 3)})"
            msg = f"{settings.cells}: {found}; expected cells of them. Name their cache with --cells, or leave it out"
            raise LabelError(msg)
        for said in (averaged, view_0):
            said[CELLS], said[FUSED] = predict_fused(fitted, overall(said), cells)
    counts = CellCounts.of(cells, len(ids))
    return [f"{settings.cells}: {line}" for line in counts.lines()] if counts.n_quarantined else []


def _labelled(settings: EvaluateSettings, run: dict[str, Any], cache: FeatureCache) -> LabelledImages:
    fitted = run["settings"]
    if settings.labels is None:
        table = labels_from_folders(cache.ids)
        return join_labels(
            table,
            cache.ids,
            cache.good,
            source=str(settings.features),
            exclude_class=_excluded(fitted, table),
            least_classes=1,
        )
    label_column = settings.label_column or tuple(fitted["label_column"])
    separator = settings.separator or run["target"]["separator"]
    group_column, told = _group_column(settings, fitted["group_column"])
    table, warnings = read_labels(
        settings.labels,
        id_column=settings.id_column or fitted["id_column"],
        label_column=label_column,
        separator=separator,
        group_column=group_column,
        drop_missing=settings.drop_missing,
        will_fold=False,
    )
    return join_labels(
        table,
        cache.ids,
        cache.good,
        source=str(settings.labels),
        separator=separator,
        grouped=group_column is not None,
        exclude_class=_excluded(fitted, table),
        ignore_unlabelled=True,
        least_classes=1,
        warnings=(*told, *warnings),
    )


def _check_kind(settings: EvaluateSettings, targets: Targets, *, is_many: bool) -> None:
    """Refuse labels of one kind for a run of the other."""
    if targets.is_many == is_many:
        return
    kinds = {True: "many labels an image", False: "one label an image"}
    cure = "leave --separator out, or name one --label-column" if targets.is_many else "give a CSV with --labels"
    msg = (
        f"{settings.labels or settings.features}: {kinds[targets.is_many]}, but the run was fitted on {kinds[is_many]}; expected "
        f"labels of the same kind: {cure}, or fit a run on such labels"
    )
    raise LabelError(msg)


def _excluded(fitted: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    there = {name for names in table["classes"] if names for name in names}
    return [name for name in fitted["exclude_class"] if name in there]


def _group_column(settings: EvaluateSettings, fitted: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Choose the groups of the intervals: those asked for, else the run's where these labels have them."""
    if settings.group_column or fitted is None or settings.labels is None:
        return settings.group_column, ()
    if fitted in read_table(settings.labels).columns:
        return fitted, ()
    text = f"{settings.labels} has no column {fitted!r}, the run's groups: images count as independent, and intervals are too narrow"
    return None, (text,)


def _check_unseen(ids: Sequence[str], content: Sequence[str], fitted_on: Mapping[str, str], features: Path) -> None:
    """Refuse images that a run was fitted on."""
    seen = [ids[place] for place in np.flatnonzero(among(ids, content, fitted_on)).tolist()]
    if seen:
        msg = (
            f"{features}: the run was fitted on {len(seen)} of these {len(ids)} images ({listed(seen, 5)}); expected "
            f"images that it never saw. Give others, or read the out-of-fold figures in metrics.json"
        )
        raise LabelError(msg)
