"""Evaluation: a run's heads on images with known labels that it was not fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from features_cache.errors import LabelError, listed
from features_cache.reader import UNKNOWN_CONTENT, FeatureCache
from features_cache.recipe import any_random
from features_cache.tables import read_table
from heads.fitted import check_blocks
from heads.fitted_run import FittedRun
from heads.labelled import LabelledImages, join_labels, recast
from heads.labels import labels_from_folders, read_labels
from heads.run_folder import read_checked
from heads.scoring import headline_of, score_of


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
    """

    run: Path
    features: Path
    labels: Path | None
    id_column: str | None = None
    label_column: tuple[str, ...] = ()
    separator: str | None = None
    group_column: str | None = None
    drop_missing: bool = False


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
        names = check_blocks(str(settings.features), fitted.heads[0].blocks, cache.blocks)
        images = _labelled(settings, run, cache)
        content = cache.content_of(images.rows)
        _check_unseen(images.ids, content, read_checked(fitted.folder, run, "images.json"), settings.features)
        targets = recast(images, run["classes"], str(settings.labels or settings.features))
        cache.require_sound(images.rows)
        X = cache.load(rows=images.rows, views=fitted.views, blocks=names)
    classes = tuple(run["classes"])
    view_0 = fitted.predict(X[:, :1])
    scores = {}
    for name, probabilities in fitted.predict(X).items():
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
        "n_views_averaged": X.shape[1],
        "heads": scores,
        "warnings": list(images.warnings),
    }


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
    """Refuse images that a run was fitted on: by their bytes where these are known, else by their names."""
    known = set(fitted_on.values()) - {UNKNOWN_CONTENT}
    seen = [
        image_id
        for image_id, digest in zip(ids, content, strict=True)
        if digest in known or (image_id in fitted_on and UNKNOWN_CONTENT in {digest, fitted_on[image_id]})
    ]
    if seen:
        msg = (
            f"{features}: the run was fitted on {len(seen)} of these {len(ids)} images ({listed(seen, 5)}); expected "
            f"images that it never saw. Give others, or read the out-of-fold figures in metrics.json"
        )
        raise LabelError(msg)
