"""The leak guard: what may make an estimate too good before anything is fitted, and how far test images are from training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from features_cache.errors import RecipeMismatch
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from heads.arrays import Float32, Indices
from heads.clusters import clusters, groups_with_clusters
from heads.fitted import check_blocks
from heads.folds import Fold
from heads.labelled import LabelledImages
from heads.leaks import across_folds, leak_warnings, leaks_table
from heads.near_duplicates import NearDuplicates, find_near_duplicates
from heads.settings import FitSettings
from heads.shift import Shift, train_test_shift


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewImages:
    """Features of the test images, as far as they can be compared.

    Parameters
    ----------
    ids : tuple of str
        Of those that are not quarantined.
    X : float32 array, shape (n_images, n_views, n_columns), or None
        None without a test cache, or where it holds other features.
    warnings : tuple of str
    """

    ids: tuple[str, ...]
    X: Float32 | None
    warnings: tuple[str, ...]


def read_new_images(settings: FitSettings, blocks: Sequence[Block], n_views: int) -> NewImages:
    """Read the test images' features, no more views than training images have.

    Raises
    ------
    CacheError, ForeignCache
        If there is a test cache that cannot be read.
    """
    if settings.test_features is None:
        return NewImages(ids=(), X=None, warnings=())
    with FeatureCache(settings.test_features) as cache:
        try:
            names = check_blocks(str(settings.test_features), blocks, cache.blocks)
        except RecipeMismatch as error:
            text = f"training and test images were not compared, and `cli submit` would refuse: {error}"
            return NewImages(ids=(), X=None, warnings=(text,))
        rows = np.flatnonzero(cache.good)
        cache.require_sound(rows)
        X = cache.load(rows=rows, views=slice(0, min(n_views, cache.n_views)), blocks=names)
        return NewImages(ids=tuple(cache.ids[row] for row in rows.tolist()), X=X, warnings=())


def find_copies(images: LabelledImages, X: Float32, test: NewImages) -> NearDuplicates:
    """Compare all images with each other, and with the test images."""
    _, alike = np.unique(images.targets.members, axis=0, return_inverse=True)
    return find_near_duplicates(X, alike.reshape(-1).astype(np.int64), test.X)


def group_copies(settings: FitSettings, images: LabelledImages, found: NearDuplicates) -> LabelledImages:
    """Make near-duplicates one group, so that no fold parts them."""
    linked = clusters(found.train.places, images.n_images)
    groups, told = groups_with_clusters(images.groups, linked, n_folds=settings.folds)
    names = [f"{images.ids[place]} and its like" for place in np.unique(groups, return_index=True)[1].tolist()]
    return dataclasses.replace(images, groups=groups, group_names=tuple(names), warnings=(*images.warnings, *told))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the guard saw.

    Parameters
    ----------
    warnings : tuple of str
    notes : tuple of str
        How far test images are from training images.
    table : bytes
        near_duplicates.csv.
    description : dict
        For run.json.
    """

    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    table: bytes
    description: dict[str, Any]


def guard(
    settings: FitSettings,
    images: LabelledImages,
    X: Float32,
    test: NewImages,
    found: NearDuplicates,
    folds: Sequence[Fold],
) -> Guard:
    """Say what near-duplicates do to these folds, and how far test images are from training images.

    Parameters
    ----------
    settings : FitSettings
    images : LabelledImages
    X : float32 array, shape (n_images, n_views, n_columns)
    test : NewImages
    found : NearDuplicates
    folds : sequence of Fold
        Those of the first repeat are looked at.
    """
    number = _numbers(folds, images.n_images)
    warnings = leak_warnings(found, images.ids, test.ids, number, is_grouped=settings.group_near_duplicates)
    table = leaks_table(found, images.ids, test.ids, number)
    shift = None if test.X is None else train_test_shift(X[:, 0], test.X[:, 0], images.groups, seed=settings.seed)
    notes = () if shift is None else (shift if isinstance(shift, str) else shift.sentence,)
    return Guard(
        warnings=(*test.warnings, *warnings),
        notes=notes,
        table=table.to_csv(index=False, lineterminator="\n").encode(),
        description={
            "near_duplicates": {
                "threshold": dataclasses.asdict(found.threshold),
                "test_threshold": dataclasses.asdict(found.other_threshold),
                "n_pairs": len(found.train),
                "n_pairs_across_folds": int(across_folds(found, number).sum()),
                "n_pairs_of_different_labels": found.n_differing,
                "n_pairs_with_test": len(found.test),
                "truncated": found.truncated,
                "grouped": settings.group_near_duplicates,
            },
            "shift": dataclasses.asdict(shift) if isinstance(shift, Shift) else None,
        },
    )


def _numbers(folds: Sequence[Fold], n_images: int) -> Indices:
    number = np.zeros(n_images, dtype=np.int64)
    for fold in folds:
        if fold.repeat == 0:
            number[fold.held_out] = fold.number
    return number
