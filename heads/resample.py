"""Over- and under-sampling: how often each image is learned from, as a whole number of copies."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import LabelError, OptionError, did_you_mean
from heads.arrays import Float64, Indices

Resampling = Literal["over", "under", "both"]


def copies(
    members: NDArray[np.bool_], *, kind: Resampling, most_copies: int = 10, least_share: float = 0.25, seed: int
) -> Indices:
    """Decide how many copies of each image are learned from; 0 leaves it out.

    The target is the median number of images of the classes that have any, rounded up.

    Over-sampling goes through the classes below the target, the rarest first. Images of a class are copied, those with the
    fewest copies first, until the class has reached the target or all its images have ``most_copies``. So an image is copied
    for its rarest class in the main, and what its other classes gain by it is counted when their turn comes. Afterwards each
    class has at least ``min(target, most_copies * n_k)`` copies, and a common class has gained no more than came along.

    Under-sampling goes through the classes that have more images than the target, and leaves out images, by lot, that are of
    no other class, until there are no more copies than the target, or ``least_share`` of the images are left. An image of
    several classes, or of none, always stays. ``both`` is over-sampling, then under-sampling. With one label an image and no
    limit in the way, every class then has the target.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
        Which classes each image is of.
    kind : {"over", "under", "both"}
    most_copies : int
        Of one image; at least 1.
    least_share : float
        Of the images of each class that stay; 0 to 1.
    seed : int
        At least 0. Which of several like images is taken depends on (seed, place) alone: in another order of the images
        others are taken, and what is said above still holds.

    Returns
    -------
    int64 array, shape (n_images,)
        0 to ``most_copies``; never 0 with ``"over"``, never above 1 with ``"under"``.

    Raises
    ------
    OptionError
        If the kind is not known, or a number out of range.
    LabelError
        If no image is of any class.

    Examples
    --------
    >>> members = np.eye(3, dtype=bool)[[0, 0, 0, 0, 0, 0, 1, 1, 1, 2]]
    >>> copies(members, kind="over", seed=0).tolist()
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 3]
    >>> (copies(members, kind="both", seed=0) @ members).tolist()
    [3, 3, 3]
    """
    if kind not in get_args(Resampling):
        msg = f"resampling {kind!r}; expected one of {', '.join(get_args(Resampling))}{did_you_mean(kind, get_args(Resampling))}"
        raise OptionError(msg)
    if most_copies < 1 or not 0 <= least_share <= 1:
        msg = f"most_copies {most_copies}, least_share {least_share}; expected at least 1, and 0 to 1. Use 10 and 0.25"
        raise OptionError(msg)
    n_of_class = members.sum(axis=0)
    if not n_of_class.any():
        msg = f"none of {len(members)} images is of any class; expected some that are. Give labels, or do not resample"
        raise LabelError(msg)
    target = int(np.ceil(np.median(n_of_class[n_of_class > 0])))
    lots = np.random.PCG64(seed).random_raw(len(members))
    n_copies = np.ones(len(members), dtype=np.int64)
    if kind in {"over", "both"}:
        n_copies = _copy_rare(members, target, most_copies, lots)
    if kind in {"under", "both"}:
        n_copies = _leave_out_common(members, n_copies, target, least_share, lots)
    return n_copies


def _copy_rare(members: NDArray[np.bool_], target: int, most_copies: int, lots: NDArray[np.uint64]) -> Indices:
    """Give more copies to images of classes below the target."""
    n_copies = np.ones(len(members), dtype=np.int64)
    for column in np.argsort(members.sum(axis=0), kind="stable").tolist():
        here = np.flatnonzero(members[:, column])
        here = here[np.lexsort((lots[here], n_copies[here]))]
        lacking = target - int(n_copies[here].sum())
        # One level a round: all images with the fewest copies get one more before any gets a second.
        while lacking > 0 and here.size:
            fewest = int(n_copies[here].min())
            if fewest == most_copies:
                break
            lowest = here[n_copies[here] == fewest][:lacking]
            n_copies[lowest] += 1
            lacking -= len(lowest)
    return n_copies


def _leave_out_common(
    members: NDArray[np.bool_], n_copies: Indices, target: int, least_share: float, lots: NDArray[np.uint64]
) -> Indices:
    """Leave out images whose only class is above the target."""
    n_copies = n_copies.copy()
    is_alone = members.sum(axis=1) == 1
    n_of_class = members.sum(axis=0)
    for column in np.flatnonzero(n_of_class > target).tolist():
        surplus = int(n_copies[members[:, column]].sum()) - target
        # Less a little, as 0.1 * 30 is a little more than 3.
        n_stay = int(np.ceil(least_share * n_of_class[column] - 1e-9))
        here = np.flatnonzero(is_alone & members[:, column])
        here = here[np.argsort(lots[here], kind="stable")]
        n_copies[here[: min(surplus, int(n_of_class[column]) - n_stay)]] = 0
    return n_copies


def imbalance_ratios(members: NDArray[np.bool_], weights: Indices | None = None) -> Float64:
    """Compute how much commoner the commonest class is than each class: IRLbl of Charte et al. (2015).

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    weights : int64 array, shape (n_images,), optional
        Copies of each image; 1 where not given.

    Returns
    -------
    float64 array, shape (n_classes,)
        At least 1; NaN for a class without images.

    Examples
    --------
    >>> imbalance_ratios(np.array([[1, 0], [1, 0], [1, 1]], dtype=bool)).tolist()
    [1.0, 3.0]
    """
    counts = (np.ones(len(members), dtype=np.int64) if weights is None else weights) @ members
    found = np.full(members.shape[1], np.nan)
    np.divide(counts.max(initial=0), counts, out=found, where=counts > 0)
    return found


def imbalance_report(members: NDArray[np.bool_], n_copies: Indices) -> dict[str, Any]:
    """Tell what resampling did.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    n_copies : int64 array, shape (n_images,)
        Copies of each image, of :func:`copies`.

    Returns
    -------
    dict
        JSON-able: ``n_left_out`` and ``n_copied`` (images), and for ``before`` and ``after``: ``n_rows``, ``n_of_class``
        (a list), ``mean_ratio`` and ``largest_ratio``: the mean and the largest of :func:`imbalance_ratios` over classes that
        have images, None where none has. The mean is MeanIR of Charte et al. (2015).
    """
    sides = {"before": np.ones(len(members), dtype=np.int64), "after": n_copies}
    return {"n_left_out": int((n_copies == 0).sum()), "n_copied": int((n_copies > 1).sum())} | {
        name: _told(members, weights) for name, weights in sides.items()
    }


def _told(members: NDArray[np.bool_], weights: Indices) -> dict[str, Any]:
    ratios = imbalance_ratios(members, weights)
    ratios = ratios[~np.isnan(ratios)]
    return {
        "n_rows": int(weights.sum()),
        "n_of_class": (weights @ members).tolist(),
        "mean_ratio": float(ratios.mean()) if ratios.size else None,
        "largest_ratio": float(ratios.max()) if ratios.size else None,
    }
