"""The S0 ensemble: three multilayer perceptrons with 1, 2 and 3 hidden layers, whose probabilities are averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from heads.rows import TrainingRows, check_rows, check_training
from heads.standardise import Float, Standardiser, signed_power
from heads.whiten import whiten_rows

N_NETWORKS = 3
_PREDICT_ROWS = 4096
_WARM_UP = 0.1
# Networks learn by steps: few rows in large batches are few steps, and 12 epochs of them end before anything was learned.
_LEAST_STEPS = 32
_LEAST_BATCH_ROWS = 16


class MLPHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Three perceptrons fitted side by side on the same batches, averaged.

    Hidden layers are ReLU with dropout; the loss is cross-entropy, weighted by the sample weights; AdamW (Loshchilov and
    Hutter, 2019) with a one-cycle learning rate (Smith and Topin, 2018). The networks share batches and optimiser, and
    their first layers are computed as one product, but no parameter: each learns as it would alone.

    Parameters
    ----------
    epochs : int
        Passes over the rows.
    schedule_epochs : int
        Passes for which the learning rate is planned; fitting for fewer stops on the way down.
    width : int
        Units of each hidden layer.
    dropout : float
        Share of hidden units silenced in training, 0 to below 1.
    learning_rate : float
        The peak.
    weight_decay : float
    batch_rows : int
        Rows of a step, at most: where an epoch would have fewer than 32 steps, batches are smaller, down to 16 rows.
    temperature : float
        Each network's outputs are divided by it before the softmax; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised (Perronnin et al., 2010): pooled features have
        long tails, and the square root draws them in. 1 leaves them as they are.
    shrinkage : float
        Of the whitening before the first layer, above 0, at most 1; 1 is no whitening. See :meth:`heads.whiten.Whitening.fit`.
    seed : int
        Of initial weights, order of rows, dropout.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, scale_ : float32 array, shape (n_columns,)
        The standardisation, learned from the rows that were fitted on.
    networks_ : S0Networks
        Of standardised columns: the whitening is folded into the first layer.
    training_loss_ : list of float, length epochs
        Mean loss of a row in each epoch, with dropout, in nats.
    """

    def __init__(
        self,
        epochs: int = 12,
        schedule_epochs: int = 12,
        width: int = 256,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_rows: int = 256,
        temperature: float = 1.0,
        power: float = 0.5,
        shrinkage: float = 0.25,
        seed: int = 0,
    ) -> None:
        self.epochs = epochs
        self.schedule_epochs = schedule_epochs
        self.width = width
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_rows = batch_rows
        self.temperature = temperature
        self.power = power
        self.shrinkage = shrinkage
        self.seed = seed

    def fit(self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None = None) -> Self:
        """Fit on all rows given; arguments and errors as of :meth:`fit_path`."""
        (fitted,) = self.fit_path(X, y, sample_weight, [self.epochs])
        self.__dict__.update(fitted.__dict__)
        return self

    def fit_path(
        self, X: Float, y: NDArray[Any], sample_weight: NDArray[np.floating[Any]] | None, candidates: Sequence[float]
    ) -> Iterator[Self]:
        """Fit once, and show the head as it stands after each of some epochs.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features; computed in float32.
        y : array, shape (n_rows,)
        sample_weight : float array, shape (n_rows,), or None
        candidates : sequence of float
            Numbers of epochs, ascending.

        Yields
        ------
        MLPHead
            New heads; this one stays as it is.

        Raises
        ------
        OptionError
            If a parameter is out of its range.
        LabelError
            If y holds fewer than two classes.
        """
        positive = {
            name: getattr(self, name)
            for name in ("schedule_epochs", "width", "learning_rate", "batch_rows", "temperature", "power")
        }
        positive |= {"epochs": min(candidates), "1 - dropout": 1 - self.dropout}
        rows = check_training(X, y, sample_weight, positive=positive)
        training = _Training(self, rows)
        for epoch in range(1, 1 + int(max(candidates))):
            training.run_epoch()
            if epoch in candidates:
                head = clone(self).set_params(epochs=epoch)
                head.classes_ = rows.classes
                head.n_features_in_ = rows.X.shape[1]
                head.mean_ = training.standardiser.mean.astype(np.float32)
                head.scale_ = training.standardiser.scale.astype(np.float32)
                head.networks_ = training.folded_networks()
                head.training_loss_ = list(training.losses)
                yield head

    def member_scores(self, X: Float) -> NDArray[np.float32]:
        """Return each network's outputs, shape (3, n_rows, n_classes): the softmax's arguments, before the temperature."""
        check_is_fitted(self, "networks_")
        X = check_rows(X, self.n_features_in_)
        standardiser = Standardiser(self.mean_, self.scale_)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(X), _PREDICT_ROWS):
                drawn_in = signed_power(X[start : start + _PREDICT_ROWS], self.power)
                standard = standardiser.apply(drawn_in).astype(np.float32, copy=False)
                parts.append(torch.stack(self.networks_(torch.from_numpy(standard))))
        logits: NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
        return logits

    def predict_proba(self, X: Float) -> NDArray[np.float32]:
        """Return the mean of the networks' probabilities, shape (n_rows, n_classes); rows sum to 1."""
        return average_networks(self.member_scores(X), self.temperature)

    def predict(self, X: Float) -> NDArray[Any]:
        """Return the class of each row, shape (n_rows,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


def average_networks(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Average softmax probabilities over networks: (3, n_rows, n_classes) to (n_rows, n_classes)."""
    mean: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits) / temperature, dim=2).mean(dim=0).numpy()
    return mean


