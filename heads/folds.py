"""Folds: which images are held out together. They cut the image axis only, and never cut through a group."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from features_cache.errors import LabelError, OptionError
from heads.arrays import Indices
from heads.stratify import iterative_folds
from heads.targets import OneLabel, Targets


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One division of the images.

    Parameters
    ----------
    repeat, number : int
        Which repeat of the folds, which fold of it; from 0.
    train, held_out : int64 array
        Places in the array of images that was divided, ascending, disjoint.
    """

    repeat: int
    number: int
    train: Indices
    held_out: Indices


def require_folds(n_folds: int, n_repeats: int) -> None:
    """Refuse numbers of folds and repeats that divide nothing.

    Raises
    ------
    OptionError
        If there are fewer than 2 folds, or no repeat.
    """
    if n_folds < 2 or n_repeats < 1:
        msg = f"--folds {n_folds} --repeats {n_repeats}; expected at least 2 folds and 1 repeat"
        raise OptionError(msg)


def fold_numbers(folds: Sequence[Fold], n_images: int) -> Indices:
    """Return the fold in which each image is held out, in each repeat.

    Returns
    -------
    int64 array, shape (n_repeats, n_images)
    """
    numbers = np.zeros((1 + max(fold.repeat for fold in folds), n_images), dtype=np.int64)
    for fold in folds:
        numbers[fold.repeat, fold.held_out] = fold.number
    return numbers


def make_folds(
    targets: Targets, groups: Indices | None, *, n_folds: int, n_repeats: int = 1, seed: int = 0
) -> tuple[Fold, ...]:
    """Divide images into stratified folds, by group where there are groups.

    Of one label, repeat ``r`` is scikit-learn's ``StratifiedGroupKFold`` (or ``StratifiedKFold``) with ``shuffle=True`` and
    ``random_state=seed + r`` over the given order; of many, it is stratified iteratively (:mod:`heads.stratify`) with that seed.

    Parameters
    ----------
    targets : Targets
    groups : int64 array, shape (n_images,), or None
        Group indices.
    n_folds : int
        At least 2.
    n_repeats : int
        How many times to divide anew.
    seed : int
        Of the first repeat.

    Returns
    -------
    tuple of Fold, length n_repeats * n_folds

    Raises
    ------
    OptionError
        If there are fewer images, groups or images of the largest class than folds, or numbers below their least.
    """
    require_folds(n_folds, n_repeats)
    n_units, unit = (len(targets), "images") if groups is None else (len(np.unique(groups)), "groups")
    if n_units < n_folds:
        advice = f"Use --folds {n_units}" if n_units > 1 else f"Give more {unit}, or another --group-column"
        msg = f"--folds {n_folds}: there are only {n_units} {unit}; expected at least one a fold. {advice}"
        raise OptionError(msg)
    most = n_folds if targets.is_many else int(targets.counts.max())
    if most < n_folds:
        advice = f"Use --folds {most}" if most > 1 else "Give more images of each class"
        msg = f"--folds {n_folds}: the largest class has only {most} images; expected at least one a fold. {advice}"
        raise OptionError(msg)
    folds = []
    for repeat in range(n_repeats):
        for number, (train, held_out) in enumerate(_split(targets, groups, n_folds, seed + repeat)):
            folds.append(Fold(repeat=repeat, number=number, train=train, held_out=held_out))
    if not all(len(fold.held_out) for fold in folds):
        msg = f"--folds {n_folds}: the groups are too unequal, a fold would hold out no image. Use fewer folds"
        raise OptionError(msg)
    return tuple(folds)


def _split(targets: Targets, groups: Indices | None, n_folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    if isinstance(targets, OneLabel):
        return _split_one(targets.labels, groups, n_folds, seed)
    number = iterative_folds(targets.members, groups, n_folds=n_folds, seed=seed)
    return [(np.flatnonzero(number != fold), np.flatnonzero(number == fold)) for fold in range(n_folds)]


def _split_one(labels: Indices, groups: Indices | None, n_folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    # scikit-learn refuses (or warns of) classes smaller than the number of folds; images of such a class are dealt to as
    # many folds as it has images, and `check_folds` looks at what that means for training.
    places = np.zeros((len(labels), 1))
    with _quiet():
        if groups is not None:
            splits = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(places, labels, groups)
        else:
            splits = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(places, labels)
        return [(train.astype(np.int64), held_out.astype(np.int64)) for train, held_out in splits]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield


def check_folds(folds: Sequence[Fold], targets: Targets, classes: Sequence[str]) -> None:
    """Check, before anything is fitted, that every class occurs in every training part.

    Parameters
    ----------
    folds : sequence of Fold
    targets : Targets
    classes : sequence of str, length n_classes

    Raises
    ------
    LabelError
        If a class has no image in the training part of a fold: no head could learn it there.
    """
    absent = np.any([targets.take(fold.train).counts == 0 for fold in folds], axis=0)
    lost = [name for name, is_lost in zip(classes, absent, strict=True) if is_lost]
    if not lost:
        return
    counts = dict(zip(lost, targets.counts[absent].tolist(), strict=True))
    shown = ", ".join(f"{name!r} ({count} images)" for name, count in list(counts.items())[:20])
    n_folds = 1 + max(fold.number for fold in folds)
    ways = []
    if n_folds > 2 and min(counts.values()) > 1:
        ways.append(f"use fewer folds (--folds {max(2, n_folds - 2)})")
    if max(counts.values()) > 1:
        ways.append("name a finer group column, if classes and groups coincide")
    if len(classes) - len(lost) > 1:
        ways.append(f"leave them out (--exclude-class {shlex.quote(','.join(lost))})")
    msg = (
        f"{len(lost)} classes would vanish from the training part of a fold: {shown}, all in one of {n_folds} folds; "
        f"{', or '.join(ways) or 'give more images of each class'}"
    )
    raise LabelError(msg)


def inner_folds(targets: Targets, groups: Indices | None, *, n_folds: int, seed: int) -> tuple[Fold, ...]:
    """Divide the training images of a fold again, to choose settings by; by group too.

    A fold whose training part lacks a class is kept: a head that never saw a class gives it no probability, which is a
    handicap for every candidate alike. See :func:`heads.out_of_fold.out_of_fold`.

    Parameters
    ----------
    targets : Targets
        Of the training images only.
    groups : int64 array, shape (n_train,), or None
    n_folds : int
        At least 2; fewer are made where there are fewer groups.
    seed : int

    Returns
    -------
    tuple of Fold
        Places within the training images; empty where they cannot be divided, as in a single group.
    """
    n_units = len(targets) if groups is None else len(np.unique(groups))
    n_folds = min(n_folds, n_units, int(targets.counts.max()))
    if n_folds < 2:
        return ()
    splits = enumerate(_split(targets, groups, n_folds, seed))
    folds = (Fold(repeat=0, number=number, train=train, held_out=held_out) for number, (train, held_out) in splits)
    return tuple(fold for fold in folds if len(fold.held_out))
