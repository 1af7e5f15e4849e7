"""The search for a head's settings by successive halving, inside training images: the held-out ones have no part in it."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from features_cache.progress import Progress, silent
from heads.arrays import Float64
from heads.choosing import Diverged, choose, evidence
from heads.cross_fit import cross_fit
from heads.estimators.catalogue import HeadKind
from heads.folds import Fold
from heads.ladder import KEPT, Ladder, make_ladder
from heads.nesting import Judgement
from heads.prior import Prior, prior_shift
from heads.problem import Problem, TrainingData


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Settings on one rung.

    Parameters
    ----------
    drawn : dict
        What differs from the head's default; empty for the default itself.
    rung : int
        From 0.
    n_images : int
        How many were learned from.
    loss : float
        Of the judged images, in nats, with the best candidate of the grid and its temperature; infinite where it is no number.
    """

    drawn: dict[str, float]
    rung: int
    n_images: int
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self) | {"loss": self.loss if math.isfinite(self.loss) else None}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was tried for one head inside one set of training images.

    Parameters
    ----------
    kind : HeadKind
        The head with the settings that won.
    won : dict
        What of them differs from the default.
    trials : tuple of Trial
        Rung by rung; empty where nothing could be compared.
    """

    kind: HeadKind
    won: dict[str, float] = dataclasses.field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"won": self.won, "trials": [trial.to_json() for trial in self.trials]}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """The searches for one head: inside each fold's training images, and for the final fit on all images.

    Parameters
    ----------
    in_folds : dict of Search
        By repeat and number of the fold.
    final : Search
    """

    in_folds: dict[tuple[int, int], Search]
    final: Search

    @property
    def n_fits(self) -> int:
        """How many settings were fitted on a rung, grids counting once."""
        return sum(len(search.trials) for search in (*self.in_folds.values(), self.final))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        folds = [
            {"repeat": repeat, "fold": fold} | search.to_json() for (repeat, fold), search in self.in_folds.items()
        ]
        return {"n_fits": self.n_fits, "folds": folds, "final": self.final.to_json()}


def no_search(kind: HeadKind, folds: Sequence[Fold]) -> Searches:
    """Leave a head as it is."""
    return Searches(in_folds={(fold.repeat, fold.number): Search(kind=kind) for fold in folds}, final=Search(kind=kind))


def search_heads(
    kinds: Mapping[str, HeadKind],
    data: TrainingData,
    folds: Sequence[Fold],
    *,
    n_settings: int,
    n_averaged: int,
    prior: Prior,
    seed: int,
    progress: Progress,
) -> dict[str, Searches]:
    """Search settings for every head, inside each fold's training images and, for the final fit, inside all images.

    Successive halving (Jamieson and Talwalkar, 2016): all settings learn from a ninth of the images, the best third of them from
    a third, the best ninth from all but those that judge (:mod:`heads.ladder`); fewer than ten settings begin higher up, so that
    two at least meet on the highest rung. The head as it is, with its whole grid, is among them and climbs all rungs
    whatever comes: what wins has beaten it on the highest.

    Parameters
    ----------
    kinds : mapping of str to HeadKind
    data : TrainingData
    folds : sequence of Fold
    n_settings : int
        For each head, its default included, 2 or more; the same ones in every fold.
    n_averaged : int
        How many views, from view 0 on, a prediction is averaged over.
    prior : {"balanced", "train"}
    seed : int
        Of the settings, and of the division of training images.
    progress : callable
        Told the number of fits before the first one.

    Returns
    -------
    dict of Searches
        By name.
    """
    drawn = {name: draw_settings(name, kind, n_settings, seed) for name, kind in kinds.items()}
    places = [*folds, None]
    trains = [np.arange(data.n_scored) if fold is None else fold.train for fold in places]
    ladders = [make_ladder(data, train, seed=seed) for train in trains]
    n_fits = sum(sum(climbers(len(each), ladder)) for each in drawn.values() for ladder in ladders)
    what = f"search of {n_settings} settings a head: {n_fits} fits"
    found: dict[str, list[Search]] = {name: [] for name in kinds}
    n_done = 0
    progress(what, n_done, n_fits)
    for fold, ladder in zip(places, ladders, strict=True):
        for name, kind in kinds.items():
            trials = []
            held_out = None if fold is None else fold.held_out
            shift = prior_shift(data, prior, held_out, weighs_members=kind.head.weighs_members)
            if ladder is not None:
                for trial in _climb(kind, drawn[name], data, ladder, shift, n_averaged=n_averaged, seed=seed):
                    trials.append(trial)
                    n_done += 1
                    progress(what, n_done, n_fits)
            found[name].append(_concluded(kind, trials))
    keys = [(fold.repeat, fold.number) for fold in folds]
    return {
        name: Searches(in_folds=dict(zip(keys, searches[:-1], strict=True)), final=searches[-1])
        for name, searches in found.items()
    }


def draw_settings(name: str, kind: HeadKind, n_settings: int, seed: int) -> list[dict[str, float]]:
    """Draw settings of a head, the same for the same seed and name.

    Returns
    -------
    list of dict
        What differs from the default; the first is empty: the default itself. One alone where there is nothing to draw.
    """
    drawn: list[dict[str, float]] = [{}]
    if kind.space:
        # Of the name too: two heads of one kind look at different settings.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn += [{key: space.draw(rng) for key, space in kind.space.items()} for _ in range(n_settings - 1)]
    return drawn


def climbers(n_settings: int, ladder: Ladder | None) -> list[int]:
    """Return how many settings are on each rung that is used, the highest last.

    Examples
    --------
    >>> rungs = Ladder(cells=np.arange(5), rungs=tuple(frozenset(range(n)) for n in (1, 2, 3)), judged=frozenset([3]))
    >>> climbers(27, rungs), climbers(5, rungs), climbers(2, rungs), climbers(1, rungs)
    ([27, 9, 3], [5, 2], [2], [])
    """
    if ladder is None or n_settings < 2:
        return []
    sizes = [math.ceil(n_settings / KEPT**rung) for rung in range(len(ladder.rungs))]
    return [size for size in sizes if size > 1]


def with_drawn(kind: HeadKind, drawn: Mapping[str, float]) -> HeadKind:
    """Return a head with some settings instead of its own; a candidate that was drawn is the whole grid."""
    if not drawn:
        return kind
    settings = {name: value for name, value in drawn.items() if name != kind.head.chosen}
    grid = (drawn[kind.head.chosen],) if kind.head.chosen in drawn else kind.grid
    return dataclasses.replace(kind, settings={**kind.settings, **settings}, grid=grid)


def _climb(
    kind: HeadKind,
    drawn: Sequence[dict[str, float]],
    data: TrainingData,
    ladder: Ladder,
    shift: Float64,
    *,
    n_averaged: int,
    seed: int,
) -> Iterator[Trial]:
    """Try all settings on the lowest rung that is used, and the best ones on the next."""
    sizes = climbers(len(drawn), ladder)
    left = list(range(len(drawn)))
    for step, size in enumerate(sizes):
        rung = len(ladder.rungs) - len(sizes) + step
        judgement = Judgement(learned=ladder.rungs[rung], judged=ladder.judged)
        left = left[:size] if 0 in left[:size] else [*left[: size - 1], 0]
        losses = {}
        for place in sorted(left):
            one = with_drawn(kind, drawn[place])
            losses[place] = _loss(one, ladder.problem(data), judgement, shift, n_averaged=n_averaged, seed=seed)
            yield Trial(drawn=drawn[place], rung=rung, n_images=ladder.n_images(rung), loss=losses[place])
        left.sort(key=losses.__getitem__)


def _loss(
    kind: HeadKind, problem: Problem, judgement: Judgement, shift: Float64, *, n_averaged: int, seed: int
) -> float:
    """Fit settings on a rung, and return the loss of the images that judge, in nats."""
    head = kind.build(seed)
    asked = {judgement.learned: judgement.judged}
    said = cross_fit(head, problem, asked, kind.grid, n_views=n_averaged, progress=silent, what="")
    unwatched = dataclasses.replace(kind, watched=())
    try:
        choice = choose(unwatched, head.get_params(), [evidence(problem, said, judgement)], shift)
    except Diverged:  # by a learning rate too large for these features, say: others were tried, too
        return math.inf
    return dict(choice.candidates)[choice.settings[kind.head.chosen]]


def _concluded(kind: HeadKind, trials: Sequence[Trial]) -> Search:
    if not trials:
        return Search(kind=kind)
    # Of equals the first: the default.
    best = min((trial for trial in trials if trial.rung == trials[-1].rung), key=lambda trial: trial.loss)
    return Search(kind=with_drawn(kind, best.drawn), won=best.drawn, trials=tuple(trials))
