"""Out-of-fold predictions: for each image by heads that never saw it, nor its views, nor its group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from features_cache.progress import Progress
from heads.arrays import Float64, Indices
from heads.choosing import Choice, Evidence, choose, evidence
from heads.cross_fit import cross_fit
from heads.estimators.catalogue import HeadKind
from heads.estimators.head import Head
from heads.folds import Fold
from heads.nesting import Judgement, NestedFold, Nesting, asked_of, nest
from heads.predictions import Inner, Predictions
from heads.prior import Prior, prior_shift
from heads.probabilities import image_probabilities
from heads.problem import TrainingData
from heads.search import Searches, no_search, search_heads


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
    search : Searches, optional
        What was tried before, where a search was asked for.
    """

    predictions: Predictions
    choices: tuple[Choice, ...]
    final: Choice
    search: Searches | None = None


def out_of_fold(
    kinds: Mapping[str, HeadKind],
    data: TrainingData,
    folds: Sequence[Fold],
    *,
    n_averaged: int,
    prior: Prior = "balanced",
    seed: int,
    progress: Progress,
    n_settings: int = 0,
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
    n_settings : int
        How many settings of each head are searched first; see :mod:`heads.search`. 0: none.

    Returns
    -------
    dict of OutOfFold
        By name.
    """
    n_repeats = 1 + max(fold.repeat for fold in folds)
    gathered = {name: _Gathered(kind, data, folds, prior) for name, kind in kinds.items()}
    tuned = {name: no_search(kind, folds) for name, kind in kinds.items()}
    if n_settings:
        tuned = search_heads(
            kinds,
            data,
            folds,
            n_settings=n_settings,
            n_averaged=n_averaged,
            prior=prior,
            seed=seed,
            progress=progress,
        )
    scored = data.scored
    for repeat in range(n_repeats):
        own = [fold for fold in folds if fold.repeat == repeat]
        for name, kind in kinds.items():
            nesting = nest(
                own,
                scored,
                data.groups,
                n_inner_folds=kind.n_inner_folds,
                seed=seed,
                n_extra=len(data.targets) - data.n_scored,
            )
            problem = data.problem(nesting.cells)
            for wanted in _wanted(nesting, tuned[name]):
                judged = cross_fit(
                    wanted.kind.build(seed),
                    problem,
                    asked_of(wanted.judgements),
                    (*wanted.kind.watched, *wanted.kind.grid),
                    n_views=n_averaged,
                    progress=progress,
                    what=f"{name}, repeat {repeat + 1} of {n_repeats}" if n_repeats > 1 else name,
                )
                for nested in wanted.folds:
                    inner = [evidence(problem, judged, each) for each in nested.inner]
                    outer = evidence(problem, judged, nested.outer)
                    gathered[name].enter(nested.fold, inner, outer, wanted.kind, seed)
                gathered[name].enter_final([evidence(problem, judged, each) for each in wanted.of_final])
    found = {name: into.concluded(tuned[name].final.kind, seed) for name, into in gathered.items()}
    return {name: dataclasses.replace(oof, search=tuned[name] if n_settings else None) for name, oof in found.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is asked of one kind of head: by folds that chose it, and by the final fit if that did."""

    kind: HeadKind
    folds: tuple[NestedFold, ...]
    of_final: tuple[Judgement, ...]

    @property
    def judgements(self) -> list[Judgement]:
        of_folds = [judgement for nested in self.folds for judgement in (*nested.inner, nested.outer)]
        return [*of_folds, *self.of_final]


def _wanted(nesting: Nesting, tuned: Searches) -> list[_Wanted]:
    """Gather the folds that agree on a kind: they share training sets. Without a search that is all of them, and the final fit."""
    in_folds = [tuned.in_folds[nested.fold.repeat, nested.fold.number].kind for nested in nesting.folds]
    kinds: list[HeadKind] = []
    for kind in (*in_folds, tuned.final.kind):
        if kind not in kinds:
            kinds.append(kind)
    return [
        _Wanted(
            kind=kind,
            folds=tuple(nested for nested, own in zip(nesting.folds, in_folds, strict=True) if own == kind),
            of_final=tuple(nested.outer for nested in nesting.folds) if kind == tuned.final.kind else (),
        )
        for kind in kinds
    ]


class _Gathered:
    """What is known of one head after some folds."""

    def __init__(self, kind: HeadKind, data: TrainingData, folds: Sequence[Fold], prior: Prior) -> None:
        shape = 1 + max(fold.repeat for fold in folds), data.n_scored, data.targets.n_classes
        self._chosen, self._data, self._prior = kind.head.chosen, data, prior
        self._averaged, self._view_0 = np.zeros(shape), np.zeros(shape)
        self._order = [(fold.repeat, fold.number) for fold in folds]
        self._inner: dict[tuple[int, int], Inner] = {}
        self._choices: dict[tuple[int, int], Choice] = {}
        self._outer: list[Evidence] = []

    def enter(self, fold: Fold, inner: Sequence[Evidence], outer: Evidence, kind: HeadKind, seed: int) -> None:
        """Choose by what was said inside the fold, and keep what the head so chosen says of the held-out images."""
        shift = self._shift(kind, fold.held_out)
        choice = choose(kind, kind.build(seed).get_params(), inner, shift)
        self._choices[fold.repeat, fold.number] = choice
        self._averaged[fold.repeat, outer.images] = self._said(outer, choice, shift)
        self._view_0[fold.repeat, outer.images] = self._said(outer, choice, shift, n_views=1)
        images: Indices = np.concatenate([np.arange(0), *(each.images for each in inner)])
        none = np.zeros((0, self._averaged.shape[2]))
        probabilities = np.concatenate([none, *(self._said(each, choice, shift) for each in inner)])
        order = np.argsort(images)
        self._inner[fold.repeat, fold.number] = Inner(images[order], probabilities[order])

    def enter_final(self, outer: Sequence[Evidence]) -> None:
        """Keep what heads of the final fit's kind say of each fold's held-out images."""
        self._outer.extend(outer)

    def _shift(self, kind: HeadKind, held_out: Indices | None = None) -> Float64:
        return prior_shift(self._data, self._prior, held_out, weighs_members=kind.head.weighs_members)

    def _said(self, given: Evidence, choice: Choice, shift: Float64, n_views: int | None = None) -> Float64:
        scores, many = given.scores(choice.settings[self._chosen]), self._data.targets.is_many
        return image_probabilities(scores, choice.settings["temperature"], shift, many=many, n_views=n_views)

    def concluded(self, kind: HeadKind, seed: int) -> OutOfFold:
        """Choose for the final fit: by heads of all folds, each judged by the images that it never saw."""
        inner = tuple(self._inner[key] for key in self._order)
        return OutOfFold(
            predictions=Predictions(averaged=self._averaged, view_0=self._view_0, inner=inner),
            choices=tuple(self._choices[key] for key in self._order),
            final=choose(kind, kind.build(seed).get_params(), self._outer, self._shift(kind)),
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
