"""The S0 ensemble: three multilayer perceptrons with 1, 2 and 3 hidden layers, whose probabilities are averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.base import clone

from features_cache.errors import OptionError
from features_cache.hardware import cpu_is_fast_in_bfloat16, cuda_is_fast_in_bfloat16
from heads.batches import Batches, StreamedBatches
from heads.head import Fit, Head
from heads.problem import Problem, TrainingSet
from heads.targets import row_losses
from heads.whiten import Whitening

N_NETWORKS = 3
_WARM_UP = 0.1
# Networks learn by steps: few rows in large batches are few steps, and 12 epochs of them end before anything was learned.
_LEAST_STEPS = 32
_LEAST_BATCH_ROWS = 16


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
        Of the whitening before the first layer, above 0, at most 1; 1 is no whitening. See :meth:`heads.whiten.Whitening.fit`.
    seed : int
        Of initial weights, order of rows, dropout.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    networks_ : S0Networks
        Of plain (drawn-in) columns: standardisation and whitening are folded into the first layer.
    training_loss_ : list of float, length epochs
        Mean loss of a row in each epoch, with dropout, in nats.
    """

    chosen = "epochs"
    n_members = N_NETWORKS
    positive = ("temperature", "power", "schedule_epochs", "width", "learning_rate", "batch_rows")

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

        See :meth:`heads.head.Head.fit_sets`; candidates are numbers of epochs, ascending.
        """
        if not 0 <= self.dropout < 1:
            msg = f"dropout is {self.dropout}; expected 0 to below 1"
            raise OptionError(msg)
        for place, cells in enumerate(sets):
            training = _Training(self, problem, cells)
            for epoch in range(1, 1 + int(max(candidates))):
                training.run_epoch()
                if epoch in candidates:
                    head = clone(self).set_params(epochs=epoch)
                    head.classes_ = training.classes
                    head.is_many_ = problem.targets.is_many
                    head.n_features_in_ = problem.rows.n_columns
                    head.networks_ = training.folded_networks()
                    head.training_loss_ = list(training.losses)
                    yield [Fit(place, epoch, head)]
            del training  # or its rows would stand beside the next set's

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the networks' parameters."""
        return {f"networks.{name}": tensor.cpu().numpy() for name, tensor in self.networks_.state_dict().items()}

    def _take_up(self, arrays: dict[str, NDArray[Any]], n_columns: int, n_classes: int) -> None:
        prefix = "networks."
        state = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        self.networks_ = S0Networks(n_columns, self.width, n_classes, self.dropout)
        self.networks_.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
        self.networks_.eval()

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return each network's outputs; see :meth:`heads.head.Head.outputs`."""
        with torch.inference_mode():
            return torch.stack(self.networks_.to(rows.device)(rows.float()))


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


class ByteDropout(torch.nn.Module):
    """Dropout (Srivastava et al., 2014) from a random byte a unit, the share rounded to 1/256: four times as fast as a coin each.

    Parameters
    ----------
    share : float
        Of the units that are silenced in training, 0 to below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = min(round(256 * share), 255)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Silence some units and make the others louder, in training."""
        if not self.training or not self.threshold:
            return units
        words = torch.empty(-(-units.numel() // 8), dtype=torch.int64).random_(-(2**63), 2**63 - 1)
        kept = words.view(torch.uint8)[: units.numel()].reshape(units.shape) >= self.threshold
        return units * kept.to(units.device, units.dtype).mul_(256 / (256 - self.threshold))


class _Training:
    """The state between epochs.

    Parameters
    ----------
    head : MLPHead
        Its parameters.
    problem : Problem
    cells : TrainingSet
        The images that it learns from.
    """

    def __init__(self, head: MLPHead, problem: Problem, cells: TrainingSet) -> None:
        self.losses: list[float] = []
        rows = problem.rows
        self.classes = problem.classes_of(cells)
        images = problem.learned_from(cells)
        self._whitening = Whitening.fit(problem.moments_of(cells), head.shrinkage, rows.dtype)
        self._narrow = _narrow_type(rows.device)
        self._batches = (
            Batches(rows, images, self._whitening, self._narrow)
            if problem.memory is None
            else StreamedBatches(rows, images, self._whitening, self._narrow, problem.memory)
        )
        self._is_many = problem.targets.is_many
        true = problem.targets.take(images).encoded(self.classes)
        self._true = true.to(rows.device)
        self._positive = torch.from_numpy(problem.positive_weights[self.classes]).float().to(rows.device)
        # Weights of mean 1 keep the step length, whatever scale they come in.
        weights = problem.weights[images]
        mean = weights.repeat(rows.n_views).mean()
        self._weights = torch.from_numpy(weights / mean).float().to(rows.device)
        self._n_rows = len(images) * rows.n_views
        few = max(_LEAST_BATCH_ROWS, self._n_rows // _LEAST_STEPS)
        self._batch_rows = min(head.batch_rows, few)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(head.seed)  # and no GPU's, whose state would not come back
            self._networks = S0Networks(rows.n_columns, head.width, len(self.classes), head.dropout).to(rows.device)
            self._random_state = torch.get_rng_state()
        self._optimiser = torch.optim.AdamW(
            self._networks.parameters(), lr=head.learning_rate, weight_decay=head.weight_decay, fused=True
        )
        self._steps_left = head.schedule_epochs * self._batches.n_steps(self._batch_rows)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, head.learning_rate, total_steps=self._steps_left + 1, pct_start=_WARM_UP
        )

    def run_epoch(self) -> None:
        """Pass once over the rows in a new order."""
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            for X, images in self._batches.epoch(self._batch_rows):
                total += self._step(X, images) * len(X)
            self._random_state = torch.get_rng_state()
        self.losses.append(total / self._n_rows)

    def _step(self, X: torch.Tensor, images: torch.Tensor) -> float:
        """Learn from some rows of some images; return the mean loss of a row and network."""
        with torch.autocast(X.device.type, self._narrow, enabled=self._narrow != torch.float32):
            outputs = self._networks(X)
        true = self._true[images]
        losses = torch.stack(
            [row_losses(out.float(), true, many=self._is_many, positive_weights=self._positive) for out in outputs]
        )
        loss = (losses * self._weights[images]).mean(dim=1).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        if self._steps_left > 0:
            self._schedule.step()
            self._steps_left -= 1
        return float(loss.detach()) / N_NETWORKS

    def folded_networks(self) -> S0Networks:
        """Return the networks as they stand, for plain columns."""
        networks = copy.deepcopy(self._networks).eval()
        first = networks.first
        with torch.no_grad():
            dtype = self._whitening.mean.dtype
            coef, intercept = self._whitening.fold(first.weight.T.to(dtype), first.bias.to(dtype))
            first.weight.copy_(coef.T)
            first.bias.copy_(intercept)
        return networks.requires_grad_(requires_grad=False)


def _narrow_type(device: torch.device) -> torch.dtype:
    """Return the type of the products: weights, sums and steps are float32 in any case.

    On nuclei's features bfloat16 loses nothing that three seeds would not hide (docs/PERFORMANCE.md).
    """
    fast = {"cpu": cpu_is_fast_in_bfloat16, "cuda": cuda_is_fast_in_bfloat16}
    return torch.bfloat16 if device.type in fast and fast[device.type]() else torch.float32
