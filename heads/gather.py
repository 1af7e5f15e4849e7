"""What `fit_heads` learns from: labels joined to features, folds, and what is known of them before anything is fitted."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from features_cache.errors import OptionError, did_you_mean
from features_cache.hardware import choose_device
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from heads.arrays import Bool, Float64, Indices
from heads.class_weights import positive_weights, sample_weights
from heads.decisions import EACH
from heads.estimators.catalogue import HeadKind
from heads.estimators.spaces import LogUniform
from heads.extra import read_extra
from heads.features import CachedImages, Features, LoadedFeatures, StoredFeatures
from heads.folds import Fold, check_folds, make_folds
from heads.labelled import LabelledImages, join_labels
from heads.labels import labels_from_folders, read_labels, separator_of
from heads.ladder import MOST_CELLS
from heads.memory import Memory, Work, plan_memory
from heads.nesting import count_of_cells, count_of_sets
from heads.problem import TrainingData
from heads.resample import copies
from heads.run_folder import RUNS
from heads.settings import FitSettings
from heads.targets import Targets

DEVICES = ("cuda", "cpu")  # sums are float64, which mps has not


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Labelled images with their features.

    Parameters
    ----------
    images : LabelledImages
        Those that are held out in turn, and scored.
    content : list of str
        blake2b-128 of each one's bytes, in hexadecimal digits.
    targets : Targets
        Of the images, then of further ones that train in every fold.
    features : Features
        Of as many images.
    blocks : tuple of Block
        Its columns.
    folds : tuple of Fold
    n_averaged : int
        How many views a prediction is averaged over.
    further_ids : tuple of str
        Of the further images.
    left_out : int64 array
        Which of all images are not learned from: further ones that are near-duplicates of scored ones.
    memory : Memory or None
        The limit that the features do not fit; None where they are in memory.
    """

    images: LabelledImages
    content: list[str]
    targets: Targets
    features: Features
    blocks: tuple[Block, ...]
    folds: tuple[Fold, ...]
    n_averaged: int
    memory: Memory | None
    further_ids: tuple[str, ...] = ()
    left_out: Indices = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def without_features(self) -> Gathered:
        """Return the same without what takes memory."""
        return dataclasses.replace(self, features=self.features.emptied())


def gather(settings: FitSettings) -> Gathered:
    """Read labels and features, and draw folds.

    Raises
    ------
    CacheError, ForeignCache
        If a cache cannot be read.
    TableError, LabelError
        If the labels cannot be read or learned from.
    OptionError
        If an option makes no sense for them, or the memory limit is too small.
    DiskFull
        If what the memory limit keeps on the disk has no room there.
    """
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(FeatureCache(settings.features))
        images = _by_parent(settings, labelled(settings, cache.ids, cache.good), cache)
        folds = drawn_folds(settings, images)
        blocks = chosen_blocks(cache.blocks, settings.blocks)
        n_views = 1 if settings.views == "0" else cache.n_views
        content = cache.content_of(images.rows)
        stack.pop_all()  # the images keep their cache open
    targets, parts = images.targets, [CachedImages(cache, images.rows, n_views)]
    further_ids: tuple[str, ...] = ()
    if settings.extra is not None:
        extra = read_extra(settings, images, content, blocks, n_views)
        targets, parts, further_ids = targets.join(extra.targets), [*parts, extra.cached], extra.ids
        images = dataclasses.replace(images, warnings=(*images.warnings, *extra.warnings))
    if settings.thresholds != EACH and not targets.is_many:
        text = f"--thresholds {settings.thresholds} is for images of many labels (--separator); here each has one, the most probable"
        images = dataclasses.replace(images, warnings=(*images.warnings, text))
    n_averaged, n_new = compared(settings.test_features, n_views)
    work = work_of(settings, targets, blocks, n_views=n_views, n_averaged=n_averaged, n_new=n_new)
    memory = plan_memory(settings.memory_limit, work, RUNS if settings.out is None else settings.out.parent)
    for part in parts:
        part.require_sound()
        part.require_finite([block.name for block in blocks])
    return Gathered(
        images=images,
        content=content,
        targets=targets,
        features=load_features(parts, blocks) if memory is None else StoredFeatures(parts, blocks, memory),
        blocks=blocks,
        folds=folds,
        n_averaged=n_averaged,
        memory=memory,
        further_ids=further_ids,
    )


