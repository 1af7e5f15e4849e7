"""The ensemble: its members' probabilities averaged, plainly or with weights that are chosen inside the training folds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from heads.arrays import Float, Float64, Indices
from heads.folds import Fold
from heads.parents import mean_by_parent
from heads.predictions import Inner, Predictions
from heads.targets import Targets

NAME = "ensemble"
Kind = Literal["average", "greedy"]
_N_ROUNDS = 50


T = TypeVar("T")


def overall(by_head: Mapping[str, T]) -> T:
    """Return what belongs to the ensemble, or to the one head that there is.

    Examples
    --------
    >>> overall({"ridge": 1, "mlp": 2, "ensemble": 3}), overall({"ridge": 1})
    (3, 1)
    """
    if NAME in by_head:
        return by_head[NAME]
    (only,) = by_head.values()
    return only


def average(probabilities: Sequence[Float], weights: Sequence[float] | None = None) -> Float64:
    """Average probabilities over heads (or runs).

    Parameters
    ----------
    probabilities : sequence of float arrays, shape (..., n_images, n_classes)
        At least one.
    weights : sequence of float, optional
        Not negative; all the same unless given.

    Returns
    -------
    float64 array of the same shape

    Examples
    --------
    >>> average([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])]).tolist()
    [[0.75, 0.25]]
    """
    weights = [1.0] * len(probabilities) if weights is None else weights
    total = np.zeros(probabilities[0].shape)
    for member, weight in zip(probabilities, weights, strict=True):
        total += weight * member
    return total / sum(weights)


def greedy_weights(probabilities: Sequence[Float], targets: Targets, parents: Indices | None = None) -> list[float]:
    """Weigh members by forward selection with replacement (Caruana et al., 2004).

    Fifty times the member is added that lowers the log-loss of the average most; the weights are the shares of those added until
    the loss was lowest.

    Parameters
    ----------
    probabilities : sequence of float arrays, shape (n_images, n_classes)
    targets : Targets
        Of the images.
    parents : int64 array, shape (n_images,), optional
        Of images that were cut from others: those of one parent count as one.

    Returns
    -------
    list of float
        Of each member; sum 1.

    Examples
    --------
    >>> from heads.targets import OneLabel
    >>> right, wrong = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    >>> greedy_weights([wrong, right], OneLabel(np.array([0]), 2))
    [0.0, 1.0]
    """
    total = np.zeros(probabilities[0].shape)
    added: list[int] = []
    losses: list[float] = []
    for n_added in range(1, 1 + _N_ROUNDS):
        losses_of = (targets.losses((total + member) / n_added) for member in probabilities)
        tried = [float(mean_by_parent(each, parents).mean()) for each in losses_of]
        best = int(np.argmin(tried))
        added.append(best)
        losses.append(tried[best])
        total += probabilities[best]
    kept = added[: 1 + int(np.argmin(losses))]
    return [kept.count(place) / len(kept) for place in range(len(probabilities))]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Members averaged.

    Parameters
    ----------
    predictions : Predictions
        Each fold's by weights that were chosen inside its training images.
    weights : dict of str to float
        By member, for new images.
    weights_in_folds : tuple of dict
        Of each fold.
    """

    predictions: Predictions
    weights: dict[str, float]
    weights_in_folds: tuple[dict[str, float], ...]


def combine(
    members: Mapping[str, Predictions],
    folds: Sequence[Fold],
    targets: Targets,
    kind: Kind,
    parents: Indices | None = None,
) -> Ensemble:
    """Average members' predictions.

    Parameters
    ----------
    members : mapping of str to Predictions
        Of all heads, by name.
    folds : sequence of Fold
    targets : Targets
        Of all images.
    kind : {"average", "greedy"}
    parents : int64 array, shape (n_images,), optional
        As of :func:`greedy_weights`.

    Returns
    -------
    Ensemble
    """
    all_members = list(members.values())
    averaged, view_0 = np.zeros_like(all_members[0].averaged), np.zeros_like(all_members[0].view_0)
    inner, weights_in_folds = [], []
    for place, fold in enumerate(folds):
        parts = [member.inner[place] for member in all_members]
        images = functools.reduce(np.intersect1d, [part.images for part in parts])
        probabilities = [part.of(images) for part in parts]
        weights = _weights(probabilities, targets.take(images), kind, None if parents is None else parents[images])
        inner.append(Inner(images, average(probabilities, weights)))
        weights_in_folds.append(dict(zip(members, weights, strict=True)))
        for into, of in ((averaged, "averaged"), (view_0, "view_0")):
            held_out = [getattr(member, of)[fold.repeat, fold.held_out] for member in all_members]
            into[fold.repeat, fold.held_out] = average(held_out, weights)
    n_repeats = len(averaged)
    pooled = [np.concatenate(list(member.averaged)) for member in all_members]
    repeated = np.tile(np.arange(len(targets)), n_repeats)
    final = _weights(pooled, targets.take(repeated), kind, None if parents is None else parents[repeated])
    return Ensemble(
        predictions=Predictions(averaged=averaged, view_0=view_0, inner=tuple(inner)),
        weights=dict(zip(members, final, strict=True)),
        weights_in_folds=tuple(weights_in_folds),
    )


def _weights(probabilities: Sequence[Float], targets: Targets, kind: Kind, parents: Indices | None) -> list[float]:
    if kind == "greedy" and len(targets):
        return greedy_weights(probabilities, targets, parents)
    return [1 / len(probabilities)] * len(probabilities)
