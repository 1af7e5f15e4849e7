"""The story of `fit-heads`: features and labels in, a run folder out."""

from __future__ import annotations

import dataclasses

from features_cache.progress import Progress, silent
from heads.ablation import ablate, require_blocks
from heads.cell_data import read_cells
from heads.cell_heads import fit_cells
from heads.clock import Clock
from heads.description import describe_cells, describe_run, metrics_of
from heads.estimate import Estimate, estimate
from heads.final_fit import fit_finals
from heads.fitted import FittedHead
from heads.fused_estimate import fuse_cells
from heads.gather import Gathered, gather, image_weights, training_data
from heads.leaks.guard import guarded
from heads.metrics.scoring import score_out_of_fold
from heads.run_files import cell_files, head_files, oof_csv, pictures
from heads.run_folder import Run, choose_folder, json_bytes, list_runs, publish_run
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
    cells = read_cells(settings, gathered)
    kinds = settings.kinds
    clock.lap("read_s")

    said, fitted = _of_images(settings, gathered, progress, clock)
    ablation = None
    if settings.ablate:
        ablation = ablate(settings, gathered, kinds, said, progress)
        clock.lap("ablation_s")

    images, weights, together = gathered.images, image_weights(settings, gathered), said
    files: dict[str, bytes] = {}
    of_cells = fused = None
    if cells is not None:
        # What is twenty times as much comes when the images' features have gone.
        gathered = gathered.without_features()
        of_cells = fit_cells(settings, gathered, cells, weights, kinds, progress)
        fused = fuse_cells(settings, gathered, cells, said, of_cells, progress)
        together = dataclasses.replace(
            said,
            predictions=said.predictions | fused.predictions,
            decisions=said.decisions | fused.decisions,
        )
        files |= cell_files(images, gathered.folds, cells, of_cells)
        clock.lap("cells_s")

    scores = {
        name: score_out_of_fold(
            images.targets,
            predictions,
            together.decisions[name],
            gathered.folds,
            images.classes,
            images.groups,
            seed=settings.seed,
        )
        for name, predictions in together.predictions.items()
    }
    metrics = metrics_of(gathered, scores)
    metrics |= {} if ablation is None else {"ablation": ablation}
    metrics |= {} if fused is None else {"cells": fused.figures}
    clock.lap("metrics_s")

    files |= {
        "metrics.json": json_bytes(metrics),
        "oof.csv": oof_csv(images, gathered.folds, together.predictions),
        "near_duplicates.csv": seen.table,
        "images.json": json_bytes(dict(zip(images.ids, gathered.content, strict=True))),
        **head_files(fitted),
        **pictures(metrics, images, kinds, said.found),
    }
    clock.lap("pictures_s")
    progress("writing the run", len(kinds), len(kinds))
    description = describe_run(settings, gathered, seen, weights, together, metrics)
    if cells is not None and of_cells is not None and fused is not None:
        description["cells"] = describe_cells(cells, of_cells, fused)
    folder = publish_run(folder, files, description | {"timings": clock.laps}, numbered=settings.out is None)
    return Run(
        folder=folder,
        metrics=metrics,
        warnings=(*images.warnings, *seen.warnings, *(() if cells is None else cells.warnings)),
        notes=seen.notes,
        search=description["search"],
    )


def _of_images(
    settings: FitSettings, gathered: Gathered, progress: Progress, clock: Clock
) -> tuple[Estimate, tuple[FittedHead, ...]]:
    """Predict every image by heads that never saw it, and fit each head on all images."""
    data = training_data(settings, gathered, POWER)
    said = estimate(settings, gathered, data, settings.kinds, progress)
    clock.lap("folds_s")
    images = gathered.images
    prior = settings.prior_of(many=images.targets.is_many)
    fitted = fit_finals(
        settings.kinds,
        data,
        said.found,
        classes=images.classes,
        blocks=gathered.blocks,
        prior=prior,
        progress=progress,
    )
    clock.lap("final_fit_s")
    return said, fitted
