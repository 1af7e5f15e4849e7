"""scikit-learn's seconds for the work of the heads' bench."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from bench.heads_work import Work, timed


class Theirs:
    """scikit-learn's seconds for one unit of each kind, measured when asked for, once."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._known: dict[str, float] = {}
        self._standard: NDArray[np.float32] | None = None

    @property
    def standard(self) -> NDArray[np.float32]:
        """Standardised rows."""
        if self._standard is None:
            scaler = StandardScaler()
            self._known["scaler"], standard = timed(lambda: scaler.fit_transform(self._work.rows))
            self._standard = np.asarray(standard, dtype=np.float32)
        return self._standard

    def seconds(self, unit: str, work: Callable[[], object]) -> float:
        """Time a unit, once."""
        if unit not in self._known:
            self._known[unit], _ = timed(work)
        return self._known[unit]

    def ridge(self) -> float:
        """Time one RidgeClassifier with one alpha, on standardised rows."""
        work = self._work
        model = RidgeClassifier(alpha=1000.0)
        standard = self.standard
        return self.seconds("ridge", lambda: model.fit(standard, work.row_labels, work.row_weights))

    def mlp_epoch(self) -> float:
        """Time an epoch of three networks with 1, 2 and 3 hidden layers of 256."""
        work = self._work
        standard = self.standard

        def epoch() -> None:
            for depth in (1, 2, 3):
                model = MLPClassifier((256,) * depth, batch_size=256, max_iter=1, random_state=0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model.fit(standard, work.row_labels)

        return self.seconds("mlp", epoch)

    def logistic(self) -> tuple[float, float]:
        """One LogisticRegression(C=1e-3) on standardised rows: seconds, and the objective that it reached."""
        work = self._work
        model = LogisticRegression(C=1e-3, max_iter=1000)
        standard = self.standard
        seconds = self.seconds("logistic", lambda: model.fit(standard, work.row_labels, work.row_weights))
        if not hasattr(model, "coef_"):
            return seconds, float("nan")
        logits = standard.astype(np.float64) @ model.coef_.T + model.intercept_
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(logits)), work.row_labels]
        return seconds, float(1e-3 * work.row_weights @ losses + np.square(model.coef_).sum() / 2)
