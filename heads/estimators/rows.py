"""What every head checks of the rows it is given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from features_cache.errors import LabelError
from heads.arrays import Float, Float64
from heads.targets import ManyLabels, OneLabel, Targets


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingRows:
    """Checked rows to fit on.

    Parameters
    ----------
    X : float32 or float64 array, shape (n_rows, n_columns)
    targets : Targets
        Of each row, indices into ``classes``.
    classes : array, shape (n_classes,)
        Sorted; 0, 1, 2, ... where rows have many labels.
    weights : float64 array, shape (n_rows,)
    """

    X: Float
    targets: Targets
    classes: NDArray[Any]
    weights: Float64


def check_training(X: Float, y: NDArray[Any], sample_weight: Float | None) -> TrainingRows:
    """Check what a head is fitted on.

    Parameters
    ----------
    X : float array, shape (n_rows, n_columns)
        Finite. Kept as it is where it is float32 or float64 (no copy).
    y : array, shape (n_rows,), or of 0 and 1, shape (n_rows, n_classes)
    sample_weight : float array, shape (n_rows,), optional

    Returns
    -------
    TrainingRows

    Raises
    ------
    LabelError
        If rows that weigh anything are of fewer than two classes, or of none where labels are many.
    ValueError
        If arrays do not fit each other, hold NaN, or weights are negative.
    """
    X = check_array(X, dtype=[np.float32, np.float64])
    targets, classes = _checked_labels(y)
    if len(targets) != len(X):
        msg = f"{len(X)} rows but {len(targets)} labels; expected as many"
        raise ValueError(msg)
    weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (len(X),) or not np.isfinite(weights).all() or weights.min() < 0:
        msg = f"sample_weight has shape {weights.shape}; expected ({len(X)},), finite, not negative"
        raise ValueError(msg)
    if not targets.take(np.flatnonzero(weights)).can_be_learned:
        msg = "rows whose sample weight is not zero are of too few classes; expected at least 2 classes, or 1 of many labels"
        raise LabelError(msg)
    return TrainingRows(X, targets, classes, weights)


def _checked_labels(y: NDArray[Any]) -> tuple[Targets, NDArray[Any]]:
    y = np.asarray(y) if hasattr(y, "__array__") else np.array(y)
    if y.ndim == 2 and y.shape[1] > 1:
        if not np.isin(y, (0, 1)).all():
            msg = f"labels of shape {y.shape} hold other values than 0 and 1; expected 1 where a row is of a class"
            raise ValueError(msg)
        if not y.any():
            msg = "no row is of any class; expected at least one that is"
            raise LabelError(msg)
        return ManyLabels(y.astype(bool)), np.arange(y.shape[1])
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        msg = f"the rows are all of one class ({classes.tolist()}); expected at least 2 classes"
        raise LabelError(msg)
    return OneLabel(indices.astype(np.int64), len(classes)), classes


def check_rows(X: Float, n_columns: int, head: str) -> Float:
    """Check what a fitted head, called so, predicts.

    Raises
    ------
    ValueError
        If X has other columns than the head was fitted on, or holds NaN.
    """
    X = check_array(X, dtype=[np.float32, np.float64])
    if X.shape[1] != n_columns:
        msg = f"X has {X.shape[1]} features, but {head} is expecting {n_columns} features as input"
        raise ValueError(msg)
    return X
