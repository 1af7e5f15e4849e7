"""How a head's settings are chosen: by what heads say of images that they never saw, inside the training images."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from features_cache.errors import OptionError
from heads.arrays import Float32, Float64, Indices
from heads.cross_fit import Judged
from heads.estimators.catalogue import HeadKind
from heads.nesting import Judgement
from heads.parents import mean_by_parent
from heads.probabilities import image_probabilities
from heads.problem import Problem, TrainingSet
from heads.scores import ScoresOnDisk, join_scores
from heads.targets import Targets

_TEMPERATURES = (0.02, 20.0)


class Diverged(OptionError):
    """No candidate of a head has outputs that are numbers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Settings, and how they came about.

    Parameters
    ----------
    settings : dict
        Constructor parameters of the head.
    candidates : tuple of (float, float)
        Each candidate that was tried and its log-loss on the judged images, in nats; infinite where it has diverged.
    training_loss : tuple of float
        Loss by epoch on the rows that were learned from; empty for heads without epochs.
    """

    settings: dict[str, Any]
    candidates: tuple[tuple[float, float], ...]
    training_loss: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What heads of one training set say of some images that it does not hold.

    Parameters
    ----------
    judged : Judged
    images : int64 array, shape (n,)
    targets : Targets
    parents : int64 array, shape (n,), or None
        As of :class:`heads.problem.TrainingData`.
    """

    judged: Judged
    images: Indices
    targets: Targets
    parents: Indices | None

    def scores(self, candidate: float) -> Float32 | ScoresOnDisk:
        """Return what a candidate's heads said, shape (n_members, n, n_views, n_classes), or where it lies."""
        return self.judged.of(self.images, candidate)


def evidence(problem: Problem, judged: Mapping[TrainingSet, Judged], judgement: Judgement) -> Evidence:
    """Gather what a judgement says."""
    images = problem.images_of(judgement.judged)
    parents = None if problem.parents is None else problem.parents[images]
    targets = problem.targets.take(images)
    return Evidence(judged=judged[judgement.learned], images=images, targets=targets, parents=parents)


def choose(kind: HeadKind, settings: Mapping[str, Any], given: Sequence[Evidence], shift: Float64) -> Choice:
    """Choose a head's settings by the log-loss of judged images, views averaged.

    A candidate's temperature is fitted on the same images.

    Parameters
    ----------
    kind : HeadKind
    settings : mapping
        Of the head, as far as they are not chosen.
    given : sequence of Evidence
        What to go by; none for the defaults.
    shift : float64 array, shape (n_classes,)
        To the prior that probabilities shall speak of; see :mod:`heads.prior`.

    Returns
    -------
    Choice

    Raises
    ------
    Diverged
        If no candidate has a loss.
    """
    if not given:
        return Choice(settings=dict(settings), candidates=())
    first, *others = (each.targets for each in given)
    targets = functools.reduce(lambda joined, each: joined.join(each), others, first)
    known = [each.parents for each in given if each.parents is not None]
    parents = np.concatenate(known) if known else None
    tried: list[_Tried] = []
    for candidate in (*kind.watched, *kind.grid):
        scores = join_scores([each.scores(candidate) for each in given])
        tried.append(_Tried(candidate, *fit_temperature(scores, targets, shift, parents)))
    eligible = [each for each in tried if each.candidate in kind.grid]
    best = min(eligible, key=lambda each: each.loss)
    if not math.isfinite(best.loss):
        own = ", ".join(f"{name} {value:g}" for name, value in settings.items() if isinstance(value, float))
        msg = (
            f"{kind.head.__name__} ({own}): its outputs are no numbers for any {kind.head.chosen} of "
            f"{', '.join(f'{value:g}' for value in kind.grid)}; expected finite ones. Give it a lower learning_rate or a stronger penalty"
        )
        raise Diverged(msg)
    if kind.prefers_last:
        best = _last_as_good(best, eligible)
    curves = [each.judged.training_loss[tried[-1].candidate] for each in given]
    return Choice(
        settings=dict(settings) | {kind.head.chosen: best.candidate, "temperature": best.temperature},
        candidates=tuple((each.candidate, each.loss) for each in tried),
        training_loss=tuple(np.mean(curves, axis=0).tolist()),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate, its temperature, and the log-loss of each judged image."""

    candidate: float
    temperature: float
    losses: Float64

    @property
    def loss(self) -> float:
        """Mean, in nats; infinite where a head has diverged: no number is worse than any."""
        mean = float(self.losses.mean())
        return mean if math.isfinite(mean) else math.inf


def _last_as_good(best: _Tried, eligible: Sequence[_Tried]) -> _Tried:
    """Find the last candidate that is not clearly worse than the best one.

    The loss of a few hundred images is noisy, and an epoch that leads by luck stops the schedule before its learning rate
    has come down: only a lead of more than one standard error counts (Breiman et al., 1984, in reverse).
    """

    def is_as_good(later: _Tried) -> bool:
        behind = later.losses - best.losses
        return bool(behind.mean() <= behind.std() / np.sqrt(len(behind)))

    return next(later for later in reversed(eligible) if later is best or is_as_good(later))


def fit_temperature(
    scores: Float32 | ScoresOnDisk, targets: Targets, shift: Float64 | float = 0.0, parents: Indices | None = None
) -> tuple[float, Float64]:
    """Find the temperature with the lowest log-loss of the averaged probabilities (Guo et al., 2017).

    One image more is counted, whose label is unknown: the mean loss over images and classes. Without it a few dozen images,
    all predicted right, would have the temperature fall without end, and every later mistake cost the most there is (the
    reason for the targets of Platt, 1999).

    Parameters
    ----------
    scores : float array, shape (n_members, n_images, n_views, n_classes), or ScoresOnDisk
    targets : Targets
    shift : float64 array, shape (n_classes,)
        Added to outputs after the temperature.
    parents : int64 array, shape (n_images,), optional
        Of images that were cut from others: those of one parent count as one, by their mean loss.

    Returns
    -------
    temperature : float
        0.02 to 20.
    losses : float64 array, shape (n_images,), or (n_parents,)
        Of each image at that temperature, or of each parent, in nats.
    """

    def predicted(temperature: float) -> Float64:
        return image_probabilities(scores, temperature, shift, many=targets.is_many)

    def objective(log_temperature: float) -> float:
        probabilities = predicted(float(np.exp(log_temperature)))
        losses = mean_by_parent(targets.losses(probabilities), parents)
        return float(losses.sum() + targets.loss_of_any(probabilities))

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(objective, bounds=(low, high), method="bounded", options={"xatol": 0.02})
    temperature = float(np.exp(found.x))
    return temperature, mean_by_parent(targets.losses(predicted(temperature)), parents)
