"""Whether test images look like training images: a classifier is asked to tell them apart."""

from __future__ import annotations

import dataclasses

import numpy as np

from features_cache.errors import OptionError
from features_cache.progress import silent
from heads.arrays import Float32, Float64, ImageArray, Indices
from heads.class_weights import balanced_class_weights
from heads.cross_fit import cross_fit
from heads.estimators.ridge import RidgeHead
from heads.feature_rows import FeatureRows
from heads.folds import make_folds
from heads.memory import Memory
from heads.metrics.bootstrap import interval, resampled_weights
from heads.problem import TrainingData
from heads.targets import OneLabel

_LEAST_IMAGES = 10
_MOST_IMAGES = 2000
_N_FOLDS = 5
_N_RESAMPLES = 1000
_WIDER = 2**0.5
_CHANCE, _ALIKE, _APART = 0.5, 0.7, 0.9
_NOT_MEASURED = "whether test images look like training images was not measured"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How well training and test images can be told apart.

    Parameters
    ----------
    auc : float
        Probability that a test image scores higher than a training image, each judged by a classifier that saw neither: 0.5
        where they cannot be told apart, 1 where they always can.
    low, high : float
        Its 95 % interval.
    n_train, n_test : int
        How many images of each were used.
    sentence : str
        What it means for the estimate.
    """

    auc: float
    low: float
    high: float
    n_train: int
    n_test: int
    sentence: str


def train_test_shift(
    train: ImageArray,
    test: ImageArray,
    groups: Indices | None = None,
    *,
    seed: int = 0,
    most: int = _MOST_IMAGES,
    memory: Memory | None = None,
) -> Shift | str:
    """Measure how far test images differ from training images (a classifier two-sample test, Lopez-Paz and Oquab, 2017).

    A ridge head with class weights is fitted in 5 folds that keep groups whole; standardisation is fitted inside each. The
    interval is a bootstrap over training groups and test images, made ``sqrt(2)`` times wider: it takes the heads as given, but
    each two folds are compared twice, either learning from the other, and where there is no difference that doubles the variance
    (a bare bootstrap held 0.5 in 80 to 88 of 100 cases of images drawn alike).

    Parameters
    ----------
    train : float32 array, shape (n_train, n_columns)
        Raw features of view 0 of the labelled images. No label is used.
    test : float32 array, shape (n_test, n_columns)
        Of the test images.
    groups : int64 array, shape (n_train,), optional
        Group indices; a classifier that saw other images of a group would know it again.
    seed : int
        Of the images drawn, the folds and the bootstrap.
    most : int
        How many images of each are used at most, so that it costs seconds.
    memory : Memory, optional
        The limit to keep; none unless given.

    Returns
    -------
    Shift, or a str
        The reason why it cannot be measured: fewer than 10 images of either, or groups that cannot be divided.
    """
    for name, rows in (("labelled", train), ("test", test)):
        if len(rows) < _LEAST_IMAGES:
            return f"{_NOT_MEASURED}: there are {len(rows)} {name} images; at least {_LEAST_IMAGES} are needed"
    rng = np.random.default_rng(seed)
    kept_train, kept_test = (np.sort(rng.permutation(len(rows))[: min(most, len(rows))]) for rows in (train, test))
    is_test = np.repeat(np.array([0, 1], dtype=np.int64), [len(kept_train), len(kept_test)])
    units: Indices | None = None
    if groups is not None:
        known = np.unique(groups[kept_train], return_inverse=True)[1].astype(np.int64)
        units = np.concatenate([known, 1 + known.max() + np.arange(len(kept_test))])
    X = np.concatenate([train[kept_train], test[kept_test]])
    scores = _held_out_scores(X, is_test, units, seed, memory)
    if isinstance(scores, str):
        return scores
    auc = float(weighted_auc(scores, is_test, np.ones((1, len(scores)), np.int64))[0])
    resampled = [
        weighted_auc(scores, is_test, weights)
        for weights in resampled_weights(len(scores), units, n_resamples=_N_RESAMPLES, seed=seed)
    ]
    drawn = np.concatenate(resampled)
    low, high = (float(np.clip(auc + _WIDER * (edge - auc), 0, 1)) for edge in interval(drawn[~np.isnan(drawn)]))
    return Shift(
        auc=auc,
        low=low,
        high=high,
        n_train=len(kept_train),
        n_test=len(kept_test),
        sentence=_sentence(auc, low, high, has_groups=groups is not None),
    )


def _held_out_scores(
    X: Float32, is_test: Indices, units: Indices | None, seed: int, memory: Memory | None
) -> Float64 | str:
    n_groups = len(X) if units is None else len(np.unique(units[is_test == 0]))
    too_few = f"{_NOT_MEASURED}: {n_groups} groups of training images cannot be divided into folds"
    if n_groups < 2:
        return too_few
    targets = OneLabel(is_test, 2)
    try:
        folds = make_folds(targets, units, n_folds=min(_N_FOLDS, n_groups), seed=seed)
    except OptionError:
        return too_few
    if any(len(np.unique(is_test[fold.train])) < 2 for fold in folds):
        return too_few
    cells = np.zeros(len(X), np.int64)
    for fold in folds:
        cells[fold.held_out] = fold.number
    head = RidgeHead()
    data = TrainingData(
        rows=FeatureRows(X[:, None], head.power),
        targets=targets,
        weights=balanced_class_weights(targets)[is_test],
        memory=memory,
    )
    problem = data.problem(cells)
    asked = {problem.whole - {fold.number}: (fold.number,) for fold in folds}
    judged = cross_fit(head, problem, asked, [head.alpha], n_views=1, progress=silent, what="")
    scores = np.zeros(len(X))
    for each in judged.values():
        outputs = each.scores[head.alpha][0, :, 0]
        scores[each.images] = outputs[:, 1].astype(np.float64) - outputs[:, 0]
    return scores


def weighted_auc(scores: Float64, member: Indices, weights: Indices) -> Float64:
    """Compute the area under the ROC curve under many sets of weights, as the Mann-Whitney statistic (ties count a half).

    Parameters
    ----------
    scores : float64 array, shape (n_images,)
    member : int64 array, shape (n_images,)
        1 for images that should score high, 0 for the others.
    weights : int64 array, shape (n_resamples, n_images)
        How often each image counts.

    Returns
    -------
    float64 array, shape (n_resamples,)
        NaN where either side has no weight.

    Examples
    --------
    >>> weighted_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]), np.ones((1, 4), dtype=int)).tolist()
    [0.875]
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    ordered = weights[:, order].astype(np.float64)
    is_member = member[order] == 1
    high = np.add.reduceat(ordered * is_member, starts, axis=1)
    low = np.add.reduceat(ordered * ~is_member, starts, axis=1)
    below = np.cumsum(low, axis=1) - low / 2
    pairs = high.sum(axis=1) * low.sum(axis=1)
    wins = (high * below).sum(axis=1)
    areas: Float64 = np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return areas


def _sentence(auc: float, low: float, high: float, *, has_groups: bool) -> str:
    found = f"a classifier tells test images from training images with an AUC of {auc:.2f} [{low:.2f}, {high:.2f}]"
    if low <= _CHANCE:
        meaning = "no difference could be shown, so nothing here speaks against the out-of-fold figures"
        if high > _ALIKE:
            meaning += ", but there are too few images to say more"
    elif auc < _ALIKE:
        meaning = "they differ little, which says little against the out-of-fold figures"
    elif auc <= _APART:
        meaning = "they differ, and the test score may be below the out-of-fold figures"
    else:
        meaning = "they are easily told apart, as if they came from somewhere else: expect a test score below the out-of-fold figures"
    if low > _CHANCE and has_groups:
        meaning += (
            ". Test groups are other groups, which alone can make the AUC high: the out-of-fold figures, by group, hold out groups "
            "likewise, and are the better guide the more the test groups are drawn like the training groups"
        )
    elif auc >= _ALIKE:
        meaning += ". If images come in wells, plates or patients, figures by group are the better guide: consider --group-column"
    return f"{found}: {meaning}"
