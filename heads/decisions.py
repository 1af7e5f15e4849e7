"""Which labels an image is called, where it may have many: by thresholds that are chosen inside the training folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from heads.arrays import Bool, Float64, Indices
from heads.folds import Fold
from heads.predictions import Predictions
from heads.targets import Targets
from heads.thresholds import Thresholds, apply_thresholds, choose_common, choose_each

EACH, COMMON = "each", "common"
_UNINFORMED = 0.5
N_RESAMPLES = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What images are called.

    Parameters
    ----------
    called : bool array, shape (n_repeats, n_images, n_classes)
        By thresholds that each image's fold did not see.
    view_0 : bool array, same shape
        By the same thresholds, of view 0 alone.
    thresholds : Thresholds
        For new images, chosen by the predictions of all folds, with intervals.
    in_folds : float64 array, shape (n_folds of all repeats, n_classes)
        The thresholds of each fold.
    """

    called: Bool
    view_0: Bool
    thresholds: Thresholds
    in_folds: Float64


def decide(
    predictions: Predictions,
    folds: Sequence[Fold],
    targets: Targets,
    groups: Indices | None,
    *,
    rule: str | float,
    at_least_one: bool,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Decisions:
    """Choose thresholds, and apply them to what was held out.

    Parameters
    ----------
    predictions : Predictions
        Of one head or an ensemble.
    folds : sequence of Fold
    targets : Targets
        Of many labels.
    groups : int64 array, shape (n_images,), or None
        What the intervals' bootstrap draws.
    rule : {"each", "common"} or float
        One threshold a class, one for all, or a constant.
    at_least_one : bool
        Whether an image below all thresholds is called by the class that comes closest.
    seed : int
        Of the bootstrap.
    n_resamples : int
        For the intervals of thresholds; 0 for none.

    Returns
    -------
    Decisions
    """
    called, view_0 = (np.zeros(predictions.averaged.shape, dtype=bool) for _ in range(2))
    in_folds = []
    for fold, inner in zip(folds, predictions.inner, strict=True):
        chosen = _choose(rule, targets.take(inner.images).members, inner.probabilities, None, seed, 0)
        in_folds.append(chosen.values)
        for into, probabilities in ((called, predictions.averaged), (view_0, predictions.view_0)):
            held_out = probabilities[fold.repeat, fold.held_out]
            into[fold.repeat, fold.held_out] = apply_thresholds(held_out, chosen.values, at_least_one=at_least_one)
    n_repeats, n_images, _ = predictions.averaged.shape
    # A repeat's predictions of an image are drawn together with the other repeats' of it.
    units = np.tile(np.arange(n_images) if groups is None else groups, n_repeats)
    members = np.tile(targets.members, (n_repeats, 1))
    final = _choose(rule, members, np.concatenate(list(predictions.averaged)), units, seed, n_resamples)
    return Decisions(called=called, view_0=view_0, thresholds=final, in_folds=np.array(in_folds))


def _choose(
    rule: str | float, members: Bool, probabilities: Float64, groups: Indices | None, seed: int, n_resamples: int
) -> Thresholds:
    if not isinstance(rule, str):
        return Thresholds.constant(rule, members.shape[1])
    if not len(members):
        return Thresholds.constant(_UNINFORMED, members.shape[1])
    choose = choose_each if rule == EACH else choose_common
    return choose(members, probabilities, groups, n_resamples=n_resamples, seed=seed)
