"""The cells of labelled images: rows of a cache of their own that inherit labels, groups, folds and weights from their images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from features_cache.errors import LabelError, OptionError, listed
from features_cache.hardware import choose_device
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from heads.arrays import Indices
from heads.features import CachedImages, StoredFeatures
from heads.folds import Fold
from heads.gather import DEVICES, Gathered, ImageWeights, chosen_blocks, compared, load_features, work_of
from heads.memory import Memory, plan_memory
from heads.parents import shares
from heads.problem import TrainingData
from heads.run_folder import RUNS
from heads.settings import FitSettings
from heads.targets import Targets

_RESULTS_OF_IMAGES = 3
"""What is said of images is kept of themselves, of their cells pooled, and of both fused."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Cells of images that are held out in turn.

    Parameters
    ----------
    ids : tuple of str
    parents : int64 array, shape (n_cells,)
        The place of each one's image.
    cached : CachedImages
        Their features.
    targets : Targets
        Those of their images.
    blocks : tuple of Block
        Their columns.
    folds : tuple of Fold
        Those of their images.
    n_averaged : int
        How many views a prediction is averaged over.
    memory : Memory or None
        The limit that the features do not fit; None where they may be in memory.
    n_quarantined : int
        Cells of these images that have no features.
    n_images : int
        Images with a cell.
    warnings : tuple of str
    """

    ids: tuple[str, ...]
    parents: Indices
    cached: CachedImages
    targets: Targets
    blocks: tuple[Block, ...]
    folds: tuple[Fold, ...]
    n_averaged: int
    memory: Memory | None
    n_quarantined: int
    n_images: int
    warnings: tuple[str, ...]


def read_cells(settings: FitSettings, gathered: Gathered) -> Cells | None:
    """Find the cells of images, and all that could keep heads from being fitted on them; their features are not read yet.

    Cells of images that are not learned from (without a label, of an excluded class, quarantined) are left out.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
        The images, in their final folds.

    Returns
    -------
    Cells or None
        None where the settings name no cache of cells.

    Raises
    ------
    OptionError
        If it knows no parents, lacks a block, the memory limit is too small, or a fold holds out no cell.
    LabelError
        If cells are of other images, or none is of these.
    CacheError, ForeignCache
        If it cannot be read.
    """
    if settings.cells is None:
        return None
    images = gathered.images
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(FeatureCache(settings.cells))
        named, warnings = _parents_of(settings, cache)
        place_of = {image_id: place for place, image_id in enumerate(images.ids)}
        parents = np.array([place_of.get(name, -1) for name in named], dtype=np.int64)
        rows = np.flatnonzero((parents >= 0) & cache.good)
        if not len(rows):
            msg = f"{settings.cells}: none of its {cache.n_images} cells is of one of the {images.n_images} images to learn from; expected some"
            raise LabelError(msg)
        n_other = int((parents < 0).sum())
        if n_other:
            warnings.append(f"{settings.cells}: {n_other} cells are of images that are not learned from; left out, too")
        n_quarantined = int(((parents >= 0) & ~cache.good).sum())
        parents = parents[rows]
        blocks = chosen_blocks(cache.blocks, settings.blocks)
        n_views = 1 if settings.views == "0" else cache.n_views
        ids = tuple(cache.ids[row] for row in rows.tolist())
        targets = images.targets.take(parents)
        folds = tuple(_of_cells(fold, parents, images.n_images) for fold in gathered.folds)
        _check_folds(settings, folds, targets)
        cached = CachedImages(cache, rows, n_views)
        stack.pop_all()  # the cells keep their cache open
    lost = [name for name, count in zip(images.classes, targets.counts, strict=True) if not count]
    if lost:
        warnings.append(f"{settings.cells}: no cell is of an image of {listed(lost)}: of these, cells say nothing")
    n_averaged, _ = compared(settings.test_cells, n_views)
    of_images = work_of(
        settings,
        gathered.targets,
        gathered.blocks,
        n_views=gathered.features.n_views,
        n_averaged=gathered.n_averaged,
    )
    kept = _RESULTS_OF_IMAGES * of_images.results
    work = work_of(settings, targets, blocks, n_views=n_views, n_averaged=n_averaged, kept=kept)
    memory = plan_memory(settings.memory_limit, work, RUNS if settings.out is None else settings.out.parent)
    cached.require_sound()
    cached.require_finite([block.name for block in blocks])
    return Cells(
        ids=ids,
        parents=parents,
        cached=cached,
        targets=targets,
        blocks=blocks,
        folds=folds,
        n_averaged=n_averaged,
        memory=memory,
        n_quarantined=n_quarantined,
        n_images=len(np.unique(parents)),
        warnings=tuple(warnings),
    )


def _parents_of(settings: FitSettings, cache: FeatureCache) -> tuple[Sequence[str], list[str]]:
    """Return each cell's image by name; all must be images of the cache of images."""
    if cache.parents is None:
        msg = f"{cache.path}: its images have no parents; expected cells of images. Make them with `cli featurize --cells DIR`"
        raise OptionError(msg)
    with FeatureCache(settings.features) as images:
        unknown = sorted(set(cache.parents) - set(images.ids))
    if not unknown:
        return cache.parents, []
    found = f"{cache.path}: {len(unknown)} images of its cells are not in {settings.features} ({listed(unknown, 5)})"
    if not settings.ignore_unlabelled:
        msg = (
            f"{found}; expected cells of these images. Featurize both from the same images, or add --ignore-unlabelled"
        )
        raise LabelError(msg)
    return cache.parents, [f"{found}; left out"]


def _of_cells(fold: Fold, parents: Indices, n_images: int) -> Fold:
    """Divide cells as their images are."""
    is_held_out = np.zeros(n_images, dtype=bool)
    is_held_out[fold.held_out] = True
    return dataclasses.replace(
        fold, train=np.flatnonzero(~is_held_out[parents]), held_out=np.flatnonzero(is_held_out[parents])
    )


def _check_folds(settings: FitSettings, folds: Sequence[Fold], targets: Targets) -> None:
    for fold in folds:
        if not len(fold.held_out) or not targets.take(fold.train).can_be_learned:
            msg = (
                f"{settings.cells}: its {len(targets)} cells are of so few images that fold {fold.number + 1} of {settings.folds} has "
                f"none to hold out, or too few classes to learn; expected cells in each. Use fewer --folds, or leave --cells out"
            )
            raise OptionError(msg)


def cell_training_data(
    settings: FitSettings, gathered: Gathered, cells: Cells, of_images: ImageWeights, power: float
) -> TrainingData:
    """Let cells weigh what their images do, and draw in the long tails of their features.

    An image of forty cells counts as one of four does: each cell has its image's weight divided by the number of its cells.
    Otherwise crowded images would decide what is learned, and class weights, which count images, would not balance classes.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
    cells : Cells
    of_images : ImageWeights
    power : float

    Returns
    -------
    TrainingData
        Cells of an image are one group, and are judged together.
    """
    images, parents = gathered.images, cells.parents
    share = shares(parents)
    features = (
        load_features([cells.cached], cells.blocks)
        if cells.memory is None
        else StoredFeatures([cells.cached], cells.blocks, cells.memory)
    )
    return TrainingData(
        rows=features.rows(power, torch.device(choose_device(settings.device, DEVICES))),
        targets=cells.targets,
        weights=of_images.weights[parents] * share,
        counts=of_images.counts[parents] * share,
        positive_weights=of_images.positive_weights,
        groups=parents if images.groups is None else images.groups[parents],
        memory=cells.memory,
        parents=parents,
    )
