"""The S0 ensemble: three multilayer perceptrons with 1, 2 and 3 hidden layers, whose probabilities are averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from heads.rows import TrainingRows, check_rows, check_training
from heads.standardise import Float, Standardiser, signed_power

N_NETWORKS = 3
_PREDICT_ROWS = 4096
_WARM_UP = 0.1


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
    temperature : float
        Each network's outputs are divided by it before the softmax; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised (Perronnin et al., 2010): pooled features have
        long tails, and the square root draws them in. 1 leaves them as they are.
    seed : int
        Of initial weights, order of rows, dropout.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, scale_ : float32 array, shape (n_columns,)
        The standardisation, learned from the rows that were fitted on.
    networks_ : S0Networks
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
        self.seed = seed

    def fit(
        self,
        X: Float,
        y: NDArray[Any],
        sample_weight: NDArray[np.floating[Any]] | None = None,
        *,
        after_epoch: Callable[[MLPHead], None] | None = None,
    ) -> Self:
        """Fit on all rows given.

        Parameters
        ----------
        X : float array, shape (n_rows, n_columns)
            Raw features; computed in float32.
        y : array, shape (n_rows,)
        sample_weight : float array, shape (n_rows,), optional
        after_epoch : callable, optional
            Called with the head as it stands after each epoch: how `out_of_fold` watches rows that the head never sees.

        Raises
        ------
        OptionError
            If a parameter makes no sense.
        LabelError
            If y holds fewer than two classes.
        """
        positive = {
            name: getattr(self, name) for name in ("epochs", "schedule_epochs", "width", "learning_rate", "batch_rows")
        }
        positive |= {"temperature": self.temperature, "power": self.power, "1 - dropout": 1 - self.dropout}
        rows = check_training(X, y, sample_weight, positive=positive)
        rows = dataclasses.replace(rows, X=signed_power(rows.X, self.power))
        standardiser = Standardiser.fit(rows.X)
        self.classes_ = rows.classes
        self.n_features_in_ = rows.X.shape[1]
        self.mean_ = standardiser.mean.astype(np.float32)
        self.scale_ = standardiser.scale.astype(np.float32)
        self.training_loss_: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.networks_ = S0Networks(self.n_features_in_, self.width, len(rows.classes), self.dropout)
            training = _Training(
                self, rows, torch.from_numpy(standardiser.apply(rows.X).astype(np.float32, copy=False))
            )
            for _ in range(self.epochs):
                self.training_loss_.append(training.epoch())
                self.networks_.eval()
                if after_epoch is not None:
                    after_epoch(self)
        return self

    def network_logits(self, X: Float) -> NDArray[np.float32]:
        """Return each network's outputs, shape (3, n_rows, n_classes)."""
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
        return average_networks(self.network_logits(X), self.temperature)

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


@dataclasses.dataclass(slots=True)
class _Training:
    """The optimiser's state between epochs."""

    head: MLPHead
    rows: TrainingRows
    standard: torch.Tensor
    optimiser: torch.optim.Optimizer = dataclasses.field(init=False)
    schedule: torch.optim.lr_scheduler.LRScheduler = dataclasses.field(init=False)
    steps_left: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        head = self.head
        self.optimiser = torch.optim.AdamW(
            head.networks_.parameters(), lr=head.learning_rate, weight_decay=head.weight_decay, fused=True
        )
        self.steps_left = head.schedule_epochs * -(-len(self.standard) // head.batch_rows)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, head.learning_rate, total_steps=self.steps_left + 1, pct_start=_WARM_UP
        )

    def epoch(self) -> float:
        """Pass once over the rows in a new order; return the mean loss of a row and network."""
        networks, size = self.head.networks_.train(), self.head.batch_rows
        labels = torch.from_numpy(self.rows.indices)
        # Weights of mean 1 keep the step length, whatever scale they come in.
        weights = torch.from_numpy(self.rows.weights / self.rows.weights.mean()).float()
        total = 0.0
        for batch in torch.randperm(len(self.standard)).split(size):  # type: ignore[no-untyped-call]
            losses = torch.stack(
                [
                    torch.nn.functional.cross_entropy(out, labels[batch], reduction="none")
                    for out in networks(self.standard[batch])
                ]
            )
            loss = (losses * weights[batch]).mean(dim=1).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if self.steps_left > 0:
                self.schedule.step()
                self.steps_left -= 1
            total += float(loss.detach()) * len(batch) / N_NETWORKS
        return total / len(self.standard)
