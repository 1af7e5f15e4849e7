"""What a run says of itself: the figures of metrics.json, and run.json."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from features_cache.hardware import choose_device
from features_cache.recipe import any_random
from heads.cell_data import Cells
from heads.cell_heads import CellHeads
from heads.choosing import Choice
from heads.decisions import Decisions
from heads.ensemble import Ensemble
from heads.estimate import Estimate
from heads.fused_estimate import FusedEstimate
from heads.gather import DEVICES, Gathered, ImageWeights
from heads.leaks.guard import Guard
from heads.out_of_fold import OutOfFold
from heads.resample import imbalance_report
from heads.settings import FitSettings


def metrics_of(gathered: Gathered, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return what metrics.json holds of every run, with each head's figures."""
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


def describe_run(
    settings: FitSettings,
    gathered: Gathered,
    seen: Guard,
    weights: ImageWeights,
    said: Estimate,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what run.json holds of every run, but for hashes and timings."""
    images = gathered.images
    return {
        "settings": settings.to_json(),
        "random_weights": metrics["random_weights"],
        "heads": list(settings.kinds),
        "ensemble": _weights(said.ensemble),
        "prior": settings.prior_of(many=images.targets.is_many),
        "target": _target(settings, gathered, said.decisions),
        "classes": list(images.classes),
        "class_counts": images.class_counts.tolist(),
        "n_images": images.n_images,
        **seen.description,
        "n_extra": len(gathered.further_ids) - len(gathered.left_out),
        "resampling": _resampling(settings, gathered, weights),
        "n_quarantined": images.n_quarantined,
        "n_unlabelled": images.n_unlabelled,
        "n_views_averaged": metrics["n_views_averaged"],
        "blocks": [block.to_json() for block in gathered.blocks],
        **_choices(said.found),
        "warnings": [*images.warnings, *seen.warnings],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn", "scipy", "pandas", "safetensors")},
        },
        "n_threads": torch.get_num_threads(),
        "device": choose_device(settings.device, DEVICES),
        "memory": None if gathered.memory is None else gathered.memory.to_json(),
    }


def describe_cells(cells: Cells, of_cells: CellHeads, fused: FusedEstimate) -> dict[str, Any]:
    """Return what run.json holds of heads of cells: as of the images' heads, and how both are fused."""
    return {
        "heads": list(of_cells.found),
        "blocks": [block.to_json() for block in cells.blocks],
        "ensemble": _weights(of_cells.ensemble),
        "pool": fused.figures["pool"],
        "weight": fused.fusion.weight,
        "weights_in_folds": list(fused.fusion.in_folds),
        "n_cells": len(cells.ids),
        "n_quarantined": cells.n_quarantined,
        "n_views_averaged": cells.n_averaged,
        **_choices(of_cells.found),
        "memory": None if cells.memory is None else cells.memory.to_json(),
    }


def _weights(ensemble: Ensemble) -> dict[str, Any]:
    return {"weights": ensemble.weights, "weights_in_folds": list(ensemble.weights_in_folds)}


def _choices(found: Mapping[str, OutOfFold]) -> dict[str, Any]:
    return {
        "chosen": {name: _told(oof.final) for name, oof in found.items()},
        "chosen_in_folds": {name: [_told(choice) for choice in oof.choices] for name, oof in found.items()},
        "search": {name: oof.search.to_json() for name, oof in found.items() if oof.search},
    }


def _resampling(settings: FitSettings, gathered: Gathered, weights: ImageWeights) -> dict[str, Any] | None:
    if settings.resample == "none":
        return None
    return imbalance_report(gathered.targets.members, weights.counts.astype(np.int64))


def _told(choice: Choice) -> dict[str, Any]:
    return {
        "settings": choice.settings,
        "candidates": [[tried, loss if math.isfinite(loss) else None] for tried, loss in choice.candidates],
    }