def load_features(parts: Sequence[CachedImages], blocks: tuple[Block, ...]) -> LoadedFeatures:
    """Read features of images, part after part, and close their caches."""
    names = [block.name for block in blocks]
    arrays = [part.load(names) for part in parts]
    for part in parts:
        part.close()
    return LoadedFeatures(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], blocks)


def work_of(
    settings: FitSettings,
    targets: Targets,
    blocks: Sequence[Block],
    *,
    n_views: int,
    n_averaged: int,
    n_new: int = 0,
    kept: int = 0,
) -> Work:
    """Say in numbers what is to be fitted on images of these targets; see :class:`heads.memory.Work`."""
    n_cells = count_of_cells(settings.folds, extra=settings.extra is not None)
    if settings.search:
        n_cells = max(n_cells, MOST_CELLS)
    n_scores = n_probabilities = 0
    kinds = list(settings.kinds.values())
    for kind in kinds:
        n_judged = 1 + min(2 * kind.n_inner_folds, max(settings.folds, n_cells) - 1)
        n_scores += n_judged * len((*kind.watched, *kind.grid)) * kind.head.n_members
        n_probabilities += 1 + n_judged
    return Work(
        n_images=len(targets),
        n_views=n_views,
        n_columns=sum(block.columns for block in blocks),
        n_classes=targets.n_classes,
        n_cells=n_cells,
        n_sets=max(count_of_sets(settings.folds, kind.n_inner_folds) for kind in kinds),
        n_scores=-(-n_scores * n_averaged // n_views) * settings.repeats,
        n_probabilities=n_probabilities * settings.repeats,
        n_new=n_new,
        n_units=max(_n_units(kind, settings.search, targets.n_classes) for kind in kinds),
        keeps_images=any(kind.head.keeps_images for kind in kinds),
        n_copies=4 if settings.ablate else 2,
        kept=kept,
    )


def _n_units(kind: HeadKind, n_settings: int, n_classes: int) -> int:
    """Return how many units see the columns, at most, in networks that may be fitted: of the first layer, else one a class."""
    learns_by_epochs = kind.head.chosen == "epochs"
    width = kind.build(0).get_params().get("width", n_classes if learns_by_epochs else 0)
    space = kind.space.get("width")
    if n_settings and isinstance(space, LogUniform):
        width = max(width, space.high)
    return kind.head.n_members * int(width)


def drawn_folds(settings: FitSettings, images: LabelledImages) -> tuple[Fold, ...]:
    """Draw folds in which every class can be learned.

    Raises
    ------
    OptionError, LabelError
        If there are none.
    """
    folds = make_folds(
        images.targets, images.groups, n_folds=settings.folds, n_repeats=settings.repeats, seed=settings.seed
    )
    check_folds(folds, images.targets, images.classes)
    return folds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageWeights:
    """What images weigh.

    Parameters
    ----------
    weights, counts : float64 arrays, shape (n_images,)
    positive_weights : float64 array, shape (n_classes,)
        As of :class:`heads.problem.TrainingData`.
    """

    weights: Float64
    counts: Float64
    positive_weights: Float64


def image_weights(settings: FitSettings, gathered: Gathered) -> ImageWeights:
    """Weigh or resample images, by all labels as they are: it is no part of what folds choose."""
    targets = gathered.targets
    learned = np.delete(np.arange(len(targets)), gathered.left_out)
    known = targets.take(learned)
    n_copies, weights = np.zeros(len(targets)), np.zeros(len(targets))
    n_copies[learned] = 1
    weights[learned] = sample_weights(known, settings.class_weighting)
    if settings.resample != "none":
        n_copies[learned] = copies(
            known.members,
            kind=settings.resample,
            most_copies=settings.most_copies,
            least_share=settings.least_share,
            seed=settings.seed,
        )
    return ImageWeights(
        # A copy of a row is a row of twice the weight: no loss tells them apart.
        weights=weights * n_copies,
        counts=n_copies,
        positive_weights=positive_weights(known, settings.class_weighting),
    )


def training_data(settings: FitSettings, gathered: Gathered, power: float) -> TrainingData:
    """Weigh or resample images, and draw in the long tails of their features."""
    weighed = image_weights(settings, gathered)
    return TrainingData(
        rows=gathered.features.rows(power, torch.device(choose_device(settings.device, DEVICES))),
        targets=gathered.targets,
        weights=weighed.weights,
        counts=weighed.counts,
        positive_weights=weighed.positive_weights,
        groups=gathered.images.groups,
        n_scored=gathered.images.n_images,
        memory=gathered.memory,
    )


def labelled(settings: FitSettings, ids: Sequence[str], good: Bool) -> LabelledImages:
    """Read labels and join them to images.

    Parameters
    ----------
    settings : FitSettings
    ids : sequence of str, length n_images
    good : bool array, shape (n_images,)
        False for images that cannot be used.

    Raises
    ------
    LabelError, TableError
        If labels cannot be read, or do not fit the images.
    """
    if settings.labels is None:
        table = labels_from_folders(ids)
        warnings: tuple[str, ...] = ()
    else:
        table, warnings = read_labels(
            settings.labels,
            id_column=settings.id_column,
            label_column=settings.label_column,
            separator=settings.separator,
            group_column=settings.group_column,
            drop_missing=settings.drop_missing,
        )
    return join_labels(
        table,
        ids,
        good,
        source=str(settings.labels or settings.features),
        separator=separator_of(settings.label_column, settings.separator),
        grouped=settings.group_column is not None,
        exclude_class=settings.exclude_class,
        ignore_unlabelled=settings.ignore_unlabelled,
        warnings=warnings,
    )


def _by_parent(settings: FitSettings, images: LabelledImages, cache: FeatureCache) -> LabelledImages:
    """Make images that were cut from one another's parent a group, where no other groups were asked for."""
    if cache.parents is None or images.groups is not None:
        return images
    names, groups = np.unique([cache.parents[row] for row in images.rows.tolist()], return_inverse=True)
    text = f"{settings.features}: its images were cut from {len(names)} others; those of one stay in one fold"
    return dataclasses.replace(
        images,
        groups=groups.astype(np.int64),
        group_names=tuple(names.tolist()),
        warnings=(*images.warnings, text),
    )


def chosen_blocks(blocks: Sequence[Block], names: Sequence[str]) -> tuple[Block, ...]:
    """Return the blocks of a cache that were asked for, or all.

    Parameters
    ----------
    blocks : sequence of Block
    names : sequence of str
        A ``*`` stands for anything: ``*:red+green+blue`` is this blend through every network. None for all.

    Raises
    ------
    OptionError
        If it lacks one.
    """
    there = [block.name for block in blocks]
    chosen: set[str] = set()
    for name in names:
        # Not fnmatch: brackets are brackets here.
        expression = re.compile(".*".join(map(re.escape, name.split("*"))))
        found = {each for each in there if expression.fullmatch(each)}
        if not found:
            msg = f"--blocks {name}: no such block; the cache has {', '.join(there)}{did_you_mean(name, there)}"
            raise OptionError(msg)
        chosen |= found
    return tuple(block for block in blocks if not names or block.name in chosen)


def compared(test: Path | None, n_views: int) -> tuple[int, int]:
    """Return how many views are averaged, and how many images the cache of test images has.

    As many views as `submit` will find in the test cache, so that the headline speaks of what it will do.
    """
    if test is None:
        return n_views, 0
    with FeatureCache(test) as cache:
        return min(n_views, cache.n_views), cache.n_images
