"""The story of `fit-heads`: features and labels in, a run folder out."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from features_cache.progress import Progress, silent
from features_cache.recipe import any_random
from heads.ablation import ablate, require_blocks
from heads.choosing import Choice
from heads.clock import Clock
from heads.decisions import Decisions
from heads.estimate import Estimate, estimate
from heads.fitted import FittedHead
from heads.gather import Gathered, gather, training_data
from heads.guard import Guard, guarded
from heads.out_of_fold import fit_final
from heads.prior import prior_shift
from heads.problem import TrainingData
from heads.resample import imbalance_report
from heads.run_files import head_files, oof_csv, pictures
from heads.run_folder import Run, choose_folder, json_bytes, list_runs, publish_run
from heads.scoring import score_out_of_fold
from heads.settings import FitSettings
from heads.sizes import POWER

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
    clock = Clock()
    folder = choose_folder(settings.out)
    gathered, seen = guarded(settings, gather(settings))
    if settings.ablate:
        require_blocks(gathered)
    images, folds = gathered.images, gathered.folds
    data = training_data(settings, gathered, POWER)
    kinds = settings.kinds
    clock.lap("read_s")

    said = estimate(settings, gathered, data, kinds, progress)
    clock.lap("folds_s")

    fitted = []
    prior = settings.prior_of(many=images.targets.is_many)
    for place, (name, kind) in enumerate(kinds.items()):
        progress(f"final fit: {name}", place, len(kinds))
        head = fit_final(kind, data, said.found[name].final)
        shift = prior_shift(data, prior, weighs_members=head.weighs_members)
        fitted.append(FittedHead(name=name, head=head, classes=images.classes, blocks=gathered.blocks, shift=shift))
    clock.lap("final_fit_s")

    scores = {
        name: score_out_of_fold(
            images.targets,
            predictions,
            said.decisions[name],
            folds,
            images.classes,
            images.groups,
            seed=settings.seed,
        )
        for name, predictions in said.predictions.items()
    }
    metrics = _metrics(gathered, scores)
    clock.lap("metrics_s")
    if settings.ablate:
        metrics["ablation"] = ablate(settings, gathered, kinds, said, progress)
        clock.lap("ablation_s")

    files = {
        "metrics.json": json_bytes(metrics),
        "oof.csv": oof_csv(images, folds, said.predictions),
        "near_duplicates.csv": seen.table,
        "images.json": json_bytes(dict(zip(images.ids, gathered.content, strict=True))),
        **head_files(fitted),
        **pictures(metrics, images, kinds, said.found),
    }
    clock.lap("pictures_s")
    progress("writing the run", len(kinds), len(kinds))
    description = _description(settings, gathered, seen, data, said, metrics)
    folder = publish_run(folder, files, description | {"timings": clock.laps}, numbered=settings.out is None)
    return Run(
        folder=folder,
        metrics=metrics,
        warnings=(*images.warnings, *seen.warnings),
        notes=seen.notes,
        search=description["search"],
    )


def _metrics(gathered: Gathered, scores: Mapping[str, Any]) -> dict[str, Any]:
    images = gathered.images
    return {
        "format": 1,
        "estimate": "out-of-fold",
        "random_weights": any_random(gathered.blocks),
        "many_labels": images.targets.is_many,
        "classes": list(images.classes),
        "class_counts": images.class_counts.tolist(),
        "n_images": images.n_images,
        "n_groups": len(images.group_names) or None,
        "n_views_trained": gathered.features.n_views,
        "n_views_averaged": gathered.n_averaged,
        "heads": dict(scores),
    }


def _target(settings: FitSettings, gathered: Gathered, decisions: Mapping[str, Decisions | None]) -> dict[str, Any]:
    """Say what images are: `submit` needs it to turn probabilities into labels."""
    chosen = {name: each for name, each in decisions.items() if each is not None}
    return {
        "many_labels": gathered.images.targets.is_many,
        "separator": gathered.images.separator,
        "at_least_one": settings.at_least_one,
        "thresholds": {name: each.thresholds.to_json() for name, each in chosen.items()},
        "thresholds_in_folds": {name: each.in_folds.tolist() for name, each in chosen.items()},
    }


def _description(
    settings: FitSettings,
    gathered: Gathered,
    seen: Guard,
    data: TrainingData,
    said: Estimate,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    images = gathered.images
    return {
        "settings": settings.to_json(),
        "random_weights": metrics["random_weights"],
        "heads": list(settings.kinds),
        "ensemble": {"weights": said.ensemble.weights, "weights_in_folds": list(said.ensemble.weights_in_folds)},
        "prior": settings.prior_of(many=images.targets.is_many),
        "target": _target(settings, gathered, said.decisions),
        "classes": list(images.classes),
        "class_counts": images.class_counts.tolist(),
        "n_images": images.n_images,
        **seen.description,
        "n_extra": len(gathered.further_ids) - len(gathered.left_out),
        "resampling": _resampling(settings, gathered, data),
        "n_quarantined": images.n_quarantined,
        "n_unlabelled": images.n_unlabelled,
        "n_views_averaged": metrics["n_views_averaged"],
        "blocks": [block.to_json() for block in gathered.blocks],
        "chosen": {name: _told(oof.final) for name, oof in said.found.items()},
        "chosen_in_folds": {name: [_told(choice) for choice in oof.choices] for name, oof in said.found.items()},
        "search": {name: oof.search.to_json() for name, oof in said.found.items() if oof.search},
        "warnings": [*images.warnings, *seen.warnings],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn", "scipy", "pandas", "safetensors")},
        },
        "n_threads": torch.get_num_threads(),
        "device": data.rows.device.type,
        "memory": None if gathered.memory is None else gathered.memory.to_json(),
    }


def _resampling(settings: FitSettings, gathered: Gathered, data: TrainingData) -> dict[str, Any] | None:
    if settings.resample == "none":
        return None
    return imbalance_report(gathered.targets.members, data.counts.astype(np.int64))


def _told(choice: Choice) -> dict[str, Any]:
    return {
        "settings": choice.settings,
        "candidates": [[tried, loss if math.isfinite(loss) else None] for tried, loss in choice.candidates],
    }
