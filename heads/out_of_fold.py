"""Out-of-fold predictions: for each image by heads that never saw it, nor its views, nor its group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from features_cache.progress import Progress
from heads.arrays import Float32, Float64, Indices
from heads.catalogue import HEADS, make_head
from heads.choosing import Choice, Evidence, average_members, choose, evidence
from heads.cross_fit import cross_fit
from heads.feature_rows import FeatureRows
from heads.folds import Fold
from heads.head import Head
from heads.nesting import nest
from heads.problem import Problem


@dataclasses.dataclass(kw_only=True)
class LearnedFrom:
    """Images that heads may learn from.

    Parameters
    ----------
    rows : FeatureRows
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1.
    groups : int64 array, shape (n_images,), or None
    weights : float64 array, shape (n_images,)
    n_classes : int
    """

    rows: FeatureRows
    labels: Indices
    groups: Indices | None
    weights: Float64
    n_classes: int

    _last: Problem | None = dataclasses.field(default=None, init=False, repr=False)

    def problem(self, cells: Indices | None = None) -> Problem:
        """Divide the images into cells; as they were last unless given, so that sums over them are not made again."""
        if self._last is None or (cells is not None and not np.array_equal(cells, self._last.cells)):
            self._last = Problem(self.rows, self.labels, self.weights, self.n_classes, cells)
        return self._last


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
    final : Choice
        What the folds, as a whole, choose for the fit on all images.
    """

    averaged: Float32
    view_0: Float32
    choices: tuple[Choice, ...]
    final: Choice


def out_of_fold(
    names: Sequence[str],
    images: LearnedFrom,
    folds: Sequence[Fold],
    *,
    n_averaged: int,
    seed: int,
    progress: Progress,
) -> dict[str, OutOfFold]:
    """Predict every image by heads fitted without its fold.

    In each fold, every head's settings are chosen inside the training images; see :mod:`heads.nesting`.

    Parameters
    ----------
    names : sequence of str
        Keys of ``HEADS``.
    images : LearnedFrom
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
    gathered = {name: _Gathered(images, n_repeats) for name in names}
    for repeat in range(n_repeats):
        own = [fold for fold in folds if fold.repeat == repeat]
        for name in names:
            kind = HEADS[name]
            nesting = nest(own, images.labels, images.groups, n_neighbours=kind.n_neighbours, seed=seed)
            problem = images.problem(nesting.cells)
            head = _unfitted(name, seed)
            judged = cross_fit(
                head,
                problem,
                nesting.judgements(),
                (*kind.watched, *kind.grid),
                n_views=n_averaged,
                progress=progress,
                what=f"{name}, repeat {repeat + 1} of {n_repeats}" if n_repeats > 1 else name,
            )
            into = gathered[name]
            for nested in nesting.folds:
                choice = choose(kind, head.get_params(), [evidence(problem, judged, each) for each in nested.inner])
                into.choices.append(choice)
                into.outer.append(evidence(problem, judged, nested.outer))
                held_out = nested.fold.held_out
                scores = judged[nested.outer.learned].of(held_out, choice.settings[kind.head.chosen])
                temperature = choice.settings["temperature"]
                into.averaged[repeat, held_out] = average_members(scores, temperature)
                into.view_0[repeat, held_out] = average_members(scores[:, :, :1], temperature)
    return {name: into.concluded(name, _unfitted(name, seed).get_params()) for name, into in gathered.items()}


def _unfitted(name: str, seed: int) -> Head:
    head = make_head(name)
    return head.set_params(seed=seed) if "seed" in head.get_params() else head


class _Gathered:
    """What is known of one head after some folds."""

    def __init__(self, images: LearnedFrom, n_repeats: int) -> None:
        shape = n_repeats, len(images.labels), images.n_classes
        self.averaged = np.zeros(shape, dtype=np.float32)
        self.view_0 = np.zeros(shape, dtype=np.float32)
        self.choices: list[Choice] = []
        self.outer: list[Evidence] = []

    def concluded(self, name: str, settings: dict[str, Any]) -> OutOfFold:
        """Choose for the final fit: by heads of all folds, each judged by the images that it never saw."""
        return OutOfFold(
            averaged=self.averaged,
            view_0=self.view_0,
            choices=tuple(self.choices),
            final=choose(HEADS[name], settings, self.outer),
        )


def fit_final(name: str, images: LearnedFrom, choice: Choice) -> Head:
    """Fit a head on all images.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    images : LearnedFrom
    choice : Choice
        From :func:`out_of_fold`.

    Returns
    -------
    fitted head
        Its classes are indices.
    """
    problem = images.problem()
    head = make_head(name, **choice.settings)
    (last,) = (
        fits[0].head for fits in head.fit_sets(problem, [problem.whole], [choice.settings[HEADS[name].head.chosen]])
    )
    return last
