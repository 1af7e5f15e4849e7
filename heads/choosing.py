"""How a head's settings are chosen: on inner folds of the images that it may learn from, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from heads.catalogue import HEADS, Head, make_head
from heads.class_weights import ClassWeight, sample_weights
from heads.ensemble import average_views
from heads.folds import inner_folds
from heads.labels import Indices
from heads.metrics import image_losses
from heads.mlp import MLPHead

Features = NDArray[np.float32]
_TEMPERATURES = (0.02, 20.0)
_N_INNER_FOLDS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImages:
    """Images that a head may learn from.

    Parameters
    ----------
    X : float32 array, shape (n_images, n_views, n_columns)
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1.
    groups : int64 array, shape (n_images,), or None
    n_classes : int
    class_weight : {"balanced", "none"}
    """

    X: Features
    labels: Indices
    groups: Indices | None
    n_classes: int
    class_weight: ClassWeight

    def part(self, places: Indices) -> TrainingImages:
        """Return some of the images (a copy of their features)."""
        groups = None if self.groups is None else self.groups[places]
        return dataclasses.replace(self, X=self.X[places], labels=self.labels[places], groups=groups)

    def rows(self) -> tuple[Features, Indices, NDArray[np.float64]]:
        """Return features, labels and weights with a row for each view."""
        n_images, n_views, n_columns = self.X.shape
        weights = sample_weights(self.labels, self.class_weight)
        return self.X.reshape(n_images * n_views, n_columns), self.labels.repeat(n_views), weights.repeat(n_views)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Settings, and how they came about.

    Parameters
    ----------
    settings : dict
        Constructor parameters of the head.
    candidates : tuple of (float, float)
        Each candidate that was tried and its log-loss on the inner held-out images, in nats.
    training_loss : tuple of float
        Loss by epoch on the inner training rows; empty for heads without epochs.
    """

    settings: dict[str, Any]
    candidates: tuple[tuple[float, float], ...]
    training_loss: tuple[float, ...] = ()


def choose(name: str, images: TrainingImages, *, n_averaged: int, seed: int) -> Choice:
    """Choose a head's settings by the log-loss of inner held-out images, views averaged.

    Inner folds are stratified, and by group where there are groups. A candidate's temperature is fitted on the same
    inner held-out images.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    images : TrainingImages
        The training part of an outer fold (or all images, for the final fit).
    n_averaged : int
        How many views a prediction will be averaged over.
    seed : int

    Returns
    -------
    Choice
        Defaults where images cannot be divided, as all are of one group.
    """
    kind = HEADS[name]
    head = make_head(name)
    if "seed" in head.get_params():
        head.set_params(seed=seed)
    folds = [
        fold
        for fold in inner_folds(images.labels, images.groups, n_folds=_N_INNER_FOLDS, seed=seed)
        if len(np.unique(images.labels[fold.train])) > 1
    ][: kind.n_inner]
    if not folds:
        return Choice(settings=head.get_params(), candidates=())
    labels = np.concatenate([images.labels[fold.held_out] for fold in folds])
    held_out = [images.X[fold.held_out, :n_averaged].reshape(-1, images.X.shape[2]) for fold in folds]
    path = (*kind.watched, *kind.grid)
    # Lazy: a candidate that is never asked for is never fitted.
    fitted_by_fold = zip(*(head.fit_path(*images.part(fold.train).rows(), path) for fold in folds), strict=True)
    tried: list[_Tried] = []
    for candidate, fitted in zip(path, fitted_by_fold, strict=False):
        scores = [scores_of(each, X, images.n_classes) for each, X in zip(fitted, held_out, strict=True)]
        temperature, losses = fit_temperature(np.concatenate(scores, axis=1), labels, n_averaged)
        tried.append(_Tried(candidate, temperature, losses))
        if kind.stops_when_worse and tried[-1].loss > min(each.loss for each in tried):
            break
    eligible = [each for each in tried if each.candidate in kind.grid]
    best = min(eligible, key=lambda each: each.loss)
    if kind.prefers_last:
        best = _last_as_good(best, eligible)
    return Choice(
        settings=head.get_params() | {kind.chosen: best.candidate, "temperature": best.temperature},
        candidates=tuple((each.candidate, each.loss) for each in tried),
        training_loss=_training_loss(fitted),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate, its temperature, and the log-loss of each inner held-out image."""

    candidate: float
    temperature: float
    losses: NDArray[np.float64]

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


def _training_loss(heads: Sequence[Head]) -> tuple[float, ...]:
    """Mean over the inner folds, by epoch."""
    curves = [head.training_loss_ for head in heads if isinstance(head, MLPHead)]
    return tuple(np.mean(curves, axis=0).tolist()) if curves else ()


def _last_as_good(best: _Tried, eligible: Sequence[_Tried]) -> _Tried:
    """Find the last candidate that is not clearly worse than the best one.

    The loss of a few hundred images is noisy, and an epoch that leads by luck stops the schedule before its learning rate
    has come down: only a lead of more than one standard error counts (Breiman et al., 1984, in reverse).
    """

    def is_as_good(later: _Tried) -> bool:
        behind = later.losses - best.losses
        return bool(behind.mean() <= behind.std() / np.sqrt(len(behind)))

    return next(later for later in reversed(eligible) if later is best or is_as_good(later))


def scores_of(head: Head, X: Features, n_classes: int) -> NDArray[np.float64]:
    """Return what goes into the softmax, before the temperature.

    Parameters
    ----------
    head : fitted head
        Its classes are indices.
    X : float array, shape (n_rows, n_columns)
    n_classes : int

    Returns
    -------
    float64 array, shape (n_networks, n_rows, n_classes)
        Minus infinity for classes that the head never saw. One network, but for the MLP head.
    """
    raw = head.member_scores(X)
    scores = np.full((len(raw), len(X), n_classes), -np.inf)
    scores[:, :, head.classes_] = raw
    return scores


def fit_temperature(scores: NDArray[np.float64], labels: Indices, n_views: int) -> tuple[float, NDArray[np.float64]]:
    """Find the temperature with the lowest log-loss of the averaged probabilities (Guo et al., 2017).

    One image more is counted, whose label is unknown: the mean loss over images and classes. Without it a few dozen images,
    all predicted right, would have the temperature fall without end, and every later mistake cost the most there is (the
    reason for the targets of Platt, 1999).

    Parameters
    ----------
    scores : float array, shape (n_networks, n_images * n_views, n_classes)
    labels : int64 array, shape (n_images,)
    n_views : int

    Returns
    -------
    temperature : float
        0.02 to 20.
    losses : float64 array, shape (n_images,)
        Of each image at that temperature, in nats.
    """

    def probabilities(log_temperature: float) -> NDArray[np.float64]:
        return average_views(softmax(scores / np.exp(log_temperature), axis=2).mean(axis=0), n_views)

    def objective(log_temperature: float) -> float:
        predicted = probabilities(log_temperature)
        unknown = np.mean([image_losses(np.full_like(labels, index), predicted) for index in np.unique(labels)])
        return float(image_losses(labels, predicted).sum() + unknown)

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(objective, bounds=(low, high), method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x)), image_losses(labels, probabilities(float(found.x)))
