"""Images and their cells heard together: ``w * cells + (1 - w) * image``, the weight chosen inside the training folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from heads.arrays import Float64, Indices
from heads.folds import Fold
from heads.metrics.confidence import calibrated_loss
from heads.pooling import Pool, pooled
from heads.predictions import Inner, Predictions
from heads.targets import Targets

CELLS, FUSED = "cells", "fused"
"""Names beside those of heads: what cells say alone, and together with their images."""

WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Of cells; those that are chosen from."""
_UNINFORMED = 0.5


def fused(image: Float64, cells: Float64, weight: float) -> Float64:
    """Weigh what cells say against what their image says.

    Parameters
    ----------
    image : float64 array, shape (n, n_classes)
    cells : float64 array, same shape
        NaN where there are no cells: the image speaks alone.
    weight : float
        Of the cells, 0 to 1.

    Returns
    -------
    float64 array, same shape

    Examples
    --------
    >>> fused(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[1.0, 0.0], [np.nan, np.nan]]), 0.5).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    return np.where(np.isnan(cells), image, weight * cells + (1 - weight) * image)


def pool_predictions(cells: Predictions, parents: Indices, n_images: int, pool: Pool, *, many: bool) -> Predictions:
    """Turn what held-out cells are said to be into what that says of their images.

    Parameters
    ----------
    cells : Predictions
        Of cells, by place.
    parents : int64 array, shape (n_cells,)
        The place of each one's image.
    n_images : int
    pool : {"mean", "maximum"}
    many : bool

    Returns
    -------
    Predictions
        Of images, by place; NaN for those without cells. ``inner`` holds images with cells alone.
    """
    inner = []
    for each in cells.inner:
        said = pooled(each.probabilities, parents[each.images], n_images, pool, many=many)
        images = np.unique(parents[each.images])
        inner.append(Inner(images, said[images]))
    averaged, view_0 = (
        np.stack([pooled(repeat, parents, n_images, pool, many=many) for repeat in said])
        for said in (cells.averaged, cells.view_0)
    )
    return Predictions(averaged=averaged, view_0=view_0, inner=tuple(inner))


def fuse_at(image: Predictions, cells: Predictions, folds: Sequence[Fold], weights: Sequence[float]) -> Predictions:
    """Fuse each fold's predictions at a weight of its own.

    Parameters
    ----------
    image, cells : Predictions
        Of images; of those without cells the latter says NaN.
    folds : sequence of Fold
    weights : sequence of float
        Of the cells, one a fold.

    Returns
    -------
    Predictions
    """
    averaged, view_0 = np.zeros_like(image.averaged), np.zeros_like(image.view_0)
    inner = []
    for place, (fold, weight) in enumerate(zip(folds, weights, strict=True)):
        for into, of in ((averaged, "averaged"), (view_0, "view_0")):
            at = fold.repeat, fold.held_out
            into[at] = fused(getattr(image, of)[at], getattr(cells, of)[at], weight)
        images, own, theirs = _inner_of(image, cells, fold, place)
        inner.append(Inner(images, fused(own, theirs, weight)))
    return Predictions(averaged=averaged, view_0=view_0, inner=tuple(inner))


def _inner_of(image: Predictions, cells: Predictions, fold: Fold, place: int) -> tuple[Indices, Float64, Float64]:
    """Return training images of a fold of which both have spoken inside it, and what each said; NaN where there are no cells."""
    own, theirs = image.inner[place], cells.inner[place]
    has_none = np.isnan(cells.averaged[fold.repeat]).any(axis=1)
    images = own.images[np.isin(own.images, theirs.images) | has_none[own.images]]
    said = np.full((len(images), image.averaged.shape[2]), np.nan)
    both = np.isin(images, theirs.images)
    said[both] = theirs.of(images[both])
    return images, own.of(images), said


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Images and cells together.

    Parameters
    ----------
    predictions : Predictions
        Each fold's by a weight that was chosen inside its training images.
    weight : float
        Of the cells, for new images: chosen by what all folds said.
    in_folds : tuple of float
        The weight of each fold.
    """

    predictions: Predictions
    weight: float
    in_folds: tuple[float, ...]


def fuse(image: Predictions, cells: Predictions, folds: Sequence[Fold], targets: Targets) -> Fusion:
    """Fuse predictions, the weight of each fold chosen inside it: see :func:`choose_weight`.

    Parameters
    ----------
    image, cells : Predictions
        As of :func:`fuse_at`.
    folds : sequence of Fold
    targets : Targets
        Of all images.

    Returns
    -------
    Fusion
    """
    in_folds = []
    for place, fold in enumerate(folds):
        images, own, theirs = _inner_of(image, cells, fold, place)
        in_folds.append(choose_weight(own, theirs, targets.take(images)))
    n_repeats, n_images, _ = image.averaged.shape
    repeated = targets.take(np.tile(np.arange(n_images), n_repeats))
    final = choose_weight(np.concatenate(list(image.averaged)), np.concatenate(list(cells.averaged)), repeated)
    return Fusion(predictions=fuse_at(image, cells, folds, in_folds), weight=final, in_folds=tuple(in_folds))


def choose_weight(image: Float64, cells: Float64, targets: Targets) -> float:
    """Choose the weight of cells by the log-loss of some images, calibrated for each weight.

    Averages are less confident than what they are averages of, and maxima more: the plain log-loss would choose by confidence, and
    not by what is told apart (docs/PERFORMANCE.md has the figures).

    Parameters
    ----------
    image, cells : float64 arrays, shape (n, n_classes)
        As of :func:`fused`.
    targets : Targets

    Returns
    -------
    float
        Of ``WEIGHTS``, the first of equals; one half where no image has cells.

    Examples
    --------
    >>> from heads.targets import OneLabel
    >>> image, cells = np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> choose_weight(image, cells, OneLabel(np.array([0, 1]), 2))
    0.8
    """
    if np.isnan(cells).any(axis=1).all():
        return _UNINFORMED
    losses = [calibrated_loss(fused(image, cells, weight), targets) for weight in WEIGHTS]
    return WEIGHTS[int(np.argmin(losses))]
