"""Fit one kind of head on every training set of a nesting, and keep what it says of images that it never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from features_cache.progress import Progress
from heads.arrays import Float32, Indices
from heads.estimators.head import Fit, Head
from heads.problem import Problem, TrainingSet
from heads.scores import Scores, ScoresOnDisk


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """What the heads of one training set say of images that it does not hold.

    Parameters
    ----------
    images : int64 array, shape (n,)
        Places of the images, ascending.
    scores : Scores
        By candidate: outputs before the temperature.
    training_loss : dict of float to tuple of float
        By candidate: loss by epoch, of heads that have epochs.
    """

    images: Indices
    scores: Scores
    training_loss: dict[float, tuple[float, ...]]

    def of(self, images: Indices, candidate: float) -> Float32 | ScoresOnDisk:
        """Return the scores of some of the images: an array, or where they lie."""
        return self.scores.of(np.searchsorted(self.images, images), candidate)


def cross_fit(
    head: Head,
    problem: Problem,
    asked: Mapping[TrainingSet, Collection[int]],
    candidates: Sequence[float],
    *,
    n_views: int,
    progress: Progress,
    what: str,
) -> dict[TrainingSet, Judged]:
    """Fit a head on every set for every candidate, and let it judge.

    Parameters
    ----------
    head : Head
        Unfitted, with the settings that are not chosen.
    problem : Problem
    asked : mapping of TrainingSet to cells
        What the heads of each set are asked about.
    candidates : sequence of float
    n_views : int
        How many views of an image are judged.
    progress : callable
        Called with what is done, how many fits are done, how many there are.
    what : str
        What to say is being done.

    Returns
    -------
    dict of Judged
    """
    sets = list(asked)
    folder = None if problem.memory is None else problem.memory.folder
    judged = {}
    for cells in sets:
        images = problem.images_of(asked[cells])
        judged[cells] = Judged(images, Scores(len(images), n_views, problem.n_classes, folder), {})
    n_done, n_fits = 0, len(sets) * len(candidates)
    progress(what, n_done, n_fits)
    for fits in head.fit_sets(problem, sets, candidates):
        for fit in fits:
            into = judged[sets[fit.place]]
            into.training_loss[fit.candidate] = tuple(getattr(fit.head, "training_loss_", ()))
        _judge(problem, fits, [judged[sets[fit.place]] for fit in fits], n_views)
        n_done += len(fits)
        progress(what, n_done, n_fits)
    return judged


def _judge(problem: Problem, fits: Sequence[Fit], into: Sequence[Judged], n_views: int) -> None:
    """Enter the scores of some heads, in one pass over the rows that any of them is asked about."""
    rows = problem.rows
    images = np.unique(np.concatenate([each.images for each in into]))
    by_place = {
        place: [(fit, judged) for fit, judged in zip(fits, into, strict=True) if fit.place == place]
        for place in sorted({fit.place for fit in fits})
    }
    for here, chunk in rows.chunks(images, n_views):
        by_image = chunk.reshape(len(here), n_views, rows.n_columns)
        for own in by_place.values():
            wanted = np.isin(here, own[0][1].images)
            if not wanted.any():
                continue
            seen = by_image if wanted.all() else by_image[torch.from_numpy(np.flatnonzero(wanted)).to(rows.device)]
            heads = [fit.head for fit, _ in own]
            outputs = type(heads[0]).outputs_of(heads, seen.reshape(-1, rows.n_columns))
            for (fit, judged), raw in zip(own, outputs, strict=True):
                places = np.searchsorted(judged.images, here[wanted])
                judged.scores.enter(fit.candidate, places, fit.head.classes_, raw.float().cpu().numpy())
