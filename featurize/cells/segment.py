"""Nuclei and cells in the planes of an image: arrays in, label images out.

A nucleus shines above the background around it by more than noise can (:func:`find_nuclei`), and its outline lies
where it falls to less than half of its own brightness. Nuclei smaller than a fifth of the median area, or larger than five times, are
left out: debris, and clusters that could not be divided. A cell is what shines around one nucleus, up to four of its diameters
away; where nothing does, and where no plane shows bodies, a cell is its nucleus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features_cache.extras import load_extra
from featurize.cells.foreground import (
    Foreground,
    Mask,
    Plane,
    enlarge,
    foreground,
    in_own_unit,
    noise_below,
    otsu,
    shrink,
    without_hot_pixels,
)
from featurize.cells.notches import Labels, cut_notches
from featurize.cells.nucleus_size import LEAST_DIAMETER_PX, nucleus_diameter
from featurize.cells.splitting import numbered, split

_WORK_PX = 20
"""Diameter of a nucleus at which it is looked for; larger ones are shrunk to it, their outlines drawn at full size."""
_HALF = 0.5
_SHARE = 0.45
_SURE = 8.0
"""Deviations of the noise, averaged over a quarter of a diameter, that a nucleus must rise above somewhere."""
_SURE_OF_UNEVENNESS = 0.2
"""And the part of the background's unevenness: where a vignette ends, a polynomial misses up to a sixth of it."""
_LEAST_AREA = 0.1
_MEDIAN_AREAS = (0.2, 5.0)
_REACH = 4.0
_ROUNDS = 3


def find_nuclei(plane: Plane, diameter_px: float | None = None) -> Labels:
    """Find bright nuclei on a dark, unevenly lit, noisy background.

    Threshold (Otsu, 1979, and half of the brightness around), distance transform, watershed; the size is estimated and corrected by
    what is found.

    Parameters
    ----------
    plane : float32 array, shape (height, width)
        In [0, 1], or any other unit: only ratios count.
    diameter_px : float, optional
        Typical diameter of a nucleus. Estimated unless given, never below 8.

    Returns
    -------
    int32 array, shape (height, width)
        0 background, else the nucleus's number: from 1 on, in the order of their first pixels, row by row. All 0 in an empty picture.

    Raises
    ------
    OptionError
        If scikit-image is not installed.
    """
    plane = in_own_unit(plane)
    if diameter_px is not None:
        return _nuclei_of_size(plane, diameter_px)
    first = diameter = nucleus_diameter(plane)
    labels = np.zeros(plane.shape, np.int32)
    for _ in range(_ROUNDS):
        labels = _nuclei_of_size(plane, diameter)
        if not labels.any():
            break
        # Bound to the first estimate: grains within nuclei would otherwise be found, and ever finer ones be looked for.
        found = min(max(typical_diameter(labels), 0.45 * first, LEAST_DIAMETER_PX), 1.5 * first)
        if 0.8 < found / diameter < 1.25:
            break
        diameter = found
    return labels


def find_cells(nuclei: Labels, bodies: Sequence[Plane]) -> Labels:
    """Find the body of each nucleus's cell.

    Planes are put on one scale by their brightness around nuclei and added. What is bright is divided among the nuclei by a watershed
    of the distance from them and of brightness, and ends where it falls below less than half of the cell's own median.

    Parameters
    ----------
    nuclei : int32 array, shape (height, width)
        As :func:`find_nuclei` gives.
    bodies : sequence of float32 array, shape (height, width)
        Planes of what fills cells, such as microtubules and endoplasmic reticulum. Without any, a cell is its nucleus.

    Returns
    -------
    int32 array, shape (height, width)
        0 background, else the number of the cell's nucleus; every nucleus lies in its cell.

    Raises
    ------
    OptionError
        If scikit-image is not installed.
    """
    if not nuclei.any() or not bodies:
        return nuclei
    segmentation = load_extra("skimage.segmentation", "cells")
    diameter = typical_diameter(nuclei)
    factor = _factor(diameter)
    seeds = _every(nuclei, factor)
    height = _body_height(seeds, [shrink(in_own_unit(body), factor) for body in bodies], diameter / factor)
    if height is None:
        return nuclei
    noise = noise_below(height)
    away = ndimage.distance_transform_edt(seeds == 0) * (factor / diameter)
    mask = ((height > max(0.5 * otsu(height), 4 * noise)) & (away < _REACH)) | (seeds > 0)
    glow = ndimage.gaussian_filter(height, diameter / factor / 6)
    window = int(diameter / factor) | 1
    brightest = ndimage.uniform_filter(ndimage.maximum_filter(glow, window), window)
    landscape = away - 0.5 * glow / np.maximum(brightest, np.finfo(np.float32).tiny)
    owner = segmentation.watershed(landscape, markers=seeds, mask=mask).astype(np.int32)
    ends = np.maximum(0.45 * _quantiles(height, owner, 0.5), 3 * noise)
    outlined = _outlined(height - ends[owner], owner, factor, nuclei.shape)
    return _tidied(np.where(nuclei > 0, nuclei, outlined), max(1, int(diameter / 10)), core=nuclei)


