"""From which cosine on two images count as copies: what copies look like, and how alike other images are."""

from __future__ import annotations

import dataclasses

import numpy as np

from heads.arrays import Bool, Float32, ImageArray, Indices
from heads.leaks.alike_pairs import AlikePairs, alike_pairs
from heads.leaks.copy_space import CopySpace

FIXED_THRESHOLD = 0.7
# Of the copies that the augmentation makes, this share may be missed, if nothing else speaks against finding them.
_MISSED = 0.05
# False pairs: at most one for each hundred images, beside wrong labels, which may be a tenth.
_FALSE_PER_IMAGE = 0.01
_MOST_WRONG = 0.1
# Whatever an augmentation does, images that share less than this are no copies.
_LEAST_THRESHOLD = 0.3
_QUANTILES = (0.01, 0.05, 0.25, 0.5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The cosine from which on a pair counts as near-duplicates.

    Parameters
    ----------
    value : float
    is_fixed : bool
        Whether it is a constant, as there were no views to learn from what copies look like.
    within : dict
        Quantiles (0.01, 0.05, 0.25, 0.5) of the cosines between two halves of the views of one image; empty where fixed.
    found_share : float or None
        Share of those cosines that are at least the threshold: the copies that can be expected to be found, if they are as
        alike as the augmentation makes them. None where fixed.
    """

    value: float
    is_fixed: bool
    within: dict[float, float]
    found_share: float | None


def calibrated(
    space: CopySpace, X: ImageArray, labels: Indices, n_other_views: int, most: int, rows: Float32
) -> tuple[Threshold, AlikePairs]:
    """Set the threshold for pairs of an image with all views and one with fewer; :func:`heads.leaks.near_duplicates.find_near_duplicates` says how.

    Parameters
    ----------
    space : CopySpace
    X : float32 array, shape (n_images, n_views, n_columns)
        Raw features of the labelled images.
    labels : int64 array, shape (n_images,)
    n_other_views : int
        How many views the other image of a pair has, n_views at most.
    most : int
        How many pairs to keep.
    rows : float32 array, shape (n_images, n_directions)
        The images' places with all views.

    Returns
    -------
    threshold : Threshold
    pairs : AlikePairs
        The pairs of labelled images from it on; twice each where numbers of views differ, as either image may have the fewer.
    """
    n_images, n_views = X.shape[:2]
    within = np.zeros(0)
    floor, middle = FIXED_THRESHOLD, (1 + FIXED_THRESHOLD) / 2
    if n_views > 1:
        # The views of one image, dealt to two sides in the proportion in which pairs have them.
        cut = max(1, n_views * n_other_views // (n_views + n_other_views))
        halves = space.places(X, slice(0, cut)), space.places(X, slice(cut, n_views))
        within = np.einsum("ij,ij->i", *halves, dtype=np.float64)
        floor, middle = max(float(np.quantile(within, _MISSED)), _LEAST_THRESHOLD), float(np.median(within))
    if n_other_views == n_views:
        pairs, n_counted = alike_pairs(rows, least=floor, most=most), 1
    else:
        # Beside the pairs of others, each image with itself.
        pairs = alike_pairs(rows, space.places(X, slice(0, n_other_views)), least=floor, most=2 * most + n_images)
        is_other = pairs.places[:, 0] != pairs.places[:, 1]
        pairs, n_counted = dataclasses.replace(pairs, places=pairs.places[is_other], cosines=pairs.cosines[is_other]), 2
    first, second = pairs.places.T
    n_sure = int((pairs.cosines >= middle).sum())
    n_true = _n_mostly_true(labels[first] != labels[second], n_sure, _share_differing(labels), n_counted * n_images)
    value = floor
    if n_true < len(pairs):
        value = float(np.nextafter(pairs.cosines[n_true], 2))
        n_true = int((pairs.cosines >= value).sum())
        pairs = dataclasses.replace(pairs.first(n_true), truncated=False)
    elif pairs.truncated and len(pairs):
        value = float(pairs.cosines[-1])
    threshold = Threshold(
        value=value,
        is_fixed=n_views == 1,
        within={share: float(np.quantile(within, share)) for share in _QUANTILES} if n_views > 1 else {},
        found_share=float((within >= value).mean()) if n_views > 1 else None,
    )
    return threshold, pairs


def _share_differing(labels: Indices) -> float:
    """Return the share of pairs of images that have different labels."""
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    n_images = counts.sum()
    return float(1 - (counts * (counts - 1)).sum() / max(1, n_images * (n_images - 1)))


def _n_mostly_true(differ: Bool, n_sure: int, share_differing: float, n_images: int) -> int:
    """Count the pairs, from the most alike on, that can be taken with few false ones among them.

    Parameters
    ----------
    differ : bool array, shape (n_pairs,)
        Whether labels differ; the most alike first.
    n_sure : int
        How many pairs are more alike than half of the copies.
    share_differing : float
        Of all pairs of images.
    n_images : int
    """
    if not share_differing:
        return len(differ)
    false = np.cumsum(differ) / share_differing
    wrong = float(false[n_sure - 1]) / n_sure if n_sure else 0.0
    allowed = _FALSE_PER_IMAGE * n_images + (wrong if wrong <= _MOST_WRONG else 0) * np.arange(1, len(differ) + 1)
    few = np.flatnonzero(false <= allowed)
    return int(few[-1]) + 1 if len(few) else 0
