"""What `fit_heads` learns from: labels joined to features, folds, and what is known of them before anything is fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from features_cache.errors import OptionError, did_you_mean
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from heads.arrays import Float32
from heads.class_weights import positive_weights, sample_weights
from heads.extra import read_extra
from heads.feature_rows import FeatureRows
from heads.folds import Fold, check_folds, make_folds
from heads.labelled import LabelledImages, join_labels
from heads.labels import labels_from_folders, read_labels, separator_of
from heads.problem import TrainingData
from heads.resample import copies
from heads.settings import FitSettings
from heads.targets import Targets


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
    X : float32 array, shape (len(targets), n_views, n_columns)
    blocks : tuple of Block
        Its columns.
    folds : tuple of Fold
    n_averaged : int
        How many views a prediction is averaged over.
    """

    images: LabelledImages
    content: list[str]
    targets: Targets
    X: Float32
    blocks: tuple[Block, ...]
    folds: tuple[Fold, ...]
    n_averaged: int


def gather(settings: FitSettings) -> Gathered:
    """Read labels and features, and draw folds.

    Raises
    ------
    CacheError, ForeignCache
        If a cache cannot be read.
    TableError, LabelError
        If the labels cannot be read or learned from.
    OptionError
        If an option makes no sense for them.
    """
    with FeatureCache(settings.features) as cache:
        images = _labelled(settings, cache)
        folds = make_folds(
            images.targets, images.groups, n_folds=settings.folds, n_repeats=settings.repeats, seed=settings.seed
        )
        check_folds(folds, images.targets, images.classes)
        blocks = _chosen_blocks(cache.blocks, settings.blocks)
        views = slice(0, 1) if settings.views == "0" else None
        cache.require_sound(images.rows)
        content = cache.content_of(images.rows)
        X = cache.load(rows=images.rows, views=views, blocks=[block.name for block in blocks])
    targets = images.targets
    if settings.extra is not None:
        extra = read_extra(settings, images, content, blocks, X.shape[1])
        targets, X = targets.join(extra.targets), np.concatenate([X, extra.X])
        images = dataclasses.replace(images, warnings=(*images.warnings, *extra.warnings))
    return Gathered(
        images=images,
        content=content,
        targets=targets,
        X=X,
        blocks=blocks,
        folds=folds,
        n_averaged=_views_averaged(settings, X.shape[1]),
    )


def training_data(settings: FitSettings, gathered: Gathered, power: float) -> TrainingData:
    """Weigh or resample images, and draw in the long tails of their features.

    What images weigh comes from all labels, as they are: it is no part of what folds choose.
    """
    targets = gathered.targets
    n_copies = np.ones(len(targets))
    if settings.resample != "none":
        n_copies = copies(
            targets.members,
            kind=settings.resample,
            most_copies=settings.most_copies,
            least_share=settings.least_share,
            seed=settings.seed,
        ).astype(np.float64)
    return TrainingData(
        rows=FeatureRows(gathered.X, power),
        targets=targets,
        # A copy of a row is a row of twice the weight: no loss tells them apart.
        weights=sample_weights(targets, settings.class_weighting) * n_copies,
        counts=n_copies,
        positive_weights=positive_weights(targets, settings.class_weighting),
        groups=gathered.images.groups,
        n_scored=gathered.images.n_images,
    )


def _labelled(settings: FitSettings, cache: FeatureCache) -> LabelledImages:
    if settings.labels is None:
        table = labels_from_folders(cache.ids)
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
        cache.ids,
        cache.good,
        source=str(settings.labels or settings.features),
        separator=separator_of(settings.label_column, settings.separator),
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
