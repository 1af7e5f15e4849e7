"""The leak guard: what may make an estimate too good before anything is fitted, and how far test images are from training images."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np

from features_cache.errors import RecipeMismatch
from features_cache.reader import FeatureCache
from heads.arrays import ImageArray
from heads.features import CachedImages, FirstView
from heads.fitted import check_blocks
from heads.folds import fold_numbers
from heads.gather import Gathered, drawn_folds
from heads.leaks.clusters import clusters, groups_with_clusters
from heads.leaks.near_duplicates import NearDuplicates, find_near_duplicates
from heads.leaks.report import across_folds, further_warnings, leak_warnings, leaks_table
from heads.leaks.shift import Shift, train_test_shift
from heads.settings import FitSettings
from heads.sizes import MOST_COMPARED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewImages:
    """Features of the test images, as far as they can be compared.

    Parameters
    ----------
    ids : tuple of str
        Of those that are not quarantined.
    X : ImageArray or None
        Shape (n_images, n_views, n_columns); None without a test cache, or where it holds other features.
    warnings : tuple of str
    """

    ids: tuple[str, ...]
    X: ImageArray | None
    warnings: tuple[str, ...]


def read_new_images(settings: FitSettings, gathered: Gathered) -> NewImages:
    """Read the test images' features, no more views than training images have; where these stay on the disk, so do they.

    Raises
    ------
    CacheError, ForeignCache
        If there is a test cache that cannot be read.
    """
    if settings.test_features is None:
        return NewImages(ids=(), X=None, warnings=())
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(FeatureCache(settings.test_features))
        try:
            names = check_blocks(str(settings.test_features), gathered.blocks, cache.blocks)
        except RecipeMismatch as error:
            text = f"training and test images were not compared, and `cli submit` would refuse: {error}"
            return NewImages(ids=(), X=None, warnings=(text,))
        rows = np.flatnonzero(cache.good)
        cache.require_sound(rows)
        ids = tuple(cache.ids[row] for row in rows.tolist())
        stack.pop_all()  # the images keep their cache open
    images = CachedImages(cache, rows, min(gathered.features.n_views, cache.n_views))
    return NewImages(ids=ids, X=images.load(names) if gathered.memory is None else images.array(names), warnings=())


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


def guarded(settings: FitSettings, gathered: Gathered) -> tuple[Gathered, Guard]:
    """Look for near-duplicates, keep them together if asked to, and compare test images with training images.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered

    Returns
    -------
    Gathered
        As given; in other groups and folds with ``group_near_duplicates``.
    Guard

    Raises
    ------
    CacheError, ForeignCache
        If the test cache cannot be read.
    OptionError, LabelError
        If near-duplicates leave too few groups for the folds.
    """
    images = gathered.images
    X = gathered.features.scored(images.n_images)
    new = read_new_images(settings, gathered)
    _, alike = np.unique(images.targets.members, axis=0, return_inverse=True)
    most_fitted = MOST_COMPARED if gathered.memory is None else gathered.memory.compared_images
    further = gathered.features.further(images.n_images)
    found = find_near_duplicates(X, alike.reshape(-1).astype(np.int64), new.X, further, most_fitted=most_fitted)
    if settings.group_near_duplicates:
        gathered = _regrouped(settings, gathered, found)
        images = gathered.images
    number = fold_numbers(gathered.folds, images.n_images)
    shift = None
    if new.X is not None:
        shift = train_test_shift(
            FirstView(X), FirstView(new.X), images.groups, seed=settings.seed, memory=gathered.memory
        )
    is_grouped = settings.group_near_duplicates
    warnings = leak_warnings(found, images.ids, new.ids, number, is_grouped=is_grouped)
    warnings += further_warnings(found, images.ids, gathered.further_ids, is_grouped=is_grouped)
    table = leaks_table(found, images.ids, new.ids, number, gathered.further_ids)
    return gathered, Guard(
        warnings=(*new.warnings, *warnings),
        notes=() if shift is None else (shift if isinstance(shift, str) else shift.sentence,),
        table=table.to_csv(index=False, lineterminator="\n").encode(),
        description={
            "near_duplicates": _told(settings, found, int(across_folds(found, number).sum())),
            "shift": dataclasses.asdict(shift) if isinstance(shift, Shift) else None,
        },
    )


def _regrouped(settings: FitSettings, gathered: Gathered, found: NearDuplicates) -> Gathered:
    """Make near-duplicates one group, so that no fold parts them, and leave out further images that are one of scored ones."""
    images = gathered.images
    linked = clusters(found.train.places, images.n_images)
    groups, told = groups_with_clusters(images.groups, linked, n_folds=settings.folds)
    firsts = np.unique(groups, return_index=True)[1].tolist()
    own = images.ids if images.groups is None else [images.group_names[group] for group in images.groups.tolist()]
    names = [own[place] for place in firsts]
    images = dataclasses.replace(images, groups=groups, group_names=tuple(names), warnings=(*images.warnings, *told))
    left_out = images.n_images + np.unique(found.further.places[:, 1])
    return dataclasses.replace(gathered, images=images, folds=drawn_folds(settings, images), left_out=left_out)


def _told(settings: FitSettings, found: NearDuplicates, n_across: int) -> dict[str, Any]:
    return {
        "threshold": dataclasses.asdict(found.threshold),
        "test_threshold": dataclasses.asdict(found.other_threshold),
        "n_pairs": len(found.train),
        "n_pairs_across_folds": n_across,
        "n_pairs_of_different_labels": found.n_differing,
        "n_pairs_with_test": len(found.test),
        "n_pairs_with_further": len(found.further) if found.n_further else None,
        "truncated": found.truncated,
        "grouped": settings.group_near_duplicates,
    }
