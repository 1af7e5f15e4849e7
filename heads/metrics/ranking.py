"""Rankings: the images in the order of one class's probability, and what stands above any cut through them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import LabelError
from heads.arrays import Float, Float64, Indices


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Images by falling probability of one class: sorted once, counted under many weights.

    Parameters
    ----------
    order : int64 array, shape (n_images,)
        Images, most probable first.
    probabilities : float64 array, shape (n_images,)
        In that order.
    places : int64 array, shape (n_positives,)
        Places in that order of the images of the class, ascending.
    cuts : int64 array, shape (n_cuts,)
        How many images stand above each cut that could be best, ascending. A cut parts different probabilities, right below an
        image of the class: one further down calls more images and no more of the class. Empty for a class without images.
    """

    order: Indices
    probabilities: Float64
    places: Indices
    cuts: Indices

    def thresholds(self) -> Float64:
        """Return the probability midway between those above and below each cut: float64 array, shape (n_cuts,).

        An image is above where its probability is no less. Below the last image is 0.
        """
        above = self.probabilities[self.cuts - 1]
        below = np.append(self.probabilities, 0.0)[self.cuts]
        midway = below + (above - below) / 2
        # Between two numbers next to each other there is none: half way rounds to either.
        return np.where(midway > below, midway, above)

    def ranks(self, thresholds: Float64) -> Indices:
        """Count images whose probability is no less than each threshold: int64 array of the same shape."""
        return len(self.order) - np.searchsorted(self.probabilities[::-1], thresholds, side="left").astype(np.int64)

    def counts(self, weights: Indices, ranks: Indices) -> tuple[Indices, Indices]:
        """Add up weights above cuts, for many sets of weights at a time.

        Parameters
        ----------
        weights : int64 array, shape (n_resamples, n_images)
            How often each image counts.
        ranks : int64 array, shape (n_cuts,)
            How many images stand above each cut.

        Returns
        -------
        hits, called : int64 arrays, shape (n_resamples, n_cuts)
            Of the class, and in all.
        """
        hits = _running(np.take(weights, self.order[self.places], axis=1))
        called = _running(np.take(weights, self.order, axis=1))
        return hits[:, np.searchsorted(self.places, ranks, side="left")], called[:, ranks]


def _running(weights: Indices) -> Indices:
    """Add up along the last axis, from 0."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.int64)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def rank(member: NDArray[np.bool_], probability: Float) -> Ranking:
    """Rank images by the probability of one class.

    Parameters
    ----------
    member : bool array, shape (n_images,)
        Which images are of the class.
    probability : float array, shape (n_images,)

    Returns
    -------
    Ranking

    Examples
    --------
    >>> ranking = rank(np.array([True, False, True, False]), np.array([0.8, 0.1, 0.4, 0.6]))
    >>> ranking.cuts.tolist(), ranking.thresholds().round(3).tolist()
    ([1, 3], [0.7, 0.25])
    """
    order = np.argsort(-probability, kind="stable").astype(np.int64)
    ranked = probability[order].astype(np.float64)
    places = np.flatnonzero(member[order]).astype(np.int64)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(min(1, len(ranked)), dtype=bool)))
    cuts = np.unique(ends[np.searchsorted(ends, places)]) + 1
    return Ranking(order=order, probabilities=ranked, places=places, cuts=cuts.astype(np.int64))


def require_probabilities(probabilities: Float) -> None:
    """Refuse what is no probability.

    Parameters
    ----------
    probabilities : float array, shape (n_images, n_classes)

    Raises
    ------
    LabelError
        If a value is not in 0 to 1, NaN among them.
    """
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        image, column = np.argwhere(wrong)[0]
        msg = (
            f"probability {probabilities[image, column]} of image {image} and class {column}; expected 0 to 1. "
            f"Fit the head anew, or leave it out"
        )
        raise LabelError(msg)


def rank_all(members: NDArray[np.bool_], probabilities: Float) -> tuple[Ranking, ...]:
    """Rank images by the probability of each class in turn.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    probabilities : float array, shape (n_images, n_classes)
        0 to 1.

    Returns
    -------
    tuple of Ranking, length n_classes

    Raises
    ------
    LabelError
        If shapes differ, there is no image, or a probability is not in 0 to 1.
    """
    if members.shape != probabilities.shape or not members.size:
        msg = (
            f"labels of shape {members.shape} and probabilities of shape {probabilities.shape}; expected the same, "
            f"(images, classes), with at least one of each. Give the probabilities of the images that the labels are of"
        )
        raise LabelError(msg)
    require_probabilities(probabilities)
    return tuple(rank(members[:, column], probabilities[:, column]) for column in range(members.shape[1]))
