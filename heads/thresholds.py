"""Decision thresholds: from which probability on an image is called of a class, where it may be of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from features_cache.errors import OptionError, RunError
from heads.arrays import Float, Float64, Indices
from heads.metrics.bootstrap import interval, resampled_weights
from heads.metrics.ranking import Ranking, rank_all, require_probabilities
from heads.targets import LEAST_PROBABILITY

SCAN: Float64 = np.concatenate([[0.001, 0.002, 0.005], np.arange(1, 100) / 100])
"""Candidates for the threshold of all classes; finer below, where the probabilities of rare classes are."""

N_SHRINK = 5.0
"""How many images of a class weigh as much as the common threshold.

In 400 simulated sets of 8,000 images and 11 classes, each calibrated or off by a logit or so, F1 out of sample rose by 0.005 to
0.014 where a class had 10 images, by 0.003 to 0.005 where it had 20, by 0.001 where it had 50, and fell nowhere. With 10 in its
place, classes of 10 images lost 0.001 where calibration was worst; with 0 there is no shrinking.
"""

_N_RESAMPLES = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thresholds:
    """One threshold for each class: an image is called of a class where its probability is no less.

    Parameters
    ----------
    values : float64 array, shape (n_classes,)
        0 to 1.
    low, high : float64 arrays, shape (n_classes,)
        95 % percentile interval; the values themselves where they were given. A value may lie outside.
    common : float
        The threshold for all classes, from which those of rare classes stray little.
    kind : {"given", "common", "each"}
        Where they come from: the user, one choice for all classes, or one for each.
    """

    values: Float64
    low: Float64
    high: Float64
    common: float
    kind: Literal["given", "common", "each"]

    @classmethod
    def constant(cls, value: float, n_classes: int) -> Self:
        """Give all classes the same threshold.

        Parameters
        ----------
        value : float
            0 to 1.
        n_classes : int

        Raises
        ------
        OptionError
            If the value is not in 0 to 1.
        """
        if not 0 <= value <= 1:
            msg = f"a threshold of {value}; expected a probability, 0 to 1. Half is 0.5"
            raise OptionError(msg)
        values = np.full(n_classes, float(value))
        return cls(values=values, low=values, high=values, common=float(value), kind="given")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        edges = {"values": self.values.tolist(), "low": self.low.tolist(), "high": self.high.tolist()}
        return {"kind": self.kind, "common": self.common, **edges}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild thresholds from :meth:`to_json`.

        Raises
        ------
        RunError
            If a field is missing, or not what it should be.
        """
        try:
            values, low, high = (np.array(fields[name], dtype=np.float64) for name in ("values", "low", "high"))
            kind, common = fields["kind"], float(fields["common"])
        except (KeyError, TypeError, ValueError) as error:
            msg = (
                f"thresholds {dict(fields)!r}: {error!r}; expected kind, common, values, low, high. Fit the heads anew"
            )
            raise RunError(msg) from error
        in_range = all(edge.shape == values.shape and ((edge >= 0) & (edge <= 1)).all() for edge in (values, low, high))
        if kind not in {"given", "common", "each"} or values.ndim != 1 or not in_range or not 0 <= common <= 1:
            msg = f"thresholds {dict(fields)!r}; expected a known kind and lists of probabilities. Fit the heads anew"
            raise RunError(msg)
        return cls(values=values, low=low, high=high, common=common, kind=kind)


def choose_common(
    members: NDArray[np.bool_],
    probabilities: Float,
    groups: Indices | None = None,
    *,
    n_resamples: int = _N_RESAMPLES,
    seed: int = 0,
) -> Thresholds:
    """Choose one threshold for all classes: that of ``SCAN`` with the highest macro F1, the middle one of equals.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
        Which classes each image is of.
    probabilities : float array, shape (n_images, n_classes)
        0 to 1, from heads that did not see these images.
    groups : int64 array, shape (n_images,), optional
        0 to n_groups - 1; what the bootstrap draws.
    n_resamples : int
        For the intervals; 0 for thresholds without them: both edges are the threshold.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Thresholds

    Raises
    ------
    LabelError
        If shapes differ, or a probability is not in 0 to 1.
    """
    rankings = rank_all(members, probabilities)
    n_classes = len(rankings)

    def chosen(weights: Indices) -> Float64:
        return np.repeat(_scan(rankings, weights)[:, None], n_classes, axis=1)

    value = chosen(np.ones((1, len(members)), dtype=np.int64))[0]
    pieces = resampled_weights(len(members), groups, n_resamples=n_resamples, seed=seed)
    low, high = interval(np.concatenate([chosen(weights) for weights in pieces] or [value[None]]))
    return Thresholds(values=value, low=low, high=high, common=float(value[0]), kind="common")


