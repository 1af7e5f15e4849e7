"""Made features in which each original appears several times, augmented, unnamed and shuffled: what the leak guard is for."""

from __future__ import annotations

import dataclasses

import numpy as np

N_CLASSES = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeakyData:
    """Labelled images that are copies of few originals, and test images that are all new.

    Parameters
    ----------
    X : float32 array, shape (n_originals * n_copies, n_views, n_columns)
        Features; like pooled ones never negative, and all alike.
    labels : int64 array, shape (n_images,)
    originals : int64 array, shape (n_images,)
        Which original each image is a copy of: what nobody is told.
    ids : tuple of str
        They say nothing of the originals.
    new, new_labels, new_ids
        Likewise, of new originals, each once.
    """

    X: np.ndarray
    labels: np.ndarray
    originals: np.ndarray
    ids: tuple[str, ...]
    new: np.ndarray
    new_labels: np.ndarray
    new_ids: tuple[str, ...]

    @property
    def true_pairs(self) -> set[tuple[int, int]]:
        """Pairs of copies of one original, the smaller place first."""
        return {
            (int(first), int(second))
            for original in np.unique(self.originals)
            for here in [np.flatnonzero(self.originals == original)]
            for at, first in enumerate(here)
            for second in here[at + 1 :]
        }


def make_leaky_data(
    *,
    n_originals: int = 160,
    n_copies: int = 10,
    n_test: int = 1500,
    n_views: int = 5,
    n_columns: int = 64,
    class_distance: float = 0.35,
    augmentation: float = 0.35,
    seed: int = 0,
) -> LeakyData:
    """Draw originals around the centres of weakly separated classes, and copies around the originals.

    Parameters
    ----------
    n_originals, n_copies, n_test, n_views, n_columns : int
    class_distance : float
        Of the classes' centres, in standard deviations of originals within a class, each dimension.
    augmentation : float
        Standard deviation of views around their original, in the same unit.
    seed : int
    """
    rng = np.random.default_rng(seed)
    n_hidden = n_columns // 2
    centres = class_distance * rng.normal(size=(N_CLASSES, n_hidden))
    mixing = rng.normal(size=(n_hidden, n_columns)) / np.sqrt(n_hidden)

    def views_of(hidden, n_each):
        seen = hidden[:, None] + augmentation * rng.normal(size=(len(hidden), n_each, n_hidden))
        return np.log1p(np.exp(2 + seen @ mixing)).astype(np.float32)

    labels = np.arange(n_originals) % N_CLASSES
    originals = rng.permutation(np.repeat(np.arange(n_originals), n_copies))
    hidden = centres[labels] + rng.normal(size=(n_originals, n_hidden))
    new_labels = rng.integers(0, N_CLASSES, n_test)
    return LeakyData(
        X=views_of(hidden[originals], n_views),
        labels=labels[originals],
        originals=originals,
        ids=tuple(f"image{place:05d}" for place in range(len(originals))),
        new=views_of(centres[new_labels] + rng.normal(size=(n_test, n_hidden)), n_views),
        new_labels=new_labels,
        new_ids=tuple(f"new{place:05d}" for place in range(n_test)),
    )