def typical_diameter(labels: Labels) -> float:
    """Return the median diameter, in px, of the discs that have the labels' areas; at least one must be there."""
    areas = np.bincount(labels[labels > 0])
    return float(np.median(2 * np.sqrt(areas[areas > 0] / np.pi)))


def _nuclei_of_size(plane: Plane, diameter_px: float) -> Labels:
    factor = _factor(diameter_px)
    size = diameter_px / factor
    small = without_hot_pixels(shrink(plane, factor))
    found = foreground(small, smooth_px=max(0.7, size / 24), diameter_px=size, share_of_otsu=0.7)
    height = found.height
    seen = ndimage.gaussian_filter(height, size / 10)
    # Between the nuclei of a dense cluster it is never as dark as beside it: the lowest around is what they rise from.
    base = np.maximum(_averaged(ndimage.minimum_filter, ndimage.maximum_filter, seen, 2.5 * size), 0)
    peak = _averaged(ndimage.maximum_filter, None, seen, 0.35 * size)
    above = height - base - np.maximum(found.threshold, _HALF * (peak - base))
    mask = ndimage.binary_fill_holes(above > 0)
    if size >= _WORK_PX:  # an opening would round off the notches of smaller ones
        mask = ndimage.binary_opening(mask)
    if not mask.any():
        return np.zeros(plane.shape, np.int32)
    labels = _without_noise(split(mask, above, height, size), found, size)
    if not labels.any():
        return np.zeros(plane.shape, np.int32)
    owner, rise = _risen(labels, height, base, 3 * found.noise, size)
    labels = cut_notches(np.where(rise > 0, owner, 0), rise, size)
    owner, rise = _risen(labels, height, base, 3 * found.noise, size)
    outlined = _outlined(rise, owner, factor, plane.shape)
    return _of_sound_area(_tidied(outlined, max(1, int(diameter_px / 14))), diameter_px)


def _body_height(seeds: Labels, bodies: Sequence[Plane], size: float) -> Plane | None:
    """Add up the planes that shine around nuclei, each by its brightness there; None where none does."""
    around = ndimage.maximum_filter(seeds, 2 * max(1, int(size / 6)) + 1) > 0
    heights = []
    for body in bodies:
        found = foreground(body, smooth_px=max(0.8, size / 8), diameter_px=2 * size, share_of_otsu=1.0)
        level = float(np.percentile(found.height[around], 75))
        if level > 4 * found.noise:
            heights.append(found.height / np.float32(level))
    return sum(heights[1:], heights[0]) if heights else None


def _risen(labels: Labels, height: Plane, base: Plane, least: float, size: float) -> tuple[Labels, Plane]:
    """Let each label own what is near it, and measure there how far it is above a little less than half of the label's brightness."""
    segmentation = load_extra("skimage.segmentation", "cells")
    bright = _quantiles(height, labels, 0.75)
    n_pixels = np.maximum(np.bincount(labels.ravel()), 1)
    lowest = np.bincount(labels.ravel(), weights=base.ravel()) / n_pixels
    ends = np.maximum(lowest + _SHARE * (bright - lowest), least).astype(np.float32)
    owner: Labels = segmentation.expand_labels(labels, max(1, size / 8))
    return owner, height - ends[owner]