class S0Networks(torch.nn.Module):
    """Three perceptrons with 1, 2 and 3 hidden layers.

    Parameters
    ----------
    n_columns, width, n_classes : int
    dropout : float
    """

    def __init__(self, n_columns: int, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        # The networks' first layers, one below the other: a single large product is faster than three.
        self.first = torch.nn.Linear(n_columns, N_NETWORKS * width)
        self.later = torch.nn.ModuleList(
            torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth)) for depth in range(N_NETWORKS)
        )
        self.last = torch.nn.ModuleList(torch.nn.Linear(width, n_classes) for _ in range(N_NETWORKS))
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, X: torch.Tensor) -> list[torch.Tensor]:
        """Return each network's outputs, (n_rows, n_classes)."""
        hidden = self.dropout(torch.relu(self.first(X))).split(self.width, dim=1)
        outputs = []
        for units, layers, last in zip(hidden, self.later, self.last, strict=True):
            deeper = units
            for layer in layers:  # type: ignore[attr-defined]
                deeper = self.dropout(torch.relu(layer(deeper)))
            outputs.append(last(deeper))
        return outputs


class _Training:
    """The state between epochs.

    Parameters
    ----------
    head : MLPHead
        Its parameters.
    rows : TrainingRows
    """

    def __init__(self, head: MLPHead, rows: TrainingRows) -> None:
        self.losses: list[float] = []
        self.standardiser, self._whitening, whitened = whiten_rows(rows.X, power=head.power, shrinkage=head.shrinkage)
        self._X, self._dtype = whitened.float(), whitened.dtype
        self._labels = torch.from_numpy(rows.indices)
        # Weights of mean 1 keep the step length, whatever scale they come in.
        self._weights = torch.from_numpy(rows.weights / rows.weights.mean()).float()
        few = max(_LEAST_BATCH_ROWS, len(self._X) // _LEAST_STEPS)
        self._batch_rows = min(head.batch_rows, few)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(head.seed)
            self._networks = S0Networks(rows.X.shape[1], head.width, len(rows.classes), head.dropout)
            self._random_state = torch.get_rng_state()
        self._optimiser = torch.optim.AdamW(
            self._networks.parameters(), lr=head.learning_rate, weight_decay=head.weight_decay, fused=True
        )
        self._steps_left = head.schedule_epochs * -(-len(self._X) // self._batch_rows)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, head.learning_rate, total_steps=self._steps_left + 1, pct_start=_WARM_UP
        )

    def run_epoch(self) -> None:
        """Pass once over the rows in a new order."""
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            for batch in torch.randperm(len(self._X)).split(self._batch_rows):  # type: ignore[no-untyped-call]
                total += self._step(batch) * len(batch)
            self._random_state = torch.get_rng_state()
        self.losses.append(total / len(self._X))

    def _step(self, batch: torch.Tensor) -> float:
        """Learn from some rows; return the mean loss of a row and network."""
        losses = torch.stack(
            [
                torch.nn.functional.cross_entropy(out, self._labels[batch], reduction="none")
                for out in self._networks(self._X[batch])
            ]
        )
        loss = (losses * self._weights[batch]).mean(dim=1).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        if self._steps_left > 0:
            self._schedule.step()
            self._steps_left -= 1
        return float(loss.detach()) / N_NETWORKS

    def folded_networks(self) -> S0Networks:
        """Return the networks as they stand, for columns that are standardised but not whitened."""
        networks = copy.deepcopy(self._networks).eval()
        first = networks.first
        with torch.no_grad():
            first.weight.copy_(self._whitening.fold(first.weight.T.to(self._dtype)).T)
        return networks.requires_grad_(requires_grad=False)
