"""What is told of images and their cells together: the weight that was chosen, and what every other one would have given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from features_cache.progress import Progress
from heads.cell_data import Cells
from heads.cell_heads import CellHeads
from heads.decisions import Decisions
from heads.ensemble import overall
from heads.estimate import Estimate, decided
from heads.fusion import CELLS, FUSED, WEIGHTS, Fusion, fuse, fuse_at, pool_predictions
from heads.gather import Gathered
from heads.metrics.confidence import calibrated_loss
from heads.metrics.scoring import headline_names, mean_headline, score_out_of_fold
from heads.pooling import POOLS, Pool
from heads.predictions import Predictions
from heads.settings import FitSettings

_ENDS = (0.0, *WEIGHTS, 1.0)
"""Weights of the table: the image alone, those that are chosen from, cells alone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FusedEstimate:
    """What was said of held-out images by heads of images and of cells.

    Parameters
    ----------
    predictions : dict of Predictions
        Of images: ``cells`` (images without cells as they say themselves) and ``fused``.
    decisions : dict of Decisions or None
        By the same names; None where images have one label.
    fusion : Fusion
    figures : dict
        For metrics.json.
    """

    predictions: dict[str, Predictions]
    decisions: dict[str, Decisions | None]
    fusion: Fusion
    figures: dict[str, Any]


def fuse_cells(
    settings: FitSettings,
    gathered: Gathered,
    cells: Cells,
    said: Estimate,
    of_cells: CellHeads,
    progress: Progress,
) -> FusedEstimate:
    """Fuse what heads of images and of cells said of held-out images, and compare weights and pools.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
        The images.
    cells : Cells
    said : Estimate
        Of the images.
    of_cells : CellHeads
    progress : callable

    Returns
    -------
    FusedEstimate
    """
    images, folds = gathered.images, gathered.folds
    many = images.targets.is_many
    pool = settings.pool_of(many=many)

    def of_images(predictions: Predictions, how: Pool) -> Predictions:
        return pool_predictions(predictions, cells.parents, images.n_images, how, many=many)

    image, own = overall(said.predictions), overall(of_cells.predictions)
    by_pool = {how: of_images(own, how) for how in POOLS}
    fusion = fuse(image, by_pool[pool], folds, images.targets)
    alone = [1.0] * len(folds)
    predictions = {CELLS: fuse_at(image, by_pool[pool], folds, alone), FUSED: fusion.predictions}
    table: list[dict[str, Any]] = []
    for place, weight in enumerate(_ENDS):
        progress("fusion of images and cells", place, len(_ENDS))
        row = {how: fuse_at(image, by_pool[how], folds, [weight] * len(folds)) for how in POOLS}
        table.append({"weight": weight} | {how: _headline(settings, gathered, each) for how, each in row.items()})
    by_head = {
        name: fuse_at(said.predictions[name], of_images(each, pool), folds, alone)
        for name, each in of_cells.predictions.items()
    }
    return FusedEstimate(
        predictions=predictions,
        decisions={name: decided(settings, gathered, each) for name, each in predictions.items()},
        fusion=fusion,
        figures={
            "n_cells": len(cells.ids),
            "n_quarantined": cells.n_quarantined,
            "n_images_with_cells": cells.n_images,
            "n_images_without_cells": images.n_images - cells.n_images,
            "n_views_averaged": cells.n_averaged,
            "pool": pool,
            "weight": fusion.weight,
            "weights_in_folds": list(fusion.in_folds),
            "table": table,
            "heads": {name: _scored(settings, gathered, each) for name, each in by_head.items()},
        },
    )


def _headline(settings: FitSettings, gathered: Gathered, predictions: Predictions) -> dict[str, float]:
    """Compute the headline figures, thresholds chosen inside the folds, and what a weight is chosen by."""
    decisions = decided(settings, gathered, predictions, n_resamples=0)
    targets = gathered.images.targets
    calibrated = [calibrated_loss(repeat, targets) for repeat in predictions.averaged]
    return mean_headline(targets, predictions, decisions) | {"calibrated_log_loss": sum(calibrated) / len(calibrated)}


def _scored(settings: FitSettings, gathered: Gathered, predictions: Predictions) -> Mapping[str, Any]:
    """Compute the headline figures with their intervals."""
    images = gathered.images
    figures = score_out_of_fold(
        images.targets,
        predictions,
        decided(settings, gathered, predictions, n_resamples=0),
        gathered.folds,
        images.classes,
        images.groups,
        seed=settings.seed,
    )
    return {key: figures[key] for key in headline_names(many=images.targets.is_many)}
