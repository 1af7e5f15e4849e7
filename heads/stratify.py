"""Stratification of many labels: each fold holds its share of every class, where an image may be of several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import LabelError, OptionError
from heads.arrays import Float64, Indices

# Candidates for a swap, of each of two folds; a table of this many squared is 2 MB.
_N_CANDIDATES = 512
# Swaps in all: 471 were made for 31,072 images of 28 classes in 5 folds, at a millisecond each.
_MOST_SWAPS = 5000


def iterative_folds(members: NDArray[np.bool_], groups: Indices | None, *, n_folds: int, seed: int) -> Indices:
    """Deal images of many labels to folds, by group where there are groups.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): again and again the class with the fewest images left
    is dealt, each image to the fold that lacks most of that class; of equal folds, to the one that lacks most images, then
    by lot. A group is one unit that brings the summed counts of its images, and groups with many images of the class go first.

    Then units are swapped between folds, or moved, while that lowers the sum over folds and classes of
    ``((count - share) / largest)**2``, where ``largest`` is the most images of the class in one unit. The number of images
    is one more class here, so folds are of equal size too. That a class is missing from a fold weighs more than any such sum.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
        Which classes each image is of; none is allowed.
    groups : int64 array, shape (n_images,), or None
        Group indices. A group is never cut.
    n_folds : int
        At least 2.
    seed : int
        At least 0. The lot is PCG64's raw stream and all else is whole numbers, so folds are the same on every machine.

    Returns
    -------
    int64 array, shape (n_images,)
        The fold that holds each image out, 0 to n_folds - 1.

    Raises
    ------
    OptionError
        If there are fewer images or groups than folds.
    LabelError
        If ``groups`` is not one for each image.

    Examples
    --------
    >>> members = np.array([[1, 0], [1, 1], [1, 1], [1, 0]], dtype=bool)
    >>> folds = iterative_folds(members, None, n_folds=2, seed=0)
    >>> [members[folds == fold].sum(axis=0).tolist() for fold in (0, 1)]
    [[2, 1], [2, 1]]
    """
    n_images = len(members)
    if groups is not None and len(groups) != n_images:
        msg = f"{len(groups)} groups for {n_images} images; expected one for each. Give the group of each row of `members`"
        raise LabelError(msg)
    units = np.arange(n_images) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    n_units, unit = (int(units.max(initial=-1)) + 1, "images" if groups is None else "groups")
    if n_folds < 2 or n_units < n_folds:
        advice = f"Use --folds {n_units}" if n_units > 1 else f"Give more {unit}"
        msg = f"--folds {n_folds} with {n_units} {unit}; expected at least 2 folds, and a unit for each. {advice}"
        raise OptionError(msg)
    # The last column counts images: a class that every image is of.
    counts = np.zeros((n_units, members.shape[1] + 1), dtype=np.int64)
    np.add.at(counts, units, np.column_stack([members, np.ones(n_images, dtype=bool)]).astype(np.int64))
    lots = np.random.PCG64(seed).random_raw(n_units * (n_folds + 1)).reshape(n_folds + 1, n_units)
    folds = _deal(counts, lots[0], lots[1:].T)
    return _even_out(counts, folds, n_folds, lots[0])[units]


def _deal(counts: Indices, order: NDArray[np.uint64], ties: NDArray[np.uint64]) -> Indices:
    """Deal units to folds, the rarest class that is left first; the last column, all images, at the very end."""
    n_units, n_columns = counts.shape
    n_folds = ties.shape[1]
    folds = np.full(n_units, -1, dtype=np.int64)
    # Times n_folds, so that a share is a whole number.
    lacking = np.tile(counts.sum(axis=0), (n_folds, 1))
    while (waiting := np.flatnonzero(folds < 0)).size:
        left = counts[waiting].sum(axis=0)
        classes = np.flatnonzero(left[:-1])
        rarest = int(classes[left[classes].argmin()]) if classes.size else n_columns - 1
        here = waiting[counts[waiting, rarest] > 0]
        here = here[np.lexsort((order[here], -counts[here, rarest]))]
        for unit, tie in zip(here.tolist(), ties[here].tolist(), strict=True):
            of_class, of_images = lacking[:, rarest].tolist(), lacking[:, -1].tolist()
            fold = max((of_class[fold], of_images[fold], tie[fold], fold) for fold in range(n_folds))[-1]
            folds[unit] = fold
            lacking[fold] -= n_folds * counts[unit]
    return folds


def _even_out(counts: Indices, folds: Indices, n_folds: int, order: NDArray[np.uint64]) -> Indices:
    """Swap units between folds, or move them, while that makes the folds more alike."""
    # Units with the same counts can stand for each other, and there are few kinds of them: 577 among 31,072 images.
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    # The last kind is no unit at all: a swap with it is a move.
    kinds = np.vstack([kinds, np.zeros_like(kinds[:1])])
    held = np.zeros((len(kinds), n_folds), dtype=np.int64)
    np.add.at(held, (kind, folds), 1)
    held[-1] = 1
    wanted = _swaps(kinds, held, n_folds)
    # From numbers of each kind back to units; those that may stay do, in the order of their lots.
    folds = folds.copy()
    for here in np.flatnonzero((wanted != held).any(axis=1)).tolist():
        alike = np.flatnonzero(kind == here)
        alike = alike[np.argsort(order[alike], kind="stable")]
        surplus = held[here] - wanted[here]
        leaving = np.concatenate([alike[folds[alike] == fold][: max(surplus[fold], 0)] for fold in range(n_folds)])
        folds[leaving] = np.repeat(np.arange(n_folds), np.maximum(-surplus, 0))
    return folds


def _swaps(kinds: Indices, held: Indices, n_folds: int) -> Indices:
    """Return how many units of each kind each fold holds after all swaps that help."""
    held = held.copy()
    now = held.T @ kinds
    # Whole numbers in float64, for the speed of its matrix products: below 2^53 they are exact, whatever the order of sums.
    sizes = kinds.astype(np.float64)
    weights = np.maximum(1e6 // np.maximum(sizes.max(axis=0), 1) ** 2, 1.0)
    pairs = [(one, other) for one in range(n_folds) for other in range(one)]
    n_swaps, n_idle = 0, 0
    while n_idle < len(pairs) and n_swaps < _MOST_SWAPS:
        one, other = pair = pairs[0]
        swap = _best_swap(sizes, weights, held[:, pair] > 0, now[[one, other]])
        if swap is None:
            n_idle += 1
            pairs = pairs[1:] + pairs[:1]
            continue
        n_idle, n_swaps = 0, n_swaps + 1
        given, taken = swap
        now[one] -= kinds[given] - kinds[taken]
        now[other] += kinds[given] - kinds[taken]
        held[given, pair] += (-1, 1)
        held[taken, pair] += (1, -1)
        held[-1] = 1
    return held


def _best_swap(sizes: Float64, weights: Float64, is_held: NDArray[np.bool_], now: Indices) -> tuple[int, int] | None:
    """Find which kind the first of two folds should give to the second, and which it should take.

    With ``v`` what is given less what is taken, the sum of squares changes by twice
    ``v @ (weights * (second - first)) + v**2 @ weights``.

    Parameters
    ----------
    sizes : float64 array, shape (n_kinds, n_columns)
        Images of each class in a unit of each kind.
    weights : float64 array, shape (n_columns,)
    is_held : bool array, shape (n_kinds, 2)
        Which kinds each of the two folds has a unit of.
    now : int64 array, shape (2, n_columns)
        Images of each class in the two folds.

    Returns
    -------
    (int, int) or None
        Kinds; None where no swap helps.
    """
    linear = sizes @ (weights * (now[1] - now[0]))
    # Who brings a class that the other fold lacks comes first among the candidates.
    brings = [sizes[:, now[receiver] == 0].sum(axis=1) > 0 for receiver in (1, 0)]
    given, taken = np.flatnonzero(is_held[:, 0]), np.flatnonzero(is_held[:, 1])
    given = given[np.lexsort((linear[given], ~brings[0][given]))][:_N_CANDIDATES]
    taken = taken[np.lexsort((-linear[taken], ~brings[1][taken]))][:_N_CANDIDATES]
    give, take = sizes[given], sizes[taken]
    change = (linear[given] + give**2 @ weights)[:, None] + (take**2 @ weights - linear[taken])
    change -= 2 * (give * weights) @ take.T
    # Only where a fold holds no more of a class than one unit can bring may the class vanish, or appear.
    absences = np.zeros(change.shape, dtype=np.int64)
    touched = give.any(axis=0) | take.any(axis=0)
    for column in np.flatnonzero(touched & (now.min(axis=0) <= sizes.max(axis=0))).tolist():
        moved = give[:, column][:, None] - take[:, column]
        for before, after in ((now[0, column], now[0, column] - moved), (now[1, column], now[1, column] + moved)):
            absences += (after == 0).astype(np.int64) - int(before == 0)
    best = np.where(absences == absences.min(), change, np.inf)
    row, place = divmod(int(best.argmin()), len(taken))
    if absences[row, place] == 0 and best[row, place] >= 0:
        return None
    return int(given[row]), int(taken[place])
