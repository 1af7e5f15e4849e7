"""The story of `fit-heads`: features and labels in, a run folder out."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from features_cache.errors import OptionError, did_you_mean
from features_cache.progress import Progress, silent
from features_cache.reader import FeatureCache
from features_cache.recipe import Block, any_random
from heads import report
from heads.catalogue import POWER
from heads.choosing import Choice
from heads.class_weights import sample_weights
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import average
from heads.feature_rows import FeatureRows
from heads.fitted import FittedHead
from heads.folds import Fold, check_folds, make_folds
from heads.labels import LabelledImages, join_labels, labels_from_folders, read_labels
from heads.metrics import HEADLINE, headline, score
from heads.out_of_fold import LearnedFrom, OutOfFold, fit_final, out_of_fold
from heads.run_folder import Run, choose_folder, json_bytes, list_runs, publish_run
from heads.settings import FitSettings

__all__ = ["FitSettings", "Run", "fit_heads", "list_runs"]


def fit_heads(settings: FitSettings, progress: Progress = silent) -> Run:
    """Fit heads on cached features, honestly estimated, and leave a run folder behind.

    Parameters
    ----------
    settings : FitSettings
    progress : callable
        Called with what is done, how many steps are done, how many there are.

    Returns
    -------
    Run

    Raises
    ------
    CacheError, ForeignCache
        If a cache cannot be read.
    TableError, LabelError
        If the labels cannot be read or learned from.
    OptionError, OutputExists
        If an option makes no sense, or the run folder is there already.
    """
    clock = _Clock()
    folder = choose_folder(settings.out)
    with FeatureCache(settings.features) as cache:
        images = _labelled(settings, cache)
        folds = make_folds(
            images.labels, images.groups, n_folds=settings.folds, n_repeats=settings.repeats, seed=settings.seed
        )
        check_folds(folds, images.labels, images.classes)
        blocks = _chosen_blocks(cache.blocks, settings.blocks)
        views = slice(0, 1) if settings.views == "0" else None
        cache.require_sound(images.rows)
        content = [digest.tobytes().hex() for digest in cache.content_hash[images.rows]]
        X = cache.load(rows=images.rows, views=views, blocks=[block.name for block in blocks])
    n_averaged = _views_averaged(settings, X.shape[1])
    n_views = X.shape[1]
    learned = LearnedFrom(
        rows=FeatureRows(X, POWER),
        labels=images.labels,
        groups=images.groups,
        weights=sample_weights(images.labels, settings.class_weight),
        n_classes=images.n_classes,
    )
    del X
    clock.lap("read_s")

    predictions = out_of_fold(
        settings.heads, learned, folds, n_averaged=n_averaged, seed=settings.seed, progress=progress
    )
    clock.lap("folds_s")

    fitted = []
    for place, name in enumerate(settings.heads):
        progress(f"final fit: {name}", place, len(settings.heads))
        head = fit_final(name, learned, predictions[name].final)
        fitted.append(FittedHead(name=name, head=head, classes=images.classes, blocks=blocks))
    clock.lap("final_fit_s")

    averaged = _with_ensemble({name: oof.averaged for name, oof in predictions.items()})
    view_0 = _with_ensemble({name: oof.view_0 for name, oof in predictions.items()})
    metrics = _metrics(settings, images, folds, averaged, view_0, n_views, n_averaged, random=any_random(blocks))
    clock.lap("metrics_s")

    files = {
        "metrics.json": json_bytes(metrics),
        "oof.csv": _oof_csv(images, folds, averaged),
        "images.json": json_bytes(dict(zip(images.ids, content, strict=True))),
        **_head_files(fitted),
        **_pictures(metrics, images, predictions, random=any_random(blocks)),
    }
    clock.lap("pictures_s")
    progress("writing the run", len(settings.heads), len(settings.heads))
    description = _description(settings, images, blocks, predictions, metrics, clock)
    folder = publish_run(folder, files, description, numbered=settings.out is None)
    return Run(folder=folder, metrics=metrics, warnings=images.warnings)


def _labelled(settings: FitSettings, cache: FeatureCache) -> LabelledImages:
    if settings.labels is None:
        table = labels_from_folders(cache.ids)
        warnings: tuple[str, ...] = ()
    else:
        table, warnings = read_labels(
            settings.labels,
            id_column=settings.id_column,
            label_column=settings.label_column,
            group_column=settings.group_column,
            drop_missing=settings.drop_missing,
        )
    return join_labels(
        table,
        cache.ids,
        cache.good,
        source=str(settings.labels or settings.features),
        grouped=settings.group_column is not None,
        exclude_class=settings.exclude_class,
        ignore_unlabelled=settings.ignore_unlabelled,
        warnings=warnings,
    )


def _chosen_blocks(blocks: Sequence[Block], names: Sequence[str]) -> tuple[Block, ...]:
    there = {block.name: block for block in blocks}
    for name in names:
        if name not in there:
            msg = f"--blocks {name}: no such block; the cache has {', '.join(there)}{did_you_mean(name, there)}"
            raise OptionError(msg)
    return tuple(block for block in blocks if not names or block.name in names)


def _views_averaged(settings: FitSettings, n_views: int) -> int:
    """As many views as `submit` will find in the test cache, so that the headline speaks of what it will do."""
    if settings.views == "0" or settings.test_features is None:
        return n_views
    with FeatureCache(settings.test_features) as test:
        return min(n_views, test.n_views)


def _with_ensemble(by_head: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.floating[Any]]]:
    if len(by_head) == 1:
        return dict(by_head)
    return {**by_head, ENSEMBLE: average(list(by_head.values()))}


def _metrics(
    settings: FitSettings,
    images: LabelledImages,
    folds: Sequence[Fold],
    averaged: Mapping[str, NDArray[np.floating[Any]]],
    view_0: Mapping[str, NDArray[np.floating[Any]]],
    n_views: int,
    n_averaged: int,
    *,
    random: bool,
) -> dict[str, Any]:
    heads: dict[str, Any] = {}
    for name, probabilities in averaged.items():
        figures = score(images.labels, list(probabilities), images.classes, images.groups, seed=settings.seed)
        figures["view_0"] = _mean_of([headline(images.labels, repeat) for repeat in view_0[name]])
        by_fold = [headline(images.labels[fold.held_out], probabilities[fold.repeat][fold.held_out]) for fold in folds]
        figures["by_fold"] = {
            key: {
                "mean": float(np.mean([fold[key] for fold in by_fold])),
                "std": float(np.std([fold[key] for fold in by_fold])),
                "folds": [fold[key] for fold in by_fold],
            }
            for key in HEADLINE
        }
        heads[name] = figures
    return {
        "format": 1,
        "estimate": "out-of-fold",
        "random_weights": random,
        "classes": list(images.classes),
        "class_counts": images.class_counts.tolist(),
        "n_images": images.n_images,
        "n_groups": len(images.group_names) or None,
        "n_views_trained": n_views,
        "n_views_averaged": n_averaged,
        "heads": heads,
    }


def _mean_of(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([repeat[key] for repeat in figures])) for key in HEADLINE}


def _oof_csv(images: LabelledImages, folds: Sequence[Fold], averaged: Mapping[str, NDArray[np.floating[Any]]]) -> bytes:
    fold_of = np.zeros((1 + max(fold.repeat for fold in folds), images.n_images), dtype=np.int64)
    for fold in folds:
        fold_of[fold.repeat, fold.held_out] = fold.number
    groups = [""] * images.n_images if images.groups is None else [images.group_names[group] for group in images.groups]
    tables = []
    for name, probabilities in averaged.items():
        for repeat, rows in enumerate(probabilities):
            first = {"id": images.ids, "label": [images.classes[index] for index in images.labels], "repeat": repeat}
            described = pd.DataFrame({**first, "fold": fold_of[repeat], "group": groups, "head": name})
            # A class may be called `label`: columns of the same name are legal in a CSV, and their order tells them apart.
            tables.append(pd.concat([described, pd.DataFrame(np.round(rows, 6), columns=list(images.classes))], axis=1))
    return pd.concat(tables).to_csv(index=False, lineterminator="\n").encode()


def _head_files(fitted: Sequence[FittedHead]) -> dict[str, bytes]:
    files = {}
    for head in fitted:
        files[f"heads/{head.name}.json"], files[f"heads/{head.name}.safetensors"] = head.to_bytes()
    return files


def _pictures(
    metrics: Mapping[str, Any], images: LabelledImages, predictions: Mapping[str, OutOfFold], *, random: bool
) -> dict[str, bytes]:
    files = {"class_counts.png": report.counts_picture(metrics["class_counts"], images.classes, random_weights=random)}
    for name, figures in metrics["heads"].items():
        files[f"confusion_{name}.png"] = report.confusion_picture(
            figures["confusion"], images.classes, head=name, random_weights=random
        )
        files[f"reliability_{name}.png"] = report.reliability_picture(
            figures["calibration"], head=name, random_weights=random
        )
    for name, oof in predictions.items():
        picture = report.learning_picture(oof.choices, head=name, random_weights=random)
        if picture is not None:
            files[f"learning_{name}.png"] = picture
    return files


def _description(
    settings: FitSettings,
    images: LabelledImages,
    blocks: Sequence[Block],
    predictions: Mapping[str, OutOfFold],
    metrics: Mapping[str, Any],
    clock: _Clock,
) -> dict[str, Any]:
    return {
        "settings": settings.to_json(),
        "random_weights": metrics["random_weights"],
        "heads": list(settings.heads),
        "classes": list(images.classes),
        "class_counts": images.class_counts.tolist(),
        "n_images": images.n_images,
        "n_quarantined": images.n_quarantined,
        "n_unlabelled": images.n_unlabelled,
        "n_views_averaged": metrics["n_views_averaged"],
        "blocks": [block.to_json() for block in blocks],
        "chosen": {name: _told(oof.final) for name, oof in predictions.items()},
        "chosen_in_folds": {name: [_told(choice) for choice in oof.choices] for name, oof in predictions.items()},
        "warnings": list(images.warnings),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn", "scipy", "pandas", "safetensors")},
        },
        "n_threads": torch.get_num_threads(),
        "timings": clock.laps,
    }


def _told(choice: Choice) -> dict[str, Any]:
    return {"settings": choice.settings, "candidates": [list(pair) for pair in choice.candidates]}


class _Clock:
    """Seconds of each chapter."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a chapter."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
