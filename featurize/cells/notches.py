"""Touching nuclei divided where their common outline has two notches: what no distance to the border shows when they are long.

After Bai, Sun and Zhou (2009), who cut clusters of cells between concave points of their outline.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from features_cache.extras import load_extra
from featurize.cells.foreground import Mask, Plane

Labels = NDArray[np.int32]
Outline = NDArray[np.float64]

_DEEP = 0.055
"""How deep two notches are on average, in diameters of the smaller part; dents of one nucleus are shallower."""
_LEAST_DEEP = 0.6
"""The part of that depth which the shallower one must have: one notch alone is a kidney."""
_LONG = 1.15
"""The longest cut, in diameters of the smaller part."""
_LEAST_AREA = 0.15
"""The smallest part, in areas of a typical nucleus."""
_SMOOTH = 0.03
"""Deviation of the Gaussian that smoothes an outline, in diameters of a typical nucleus."""
_LEAST_POINTS = 12


def cut_notches(labels: Labels, above: Plane, diameter_px: float) -> Labels:
    """Cut every label between its two deepest notches, and its parts likewise, as long as these look like nuclei.

    Parameters
    ----------
    labels : int32 array, shape (height, width)
        0 background, else from 1 on.
    above : float32 array, same shape
        Brightness above the threshold: tells where between two pixels an outline runs.
    diameter_px : float
        Of a typical nucleus.

    Returns
    -------
    int32 array, same shape
        The numbers of what was not cut stay; further parts get the numbers that follow.
    """
    divided = labels.copy()
    n_labels = int(labels.max())
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        for number, part in enumerate(_parts(labels[box] == label, above[box], diameter_px)):
            if number:
                n_labels += 1
                divided[box][part] = n_labels
    return divided


def _parts(whole: Mask, above: Plane, diameter_px: float) -> Iterator[Mask]:
    pending = [whole]
    while pending:
        piece = pending.pop()
        side = _one_side(piece, above, diameter_px)
        if side is None:
            yield piece
        else:
            pending += [side, piece & ~side]


def _one_side(piece: Mask, above: Plane, diameter_px: float) -> Mask | None:
    """Return the part of a piece on one side of its best cut; None where it is not to be cut."""
    outline = _outline(piece, above, diameter_px)
    if outline is None:
        return None
    notches = _notches(outline, _LEAST_DEEP * _DEEP * np.sqrt(_LEAST_AREA) * diameter_px)
    best, best_score = None, np.inf
    for order, (depth, place) in enumerate(notches):
        for other_depth, other_place in notches[:order]:
            begin, end = sorted((place, other_place))
            inner, outer = outline[begin : end + 1], np.concatenate([outline[end:], outline[: begin + 1]])
            area = min(_area(inner), _area(outer))
            diameter = 2 * np.sqrt(area / np.pi)
            length = float(np.hypot(*(outline[begin] - outline[end])))
            is_deep = (
                depth + other_depth >= 2 * _DEEP * diameter
                and min(depth, other_depth) >= _LEAST_DEEP * _DEEP * diameter
            )
            is_large = area >= _LEAST_AREA * np.pi / 4 * diameter_px**2
            score = (length - depth - other_depth) / max(diameter, 1e-9)
            if is_deep and is_large and length <= _LONG * diameter and score < best_score:
                best, best_score = inner, score
    if best is None:
        return None
    draw = load_extra("skimage.draw", "cells")
    side: Mask = draw.polygon2mask(piece.shape, best) & piece
    return side if side.any() and (piece & ~side).any() else None


def _outline(piece: Mask, above: Plane, diameter_px: float) -> Outline | None:
    """Follow a piece's outline between the pixels, in steps of about a pixel, and smooth it."""
    measure = load_extra("skimage.measure", "cells")
    steep = np.maximum(np.abs(above), np.finfo(np.float32).eps)
    field = np.pad(
        np.where(piece, np.maximum(above, np.finfo(np.float32).eps), -steep), 1, constant_values=-steep.max()
    )
    # A piece may have crumbs; its outline is the longest one.
    points = max(measure.find_contours(field, 0), key=len, default=np.zeros((0, 2))) - 1
    if len(points) < _LEAST_POINTS:
        return None
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    n_points = max(32, len(points))
    at = np.linspace(0, along[-1], n_points, endpoint=False)
    even = np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)
    outline: Outline = ndimage.gaussian_filter1d(
        even, _SMOOTH * diameter_px * n_points / along[-1], axis=0, mode="wrap"
    )
    return outline


def _notches(outline: Outline, least_px: float) -> list[tuple[float, int]]:
    """Find the deepest point of every gap between an outline and its convex hull: its depth in px, and its place."""
    try:
        corners = np.sort(ConvexHull(outline).vertices)
    except QhullError:  # a line has no inside
        return []
    n_points = len(outline)
    notches = []
    for begin, end in zip(corners, [*corners[1:], corners[0] + n_points], strict=True):
        places = np.arange(begin + 1, end) % n_points
        along = outline[end % n_points] - outline[begin]
        length = float(np.hypot(*along))
        if not len(places) or not length:
            continue
        rows, columns = (outline[places] - outline[begin]).T
        depths = np.abs(along[0] * columns - along[1] * rows) / length
        if depths.max() > least_px:
            notches.append((float(depths.max()), int(places[depths.argmax()])))
    return notches


def _area(polygon: Outline) -> float:
    rows, columns = polygon.T
    return 0.5 * abs(float(np.dot(columns, np.roll(rows, -1)) - np.dot(rows, np.roll(columns, -1))))
