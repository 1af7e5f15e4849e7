"""Out-of-fold predictions: for each image by heads that never saw it, nor its views, nor its group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from features_cache.progress import Progress
from heads.arrays import Float64, Indices
from heads.catalogue import HeadKind
from heads.choosing import Choice, Evidence, choose, evidence
from heads.cross_fit import cross_fit
from heads.folds import Fold
from heads.head import Head
from heads.nesting import nest
from heads.predictions import Inner, Predictions
from heads.prior import Prior, prior_shift
from heads.probabilities import image_probabilities
from heads.problem import TrainingData


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """What the folds said of one head.

    Parameters
    ----------
    predictions : Predictions
    choices : tuple of Choice
        What was chosen inside each fold.
    final : Choice
        What the folds, as a whole, choose for the fit on all images.
    """

    predictions: Predictions
    choices: tuple[Choice, ...]
    final: Choice


def out_of_fold(
    kinds: Mapping[str, HeadKind],
    data: TrainingData,
    folds: Sequence[Fold],
    *,
    n_averaged: int,
    prior: Prior = "balanced",
    seed: int,
    progress: Progress,
) -> dict[str, OutOfFold]:
    """Predict every image by heads fitted without its fold.

    In each fold, every head's settings are chosen inside the training images; see :mod:`heads.nesting`.

    Parameters
    ----------
    kinds : mapping of str to HeadKind
    data : TrainingData
    folds : sequence of Fold
        Each repeat's folds hold out every scored image once.
    n_averaged : int
        How many views, from view 0 on, a prediction is averaged over.
    prior : {"balanced", "train"}
        See :mod:`heads.prior`.
    seed : int
    progress : callable
        Called with what is done, how many fits are done, how many there are.

    Returns
    -------
    dict of OutOfFold
        By name.
    """
    n_repeats = 1 + max(fold.repeat for fold in folds)
    gathered = {name: _Gathered(kind, data, n_repeats, prior) for name, kind in kinds.items()}
    scored = data.scored
    for repeat in range(n_repeats):
        own = [fold for fold in folds if fold.repeat == repeat]
        for name, kind in kinds.items():
            nesting = nest(
                own,
                scored,
                data.groups,
                n_neighbours=kind.n_neighbours,
                seed=seed,
                n_extra=len(data.targets) - data.n_scored,
            )
            problem = data.problem(nesting.cells)
            judged = cross_fit(
                kind.build(seed),
                problem,
                nesting.judgements(),
                (*kind.watched, *kind.grid),
                n_views=n_averaged,
                progress=progress,
                what=f"{name}, repeat {repeat + 1} of {n_repeats}" if n_repeats > 1 else name,
            )
            for nested in nesting.folds:
                inner = [evidence(problem, judged, each) for each in nested.inner]
                gathered[name].enter(nested.fold, inner, evidence(problem, judged, nested.outer), kind.build(seed))
    return {name: into.concluded(kinds[name].build(seed)) for name, into in gathered.items()}


class _Gathered:
    """What is known of one head after some folds."""

    def __init__(self, kind: HeadKind, data: TrainingData, n_repeats: int, prior: Prior) -> None:
        shape = n_repeats, data.n_scored, data.targets.n_classes
        self._kind, self._data, self._prior = kind, data, prior
        self._averaged, self._view_0 = np.zeros(shape), np.zeros(shape)
        self._inner: list[Inner] = []
        self._choices: list[Choice] = []
        self._outer: list[Evidence] = []

    def enter(self, fold: Fold, inner: Sequence[Evidence], outer: Evidence, head: Head) -> None:
        """Choose by what was said inside the fold, and keep what the head so chosen says of the held-out images."""
        shift = prior_shift(self._data, self._prior, fold.held_out)
        choice = choose(self._kind, head.get_params(), inner, shift)
        self._choices.append(choice)
        self._outer.append(outer)
        self._averaged[fold.repeat, outer.images] = self._said(outer, choice, shift)
        self._view_0[fold.repeat, outer.images] = self._said(outer, choice, shift, n_views=1)
        images: Indices = np.concatenate([np.arange(0), *(each.images for each in inner)])
        none = np.zeros((0, self._averaged.shape[2]))
        probabilities = np.concatenate([none, *(self._said(each, choice, shift) for each in inner)])
        order = np.argsort(images)
        self._inner.append(Inner(images[order], probabilities[order]))

    def _said(self, given: Evidence, choice: Choice, shift: Float64, n_views: int | None = None) -> Float64:
        scores, many = given.scores(choice.settings[self._kind.head.chosen]), self._data.targets.is_many
        return image_probabilities(scores, choice.settings["temperature"], shift, many=many, n_views=n_views)

    def concluded(self, head: Head) -> OutOfFold:
        """Choose for the final fit: by heads of all folds, each judged by the images that it never saw."""
        return OutOfFold(
            predictions=Predictions(averaged=self._averaged, view_0=self._view_0, inner=tuple(self._inner)),
            choices=tuple(self._choices),
            final=choose(self._kind, head.get_params(), self._outer, prior_shift(self._data, self._prior)),
        )


def fit_final(kind: HeadKind, data: TrainingData, choice: Choice) -> Head:
    """Fit a head on all images.

    Parameters
    ----------
    kind : HeadKind
    data : TrainingData
    choice : Choice
        From :func:`out_of_fold`.

    Returns
    -------
    fitted head
        Its classes are indices.
    """
    problem = data.problem()
    head: Head = kind.head(**choice.settings)
    candidate = choice.settings[kind.head.chosen]
    (last,) = (fits[0].head for fits in head.fit_sets(problem, [problem.whole], [candidate]))
    return last
