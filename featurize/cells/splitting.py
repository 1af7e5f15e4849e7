"""Clusters of touching nuclei taken apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features_cache.extras import load_extra
from featurize.cells.foreground import Mask, Plane
from featurize.cells.notches import Labels

_NECK = 0.12
"""How much lower than the lower of two peaks the pass between them must be, as a share of that peak."""
_WIDE_BORDER = 1.1
"""A common border longer than this many diameters of the smaller part is a cut through one nucleus."""
_STAIRCASE = 4 / np.pi
"""How many pixel sides a border of length 1 has, over all directions."""
_OVERSIZE = 2.5
_DIP = 0.03


def split(mask: Mask, above: Plane, height: Plane, diameter_px: float) -> Labels:
    """Divide a mask into nuclei by watershed, from peaks of shape and brightness.

    The landscape is the distance to the mask's border, of which a nucleus has one peak and a cluster one a nucleus, times a
    brightness that is half the neighbourhood's. Basins are joined where the pass between two peaks is nearly as high as the lower
    one, or the cut between them is as wide as they are. Parts much larger than the others, in whose middle the border is far away,
    are divided once more, by brightness alone.

    Parameters
    ----------
    mask : bool array, shape (height, width)
        Nuclei.
    above : float32 array, same shape
        Brightness above the threshold: tells where between two pixels the mask's border is.
    height : float32 array, same shape
        Brightness above the background.
    diameter_px : float
        Of a typical nucleus.

    Returns
    -------
    int32 array, same shape
        0 outside of the mask, else 1 to the number of nuclei.
    """
    landscape = _landscape(mask, above, height, diameter_px)
    labels = _watershed(landscape, mask, _NECK)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    large = areas > _OVERSIZE * np.median(areas[1:])
    oversize = large[labels]
    if oversize.any():
        parts = _watershed(ndimage.gaussian_filter(height, diameter_px / 5), oversize, _DIP)
        labels = numbered(np.where(oversize, parts + len(areas), labels))
    return labels


def numbered(labels: NDArray[np.integer]) -> Labels:
    """Give labels the numbers from 1 on, in the order that they have.

    Examples
    --------
    >>> numbered(np.array([[0, 7], [3, 7]])).tolist()
    [[0, 2], [1, 2]]
    """
    there = np.zeros(int(labels.max()) + 1, np.int32)
    there[labels.ravel()] = 1
    there[0] = 0
    renumbered: Labels = (np.cumsum(there, dtype=np.int32) * there)[labels]
    return renumbered


def _landscape(mask: Mask, above: Plane, height: Plane, diameter_px: float) -> Plane:
    # One pixel more of whatever stands at the picture's border: nuclei go on there, they do not end.
    wider, field = np.pad(mask, 1, mode="edge"), np.pad(above, 1, mode="edge")
    distance, nearest = ndimage.distance_transform_edt(wider, return_indices=True)
    steepness = np.hypot(*np.gradient(field))
    # The border crosses zero between a pixel and its neighbour. Without the part of a pixel, notches between small nuclei vanish.
    beyond = np.clip(-field / np.maximum(steepness, np.finfo(np.float32).tiny), 0, 1)
    distance = np.maximum(distance - beyond[tuple(nearest)], 0.05)[1:-1, 1:-1]
    seen = ndimage.gaussian_filter(height, diameter_px / 8) * mask
    brightest = ndimage.maximum_filter(seen, int(0.35 * diameter_px) | 1)
    shine = 0.5 + 0.5 * seen / np.maximum(brightest, np.finfo(np.float32).tiny)
    smooth = ndimage.gaussian_filter(np.where(mask, distance * shine, 0), 0.05 * diameter_px)
    landscape: Plane = np.where(mask, smooth, 0).astype(np.float32)
    return landscape


def _watershed(landscape: Plane, mask: Mask, neck: float) -> Labels:
    segmentation = load_extra("skimage.segmentation", "cells")
    basins: Labels = segmentation.watershed(-landscape, mask=mask).astype(np.int32)
    return _join_wide_borders(_join_high_passes(basins, landscape, neck))


def _touching(labels: Labels, field: Plane | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64], Plane]:
    """List the sides between pixels of two labels: the smaller label, the larger, and the lower value of the field."""
    smaller, larger, lower = [], [], []
    for one, other in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])):
        first, second = labels[one], labels[other]
        differ = (first != second) & (first > 0) & (second > 0)
        smaller.append(np.minimum(first[differ], second[differ]).astype(np.int64))
        larger.append(np.maximum(first[differ], second[differ]).astype(np.int64))
        lower.append(np.zeros(0, np.float32) if field is None else np.minimum(field[one][differ], field[other][differ]))
    return np.concatenate(smaller), np.concatenate(larger), np.concatenate(lower)


def _join_high_passes(labels: Labels, landscape: Plane, neck: float) -> Labels:
    """Join basins from the highest pass down, unless both peaks stand well above it (their dynamics; Grimaud, 1992)."""
    smaller, larger, lower = _touching(labels, landscape)
    n_labels = int(labels.max())
    borders, which = np.unique(smaller * (n_labels + 1) + larger, return_inverse=True)
    passes = np.zeros(len(borders), np.float32)
    np.maximum.at(passes, which, lower)
    peaks = np.zeros(n_labels + 1, np.float32)
    np.maximum.at(peaks, labels.ravel(), landscape.ravel())
    leader = np.arange(n_labels + 1)

    def led_by(label: int) -> int:
        while leader[label] != label:
            leader[label] = leader[leader[label]]
            label = int(leader[label])
        return label

    for border in np.argsort(-passes, kind="stable"):
        one, other = (led_by(int(label)) for label in divmod(borders[border], n_labels + 1))
        if one != other and passes[border] > (1 - neck) * min(peaks[one], peaks[other]):
            high, low = (one, other) if peaks[one] >= peaks[other] else (other, one)
            leader[low] = high
    return numbered(np.array([led_by(label) for label in range(n_labels + 1)])[labels])


def _join_wide_borders(labels: Labels) -> Labels:
    """Join parts whose common border is as wide as they are, the widest first, each part once a round."""
    while True:
        n_labels = int(labels.max())
        diameters = 2 * np.sqrt(np.bincount(labels.ravel(), minlength=n_labels + 1) / np.pi)
        smaller, larger, _ = _touching(labels)
        borders, n_sides = np.unique(smaller * (n_labels + 1) + larger, return_counts=True)
        one, other = np.divmod(borders, n_labels + 1)
        width = n_sides / _STAIRCASE / np.minimum(diameters[one], diameters[other])
        leader, joined = np.arange(n_labels + 1), set[int]()
        for border in np.argsort(-width, kind="stable")[: int((width > _WIDE_BORDER).sum())]:
            pair = {int(one[border]), int(other[border])}
            if not pair & joined:
                leader[other[border]] = one[border]
                joined |= pair
        if not joined:
            return labels
        labels = numbered(leader[labels])