def _factor(diameter_px: float) -> int:
    return max(1, int(diameter_px // _WORK_PX))


def _every(labels: Labels, factor: int) -> Labels:
    """Take every factor-th pixel from the middle of the first square on, as many as :func:`shrink` makes."""
    padded = np.pad(labels, [(0, -size % factor) for size in labels.shape], mode="edge")
    return padded[factor // 2 :: factor, factor // 2 :: factor]


Filter = Callable[..., Plane]


def _averaged(first: Filter, then: Filter | None, field: Plane, width_px: float) -> Plane:
    window = int(width_px) | 1
    field = first(field, window)
    averaged: Plane = ndimage.uniform_filter(field if then is None else then(field, window), window)
    return averaged


def _without_noise(labels: Labels, found: Foreground, size: float) -> Labels:
    """Leave out what does not rise above noise and uneven light as an object of this size does."""
    averaged = ndimage.gaussian_filter(found.height, size / 4)
    free: Mask = ndimage.maximum_filter(labels, 2 * max(1, int(size / 4)) + 1) == 0
    if free.mean() < 0.02:
        free = np.ones_like(free)
    averaged -= np.median(averaged[free])
    sure = max(_SURE * noise_below(averaged[free]), _SURE_OF_UNEVENNESS * found.unevenness)
    peaks = np.zeros(int(labels.max()) + 1, np.float32)
    np.maximum.at(peaks, labels.ravel(), averaged.ravel())
    return numbered(np.where((peaks > sure)[labels], labels, 0))


def _quantiles(values: Plane, labels: Labels, share: float) -> NDArray[np.float32]:
    """Return of each label the value that this share of its pixels does not exceed; 0 for the background."""
    inside = labels > 0
    of, what = labels[inside], values[inside]
    order = np.lexsort((what, of))
    n_pixels = np.bincount(of, minlength=int(labels.max()) + 1)
    begins = np.cumsum(n_pixels) - n_pixels
    places = begins + (share * np.maximum(n_pixels - 1, 0)).astype(np.int64)
    return np.where(n_pixels > 0, what[order][np.minimum(places, len(order) - 1)], 0).astype(np.float32)


def _outlined(above: Plane, owner: Labels, factor: int, shape: tuple[int, ...]) -> Labels:
    """Draw outlines at full size: where the field crosses 0, within the squares of pixels that each label owns."""
    field = enlarge(np.where(owner > 0, above, -np.abs(above)).astype(np.float32), factor, shape)
    squares = np.repeat(np.repeat(owner, factor, axis=0), factor, axis=1)[: shape[0], : shape[1]]
    return np.where(field > 0, squares, 0)


def _tidied(labels: Labels, radius: int, core: Labels | None = None) -> Labels:
    """Fill holes, cut off what is thinner than twice the radius, and keep the largest piece, or the one with the core."""
    tidy = np.zeros_like(labels) if core is None else core.copy()
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        kept = np.zeros(labels[box].shape, bool) if core is None else core[box] == label
        whole = ndimage.binary_fill_holes(np.pad(labels[box] == label, radius, mode="edge"))
        opened = ndimage.binary_opening(whole, iterations=radius)
        inner = (slice(radius, -radius),) * 2
        pieces, n_pieces = ndimage.label(opened[inner] | kept)
        if n_pieces == 0:
            continue
        n_pixels = np.bincount(pieces[kept] if kept.any() else pieces[pieces > 0], minlength=n_pieces + 1)
        part = tidy[box]
        part[(pieces == n_pixels.argmax()) & (part == 0)] = label
    return tidy


def _of_sound_area(labels: Labels, diameter_px: float) -> Labels:
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    there = areas[areas >= max(12, _LEAST_AREA * np.pi / 4 * diameter_px**2)]
    if not there.size:
        return np.zeros_like(labels)
    low, high = (share * np.median(there) for share in _MEDIAN_AREAS)
    sound = (areas >= max(low, there.min())) & (areas <= high)
    return _in_reading_order(np.where(sound[labels], labels, 0))


def _in_reading_order(labels: Labels) -> Labels:
    """Renumber labels by their first pixels, row by row."""
    places = np.flatnonzero(labels)
    of = labels.ravel()[places]
    first = np.full(int(labels.max()) + 1, labels.size)
    np.minimum.at(first, of, places)
    rank = np.zeros(len(first), np.int32)
    rank[np.argsort(first, kind="stable")] = np.arange(1, len(first) + 1)
    rank[first == labels.size] = 0
    return rank[labels]
