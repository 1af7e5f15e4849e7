"""How networks learn: whitened rows in shuffled batches, an epoch at a time, shown as they stand after any of them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from features_cache.hardware import cpu_is_fast_in_bfloat16, cuda_is_fast_in_bfloat16
from heads.estimators.batches import Batches, StreamedBatches
from heads.estimators.whiten import Whitening
from heads.problem import Problem, TrainingSet
from heads.targets import row_losses

_WARM_UP = 0.1
# Networks learn by steps: few rows in large batches are few steps, and 12 epochs of them end before anything was learned.
_LEAST_STEPS = 32
_LEAST_BATCH_ROWS = 16


class Network(torch.nn.Module):
    """What can learn here: one network, or several side by side.

    Attributes
    ----------
    first : torch.nn.Linear
        The only layer that sees columns; whitening is folded into it.
    """

    first: torch.nn.Linear

    def forward(self, X: torch.Tensor) -> list[torch.Tensor]:
        """Return each network's outputs, (n_rows, n_classes)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a network is to be built, and to learn.

    Parameters
    ----------
    build : callable
        Of n_columns and n_classes; called with torch's generator seeded.
    learning_rate : float
        The peak.
    weight_decay : float
        0 makes AdamW Adam.
    batch_rows : int
        Rows of a step, at most.
    schedule_epochs : int, optional
        Passes for which a one-cycle learning rate is planned; a constant one unless given.
    shrinkage : float
        Of the whitening before the first layer; 1 only standardises.
    seed : int
        Of initial weights, order of rows, dropout.
    """

    build: Callable[[int, int], Network]
    learning_rate: float
    weight_decay: float
    batch_rows: int
    schedule_epochs: int | None
    shrinkage: float
    seed: int


class Shown(NamedTuple):
    """A network on its way.

    Parameters
    ----------
    place : int
        Of its training set, among those given.
    epoch : int
        How many it has learned for.
    training : Training
    """

    place: int
    epoch: int
    training: Training


def train_sets(plan: Plan, problem: Problem, sets: Sequence[TrainingSet], epochs: Sequence[float]) -> Iterator[Shown]:
    """Train set by set, and show the network as it stands after each of some epochs, ascending."""
    for place, cells in enumerate(sets):
        training = Training(plan, problem, cells)
        for epoch in range(1, 1 + int(max(epochs))):
            training.run_epoch()
            if epoch in epochs:
                yield Shown(place, epoch, training)
        training.end()


class Training:
    """The state between epochs.

    Parameters
    ----------
    plan : Plan
    problem : Problem
    cells : TrainingSet
        The images that it learns from.

    Attributes
    ----------
    classes : int64 array
        Those that it learns.
    losses : list of float
        Mean loss of a row and network in each epoch, with dropout, in nats.
    """

    def __init__(self, plan: Plan, problem: Problem, cells: TrainingSet) -> None:
        self.losses: list[float] = []
        rows = problem.rows
        self.classes = problem.classes_of(cells)
        images = problem.learned_from(cells)
        self._whitening = Whitening.fit(problem.moments_of(cells), plan.shrinkage, rows.dtype)
        self._narrow = _narrow_type(rows.device)
        self._batches: Batches | None = (
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
        self._batch_rows = min(plan.batch_rows, few)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(plan.seed)  # and no GPU's, whose state would not come back
            self._networks = plan.build(rows.n_columns, len(self.classes)).to(rows.device)
            self._random_state = torch.get_rng_state()
        self._optimiser = torch.optim.AdamW(
            self._networks.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self._steps_left = (plan.schedule_epochs or 0) * self._batches.n_steps(self._batch_rows)
        if self._steps_left:
            self._schedule = torch.optim.lr_scheduler.OneCycleLR(
                self._optimiser, plan.learning_rate, total_steps=self._steps_left + 1, pct_start=_WARM_UP
            )

    def run_epoch(self) -> None:
        """Pass once over the rows in a new order."""
        if self._batches is None:
            msg = "its rows are gone; expected epochs before the end"
            raise RuntimeError(msg)
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            for X, images in self._batches.epoch(self._batch_rows):
                total += self._step(X, images) * len(X)
            self._random_state = torch.get_rng_state()
        self.losses.append(total / self._n_rows)

    def end(self) -> None:
        """Let go of the rows, or they would stand beside those of the next set."""
        self._batches = None

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
        return float(loss.detach()) / len(outputs)

    def folded_networks(self) -> Network:
        """Return the networks as they stand, for plain columns."""
        networks = copy.deepcopy(self._networks).eval()
        with torch.no_grad():
            coef, intercept = self.folded_first()
            networks.first.weight.copy_(coef.T)
            networks.first.bias.copy_(intercept)
        return networks.requires_grad_(requires_grad=False)

    def folded_first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first layer's coefficients of plain columns, (n_columns, n_units), and its intercepts, of the rows' type."""
        first, dtype = self._networks.first, self._whitening.mean.dtype
        with torch.no_grad():
            return self._whitening.fold(first.weight.T.to(dtype), first.bias.to(dtype))


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


def _narrow_type(device: torch.device) -> torch.dtype:
    """Return the type of the products: weights, sums and steps are float32 in any case.

    On nuclei's features bfloat16 loses nothing that three seeds would not hide (docs/PERFORMANCE.md).
    """
    fast = {"cpu": cpu_is_fast_in_bfloat16, "cuda": cuda_is_fast_in_bfloat16}
    return torch.bfloat16 if device.type in fast and fast[device.type]() else torch.float32
