"""The MLP head: three multilayer perceptrons with 1, 2 and 3 hidden layers, whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.base import clone

from heads.dense import fast_layers
from heads.estimators.head import Fit, Head
from heads.estimators.training import ByteDropout, Network, Plan, train_sets
from heads.problem import Problem, TrainingSet

N_NETWORKS = 3


class MLPHead(Head):
    """Three perceptrons fitted side by side on the same batches, averaged.

    Hidden layers are ReLU with dropout; the loss is cross-entropy (binary, summed over classes, where labels are many), weighted
    by the sample weights; AdamW (Loshchilov and
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
        Of the whitening before the first layer, above 0, at most 1; 1 is no whitening. See :meth:`heads.estimators.whiten.Whitening.fit`.
    seed : int
        Of initial weights, order of rows, dropout.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    networks_ : ThreePerceptrons
        Of plain (drawn-in) columns: standardisation and whitening are folded into the first layer.
    training_loss_ : list of float, length epochs
        Mean loss of a row in each epoch, with dropout, in nats.
    """

    chosen = "epochs"
    n_members = N_NETWORKS

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

    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        """Fit set by set, and show the head as it stands after each of some epochs.

        See :meth:`heads.estimators.head.Head.fit_sets`; candidates are numbers of epochs, ascending.
        """
        plan = Plan(
            build=self._build,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_rows=self.batch_rows,
            schedule_epochs=self.schedule_epochs,
            shrinkage=self.shrinkage,
            seed=self.seed,
        )
        for place, epoch, training in train_sets(plan, problem, sets, candidates):
            head = clone(self).set_params(epochs=epoch)
            head.classes_ = training.classes
            head.is_many_ = problem.targets.is_many
            head.n_features_in_ = problem.rows.n_columns
            head.networks_ = training.folded_networks()
            head.training_loss_ = list(training.losses)
            yield [Fit(place, epoch, head)]

    def _build(self, n_columns: int, n_classes: int) -> ThreePerceptrons:
        return ThreePerceptrons(n_columns, self.width, n_classes, self.dropout)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the networks' parameters."""
        return {f"networks.{name}": tensor.cpu().numpy() for name, tensor in self.networks_.state_dict().items()}

    def _take_up(self, arrays: dict[str, NDArray[Any]], n_columns: int, n_classes: int) -> None:
        prefix = "networks."
        state = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        self.networks_ = self._build(n_columns, n_classes)
        self.networks_.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
        self.networks_.eval()

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return each network's outputs; see :meth:`heads.estimators.head.Head.outputs`."""
        with torch.inference_mode(), fast_layers(rows.device):
            return torch.stack(self.networks_.to(rows.device)(rows.float()))


class ThreePerceptrons(Network):
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
        self.dropout = ByteDropout(dropout)

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
