"""What all heads are: scikit-learn classifiers that several training sets can share a pass over the rows to fit."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from heads.arrays import Float
from heads.estimators.parameters import check_parameters
from heads.estimators.rows import check_rows, check_training
from heads.feature_rows import FeatureRows, draw_in
from heads.problem import Problem, TrainingData, TrainingSet
from heads.sizes import CHUNK_ROWS
from heads.targets import to_probabilities


class Fit(NamedTuple):
    """A fitted head: of which training set (by its place among those given), for which candidate."""

    place: int
    candidate: float
    head: Head


class Head(ClassifierMixin, BaseEstimator, abc.ABC):  # type: ignore[misc]
    """A classifier of feature rows.

    Attributes
    ----------
    chosen : str
        The parameter that is chosen by inner folds, beside the temperature.
    n_members : int
        How many outputs are averaged.
    keeps_images : bool
        Whether what is learned holds a row for each training image.
    weighs_members : bool
        Whether members of a class weigh more than others do, where labels are many (``positive_weights`` of the problem).
    power : float
        Features x are used as ``sign(x) |x|^power`` (Perronnin et al., 2010).
    temperature : float
        Outputs are divided by it before the softmax, or the sigmoids (Guo et al., 2017).
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    is_many_ : bool
        Whether a row may have many labels: a sigmoid a class instead of a softmax.
    """

    chosen: ClassVar[str]
    n_members: ClassVar[int] = 1
    keeps_images: ClassVar[bool] = False
    weighs_members: ClassVar[bool] = True
    power: float
    temperature: float
    classes_: NDArray[Any]
    n_features_in_: int
    is_many_: bool

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @abc.abstractmethod
    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        """Fit a head for each training set and each candidate of the chosen parameter, sharing what can be shared.

        Parameters
        ----------
        problem : Problem
            Its rows drawn in by this head's power.
        sets : sequence of TrainingSet
            Each with two classes at least.
        candidates : sequence of float
            From simple to flexible, as the catalogue has them.

        Yields
        ------
        list of Fit
            New heads, as soon as they are there; this one stays as it is. Their classes are class indices.
        """

    @abc.abstractmethod
    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what goes into the softmax or the sigmoids, before the temperature.

        Parameters
        ----------
        rows : float tensor, shape (n_rows, n_columns)
            Drawn in.

        Returns
        -------
        float tensor, shape (n_members, n_rows, n_classes)
            One member, but for heads that average several networks.
        """

    @abc.abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that was learned, by name."""

    @classmethod
    def outputs_of(cls, heads: Sequence[Self], rows: torch.Tensor) -> list[torch.Tensor]:
        """Return what several heads of this kind say of the same rows, sharing what can be shared.

        Parameters
        ----------
        heads : sequence of fitted heads
        rows : float tensor, shape (n_rows, n_columns)
            Drawn in.

        Returns
        -------
        list of float tensors
            As of :meth:`outputs`.
        """
        return [head.outputs(rows) for head in heads]

    def restore(self, arrays: dict[str, NDArray[Any]], *, n_columns: int, n_classes: int) -> None:
        """Take up what another head of the same settings had learned.

        Parameters
        ----------
        arrays : dict
            As :meth:`arrays` gives.
        n_columns, n_classes : int

        Raises
        ------
        KeyError, ValueError, RuntimeError
            If they are not a head's of that many columns and classes.
        """
        self._take_up(arrays, n_columns, n_classes)
        self.classes_ = np.arange(n_classes)
        self.n_features_in_ = n_columns

    @abc.abstractmethod
    def _take_up(self, arrays: dict[str, NDArray[Any]], n_columns: int, n_classes: int) -> None: ...

    def _set_arrays(self, arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                msg = f"{name} has shape {arrays[name].shape}, expected {shape}"
                raise ValueError(msg)
            # A copy: arrays that lie askew in the file's bytes are slower, and torch warns of read-only ones.
            setattr(self, name, arrays[name].copy())

    def fit(self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None = None) -> Self:
        """Fit on all rows given.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features; float32 is computed in float32.
        y : array, shape (n_rows,); or of 0 and 1, shape (n_rows, n_classes), where rows have many labels
        sample_weight : float array, shape (n_rows,), optional

        Raises
        ------
        OptionError
            If a parameter is out of its range.
        LabelError
            If y holds fewer than two classes, or no row is of any.
        ValueError
            If arrays do not fit each other, or hold NaN.
        """
        check_parameters(self.get_params())
        rows = check_training(X, y, sample_weight)
        features = FeatureRows(rows.X[:, None], self.power)
        problem = TrainingData(rows=features, targets=rows.targets, weights=rows.weights, counts=rows.weights).problem()
        candidate = getattr(self, self.chosen)
        for fits in self.fit_sets(problem, [problem.whole], [candidate]):
            self.__dict__.update(fits[0].head.__dict__)
        self.classes_ = rows.classes[self.classes_]
        return self

    def predict_proba(self, X: Float) -> Float:
        """Return probabilities, the mean over members: shape (n_rows, n_classes); rows sum to 1 unless labels are many."""
        outputs = self._outputs(X)
        parts = [to_probabilities(part / self.temperature, many=self.is_many_).mean(dim=0).numpy() for part in outputs]
        return np.concatenate(parts)

    def member_scores(self, X: Float) -> Float:
        """Return each member's outputs before the temperature, shape (n_members, n_rows, n_classes)."""
        return np.concatenate([part.numpy() for part in self._outputs(X)], axis=1)

    def _outputs(self, X: Float) -> list[torch.Tensor]:
        check_is_fitted(self, "classes_")
        raw = torch.from_numpy(np.ascontiguousarray(check_rows(X, self.n_features_in_, type(self).__name__)))
        with torch.inference_mode():
            return [self.outputs(draw_in(part, self.power)) for part in raw.split(CHUNK_ROWS)]  # type: ignore[no-untyped-call]

    def predict(self, X: Float) -> NDArray[Any]:
        """Return the class of each row, shape (n_rows,); of many labels those above one half as 0 and 1, (n_rows, n_classes)."""
        probabilities = self.predict_proba(X)
        if self.is_many_:
            return (probabilities > 0.5).astype(np.int64)
        predicted: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return predicted
