"""Out-of-fold predictions: for each image by heads that never saw it, nor its views, nor its group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features_cache.progress import Progress
from heads.catalogue import Head, make_head
from heads.choosing import Choice, Features, TrainingImages, choose
from heads.ensemble import average_views
from heads.folds import Fold

Probabilities = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """What the folds said of one head.

    Parameters
    ----------
    averaged : float32 array, shape (n_repeats, n_images, n_classes)
        Probabilities averaged over the views that `submit` will average over.
    view_0 : float32 array, same shape
        Of the image itself alone.
    choices : tuple of Choice
        What was chosen inside each fold.
    """

    averaged: Probabilities
    view_0: Probabilities
    choices: tuple[Choice, ...]


def out_of_fold(
    names: Sequence[str],
    images: TrainingImages,
    folds: Sequence[Fold],
    *,
    n_averaged: int,
    seed: int,
    progress: Progress,
) -> dict[str, OutOfFold]:
    """Predict every image by heads fitted without its fold.

    In each fold, every head's settings are chosen by inner folds of the training images; then it is fitted on all
    views of all training images, and predicts the views of the held-out ones.

    Parameters
    ----------
    names : sequence of str
        Keys of ``HEADS``.
    images : TrainingImages
        All labelled images.
    folds : sequence of Fold
        Each repeat's folds hold out every image once.
    n_averaged : int
        How many views, from view 0 on, a prediction is averaged over.
    seed : int
    progress : callable
        Called with what is done, how many fits are done, how many there are.

    Returns
    -------
    dict of OutOfFold
        By name.
    """
    n_repeats = 1 + max(fold.repeat for fold in folds)
    shape = n_repeats, len(images.labels), images.n_classes
    averaged = {name: np.zeros(shape, dtype=np.float32) for name in names}
    view_0 = {name: np.zeros(shape, dtype=np.float32) for name in names}
    choices: dict[str, list[Choice]] = {name: [] for name in names}
    # The final fits, one a head, come after the folds.
    n_fits = (len(folds) + 1) * len(names)
    for index, fold in enumerate(folds):
        training = images.part(fold.train)
        held_out = images.X[fold.held_out, :n_averaged]
        for place, name in enumerate(names):
            progress(f"fold {index + 1}/{len(folds)}: {name}", index * len(names) + place, n_fits)
            choice, head = fit_chosen(name, training, n_averaged=n_averaged, seed=seed)
            by_view = predict_views(head, held_out, images.n_classes)
            averaged[name][fold.repeat, fold.held_out] = by_view.mean(axis=1)
            view_0[name][fold.repeat, fold.held_out] = by_view[:, 0]
            choices[name].append(choice)
    return {
        name: OutOfFold(averaged=averaged[name], view_0=view_0[name], choices=tuple(choices[name])) for name in names
    }


def fit_chosen(name: str, images: TrainingImages, *, n_averaged: int, seed: int) -> tuple[Choice, Head]:
    """Choose a head's settings on inner folds of some images, and fit it on all of them.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    images : TrainingImages
    n_averaged : int
    seed : int

    Returns
    -------
    choice : Choice
    head : fitted head
        Its classes are indices.
    """
    choice = choose(name, images, n_averaged=n_averaged, seed=seed)
    X, y, weights = images.rows()
    head: Head = make_head(name, **choice.settings).fit(X, y, weights)
    return choice, head


def predict_views(head: Head, X: Features, n_classes: int) -> Probabilities:
    """Predict every view.

    Parameters
    ----------
    head : fitted head
        Its classes are indices.
    X : float32 array, shape (n_images, n_views, n_columns)
    n_classes : int

    Returns
    -------
    float32 array, shape (n_images, n_views, n_classes)
        0 for classes that the head never saw.
    """
    n_images, n_views, n_columns = X.shape
    probabilities = np.zeros((n_images * n_views, n_classes), dtype=np.float32)
    probabilities[:, head.classes_] = head.predict_proba(X.reshape(n_images * n_views, n_columns))
    return probabilities.reshape(n_images, n_views, n_classes)


def predict_images(head: Head, X: Features, n_classes: int) -> NDArray[np.float64]:
    """Predict images: the mean over their views, shape (n_images, n_classes)."""
    return average_views(predict_views(head, X, n_classes).reshape(-1, n_classes), X.shape[1])
