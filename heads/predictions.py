"""What is said of images that were held out, by one head or by several together."""

from __future__ import annotations

import dataclasses

import numpy as np

from heads.arrays import Float64, Indices


@dataclasses.dataclass(frozen=True, slots=True)
class Inner:
    """What heads inside one fold said of some of its training images, which these heads had not seen.

    Thresholds and weights of an ensemble are chosen by it: the fold's held-out images have no part in it.

    Parameters
    ----------
    images : int64 array, shape (n,)
        Places, ascending; none where the training images could not be divided.
    probabilities : float64 array, shape (n, n_classes)
    """

    images: Indices
    probabilities: Float64

    def of(self, images: Indices) -> Float64:
        """Return the probabilities of some of the images, by place."""
        chosen: Float64 = self.probabilities[np.searchsorted(self.images, images)]
        return chosen


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Probabilities of each image by heads that never saw it.

    Parameters
    ----------
    averaged : float64 array, shape (n_repeats, n_images, n_classes)
        Averaged over the views that `submit` will average over.
    view_0 : float64 array, same shape
        Of the image itself alone.
    inner : tuple of Inner
        Of each fold, repeat by repeat.
    """

    averaged: Float64
    view_0: Float64
    inner: tuple[Inner, ...]
