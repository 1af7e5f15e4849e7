"""How a head's settings are chosen: on inner folds of the images that it may learn from, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from heads.catalogue import HEADS, Head, make_head
from heads.class_weights import ClassWeight, sample_weights
from heads.ensemble import average_views
from heads.folds import Fold, inner_folds
from heads.labels import Indices
from heads.metrics import image_losses
from heads.mlp import MLPHead
from heads.ridge import RidgeHead

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
    fixed = {"seed": seed} if name == "mlp" else {}
    folds = [
        fold
        for fold in inner_folds(images.labels, images.groups, n_folds=_N_INNER_FOLDS, seed=seed)
        if _trains(fold, images)
    ]
    folds = folds[: kind.n_inner]
    if not folds:
        return Choice(settings=make_head(name, **fixed).get_params(), candidates=())
    labels = np.concatenate([images.labels[fold.held_out] for fold in folds])
    candidates: list[tuple[float, float]] = []
    fits: list[tuple[float, float, NDArray[np.float64]]] = []
    losses: list[float]
    paths: Iterable[tuple[float, NDArray[np.float64]]]
    if name == "mlp":
        losses, paths = _mlp_path(fixed, kind.grid, images, folds, n_averaged)
    else:
        losses, paths = [], _path(name, kind.grid, images, folds, n_averaged)
    for candidate, scores in paths:
        temperature, image_loss = fit_temperature(scores, labels, n_averaged)
        fits.append((candidate, temperature, image_loss))
        candidates.append((candidate, float(image_loss.mean())))
        if name == "logistic" and candidates[-1][1] > min(loss for _, loss in candidates):
            # The loss is smooth in C and every step up costs more than the one before.
            break
    # An MLP is looked at after every epoch, for its curve; only those in the grid can be chosen.
    best = int(np.argmin([loss if candidate in kind.grid else np.inf for candidate, loss in candidates]))
    if name == "mlp":
        best = _latest_as_good(best, [image_loss for _, _, image_loss in fits])
    chosen, temperature, _ = fits[best]
    settings = make_head(name, **fixed).get_params() | {kind.chosen: chosen, "temperature": temperature}
    return Choice(settings=settings, candidates=tuple(candidates), training_loss=tuple(losses))


def _latest_as_good(best: int, losses: Sequence[NDArray[np.float64]]) -> int:
    """Find the last epoch that is not clearly worse than the best one.

    The loss of a few hundred images is noisy, and an epoch that leads by luck stops the schedule before its learning rate
    has come down: only a lead of more than one standard error counts (Breiman et al., 1984, in reverse).
    """
    for later in range(len(losses) - 1, best, -1):
        behind = losses[later] - losses[best]
        if behind.mean() <= behind.std() / np.sqrt(len(behind)):
            return later
    return best


def _trains(fold: Fold, images: TrainingImages) -> bool:
    return len(np.unique(images.labels[fold.train])) > 1


def _path(
    name: str, grid: Sequence[float], images: TrainingImages, folds: Sequence[Fold], n_averaged: int
) -> Iterator[tuple[float, NDArray[np.float64]]]:
    """Yield each candidate and the decision values of the inner held-out images, shape (1, n_rows, n_classes)."""
    if name == "ridge":
        by_fold = [_ridge_scores(grid, images, fold, n_averaged) for fold in folds]
        for index, alpha in enumerate(grid):
            yield alpha, np.concatenate([scores[index] for scores in by_fold])[None]
        return
    for candidate in grid:
        parts = []
        for fold in folds:
            X, y, weights = images.part(fold.train).rows()
            # A rough solution ranks candidates as an exact one does.
            head = make_head(name, **{HEADS[name].chosen: candidate}, tolerance=1e-4, max_steps=25).fit(X, y, weights)
            parts.append(scores_of(head, _held_out(images, fold, n_averaged), images.n_classes)[0])
        yield candidate, np.concatenate(parts)[None]


def _ridge_scores(
    grid: Sequence[float], images: TrainingImages, fold: Fold, n_averaged: int
) -> list[NDArray[np.float64]]:
    X, y, weights = images.part(fold.train).rows()
    held_out = _held_out(images, fold, n_averaged)
    return [scores_of(head, held_out, images.n_classes)[0] for head in RidgeHead().fit_path(X, y, weights, grid)]


def _mlp_path(
    fixed: dict[str, Any], grid: Sequence[float], images: TrainingImages, folds: Sequence[Fold], n_averaged: int
) -> tuple[list[float], list[tuple[float, NDArray[np.float64]]]]:
    """Fit once for the longest candidate and look at the inner held-out images after each epoch."""
    (fold,) = folds
    X, y, weights = images.part(fold.train).rows()
    held_out = _held_out(images, fold, n_averaged)
    seen: list[tuple[float, NDArray[np.float64]]] = []

    def look(head: MLPHead) -> None:
        seen.append((len(head.training_loss_), scores_of(head, held_out, images.n_classes)))

    longest = int(max(grid))
    head = make_head("mlp", **fixed, epochs=longest, schedule_epochs=longest)
    if isinstance(head, MLPHead):
        head.fit(X, y, weights, after_epoch=look)
        return head.training_loss_, seen
    return [], seen


def _held_out(images: TrainingImages, fold: Fold, n_averaged: int) -> Features:
    return images.X[fold.held_out, :n_averaged].reshape(-1, images.X.shape[2])


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
    raw = head.network_logits(X) if isinstance(head, MLPHead) else head.decision_function(X)[None]
    scores = np.full((len(raw), len(X), n_classes), -np.inf)
    scores[:, :, head.classes_] = raw
    return scores


def fit_temperature(scores: NDArray[np.float64], labels: Indices, n_views: int) -> tuple[float, NDArray[np.float64]]:
    """Find the temperature with the lowest log-loss of the averaged probabilities (Guo et al., 2017).

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

    def losses(log_temperature: float) -> NDArray[np.float64]:
        probabilities = softmax(scores / np.exp(log_temperature), axis=2).mean(axis=0)
        return image_losses(labels, average_views(probabilities, n_views))

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(
        lambda place: losses(place).mean(), bounds=(low, high), method="bounded", options={"xatol": 0.02}
    )
    return float(np.exp(found.x)), losses(float(found.x))