def choose_each(
    members: NDArray[np.bool_],
    probabilities: Float,
    groups: Indices | None = None,
    *,
    n_shrink: float = N_SHRINK,
    n_resamples: int = _N_RESAMPLES,
    seed: int = 0,
) -> Thresholds:
    """Choose a threshold for each class: that with its highest F1, drawn towards the common one where the class is rare.

    Every cut between different probabilities is tried; of equals the highest wins, and it lies midway between its neighbours.
    Then ``logit(t_k) <- w logit(t_k) + (1 - w) logit(common)`` with ``w = n_k / (n_k + n_shrink)``, where class ``k`` has
    ``n_k`` images: ten images say little of where to cut. A class without images has the common threshold.

    Parameters
    ----------
    members, probabilities, groups, n_resamples, seed
        As for :func:`choose_common`, which chooses the common threshold.
    n_shrink : float
        At least 0, which is no shrinking.

    Returns
    -------
    Thresholds

    Raises
    ------
    LabelError
        If shapes differ, or a probability is not in 0 to 1.
    OptionError
        If ``n_shrink`` is negative.
    """
    if not n_shrink >= 0:
        msg = f"n_shrink {n_shrink}; expected at least 0. Use {N_SHRINK} where nothing speaks against it"
        raise OptionError(msg)
    rankings = rank_all(members, probabilities)

    def chosen(weights: Indices) -> tuple[Float64, Float64]:
        common = _scan(rankings, weights)
        return common, np.column_stack([_shrunk(each, weights, common, n_shrink) for each in rankings])

    common, values = chosen(np.ones((1, len(members)), dtype=np.int64))
    pieces = resampled_weights(len(members), groups, n_resamples=n_resamples, seed=seed)
    low, high = interval(np.concatenate([chosen(weights)[1] for weights in pieces] or [values]))
    return Thresholds(values=values[0], low=low, high=high, common=float(common[0]), kind="each")


def _scan(rankings: Sequence[Ranking], weights: Indices) -> Float64:
    """Find the best common threshold under each of many weights: float64 array, shape (n_resamples,)."""
    total, n_counted = np.zeros((len(weights), len(SCAN))), np.zeros((len(weights), len(SCAN)), dtype=np.int64)
    for ranking in rankings:
        f1, is_counted = _f1(ranking, weights, ranking.ranks(SCAN))
        total += f1
        n_counted += is_counted
    macro_f1 = total / np.maximum(n_counted, 1)
    best = [np.flatnonzero(row == row.max()) for row in macro_f1]
    return SCAN[[equals[len(equals) // 2] for equals in best]]


def _f1(ranking: Ranking, weights: Indices, ranks: Indices) -> tuple[Float64, NDArray[np.bool_]]:
    """Compute F1 above cuts, and whether the class has an image or a call there."""
    hits, called = ranking.counts(weights, ranks)
    both = called + weights[:, ranking.order[ranking.places]].sum(axis=1, keepdims=True)
    return 2 * hits / np.maximum(both, 1), both > 0


def _shrunk(ranking: Ranking, weights: Indices, common: Float64, n_shrink: float) -> Float64:
    """Find the best threshold of one class under each of many weights: float64 array, shape (n_resamples,)."""
    if not ranking.cuts.size:
        return common
    f1, _ = _f1(ranking, weights, ranking.cuts)
    own = ranking.thresholds()[f1.argmax(axis=1)]
    n_images = weights[:, ranking.order[ranking.places]].sum(axis=1)
    share = np.where(n_images > 0, n_images / np.maximum(n_images + n_shrink, 1), 0.0)
    drawn: Float64 = expit(share * _logit(own) + (1 - share) * _logit(common))
    # There and back again through logits would move a cut by a rounding error, past its neighbour.
    return np.where(share == 1, own, drawn)


def _logit(probabilities: Float) -> Float64:
    found: Float64 = logit(np.clip(probabilities.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    return found


def apply_thresholds(probabilities: Float, thresholds: Float64, *, at_least_one: bool) -> NDArray[np.bool_]:
    """Call each image of the classes whose probability is no less than the threshold.

    Parameters
    ----------
    probabilities : float array, shape (n_images, n_classes)
        0 to 1.
    thresholds : float64 array, shape (n_classes,) or (n_images, n_classes)
        0 to 1; one a class, or an image's own, as where each fold chose its thresholds.
    at_least_one : bool
        Call an image that reaches no threshold of the class with the largest ``logit(probability) - logit(threshold)``, the
        first of equals. What shifts the logits of a class, such as weights or another prior, shifts both and changes nothing
        in that choice; it would change the ratio of probability and threshold.

    Returns
    -------
    bool array, shape (n_images, n_classes)

    Raises
    ------
    LabelError
        If a probability is not in 0 to 1.

    Examples
    --------
    >>> apply_thresholds(np.array([[0.6, 0.3], [0.4, 0.1]]), np.array([0.5, 0.2]), at_least_one=True).tolist()
    [[True, True], [True, False]]
    """
    require_probabilities(probabilities)
    called: NDArray[np.bool_] = probabilities.astype(np.float64) >= thresholds
    if at_least_one:
        empty = np.flatnonzero(~called.any(axis=1))
        nearest = (_logit(probabilities) - _logit(np.asarray(thresholds))).argmax(axis=1)
        called[empty, nearest[empty]] = True
    return called
