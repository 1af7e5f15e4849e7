"""The dropout head: one linear layer behind dropout, learned by Adam, as a network's last layer is when the rest is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from heads.estimators.head import Fit
from heads.estimators.linear_decision import LinearDecision
from heads.estimators.training import ByteDropout, Network, Plan, train_sets
from heads.problem import Problem, TrainingSet


class DropoutLinearHead(LinearDecision):
    """Dropout on the columns, then one linear layer; stopped after the best number of epochs.

    The loss is cross-entropy (binary, summed over classes, where labels are many), weighted by the sample weights; Adam (Kingma
    and Ba, 2015) at a constant rate. Dropout on the inputs of a linear model is a penalty on its coefficients that is mild for
    columns that are rarely active and confident (Wager et al., 2013).

    Parameters
    ----------
    epochs : int
        Passes over the rows.
    dropout : float
        Share of a row's columns that are silenced in training, 0 to below 1.
    learning_rate : float
    batch_rows : int
        Rows of a step, at most: where an epoch would have fewer than 32 steps, batches are smaller, down to 16 rows.
    temperature : float
        Decision values are divided by it before the softmax, or the sigmoids; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised; 1 leaves them.
    shrinkage : float
        Of the whitening before the layer, above 0, at most 1; 1 only standardises. See :meth:`heads.estimators.whiten.Whitening.fit`.
    seed : int
        Of initial coefficients, order of rows, dropout.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    coef_ : float32 or float64 array, shape (n_columns, n_classes)
        Of plain (drawn-in) columns: standardisation and whitening are folded in.
    intercept_ : same, shape (n_classes,)
    training_loss_ : list of float, length epochs
        Mean loss of a row in each epoch, with dropout, in nats.
    """

    chosen = "epochs"

    def __init__(
        self,
        epochs: int = 30,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        batch_rows: int = 64,
        temperature: float = 1.0,
        power: float = 0.5,
        shrinkage: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.epochs = epochs
        self.dropout = dropout
        self.learning_rate = learning_rate
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
            build=lambda n_columns, n_classes: DroppedLayer(n_columns, n_classes, self.dropout),
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            batch_rows=self.batch_rows,
            schedule_epochs=None,
            shrinkage=self.shrinkage,
            seed=self.seed,
        )
        for place, epoch, training in train_sets(plan, problem, sets, candidates):
            coef, intercept = training.folded_first()
            head = self._solved(epoch, training.classes, coef, intercept, many=problem.targets.is_many)
            head.training_loss_ = list(training.losses)
            yield [Fit(place, epoch, head)]


class DroppedLayer(Network):
    """Dropout, then one linear layer.

    Parameters
    ----------
    n_columns, n_classes : int
    dropout : float
    """

    def __init__(self, n_columns: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.first = torch.nn.Linear(n_columns, n_classes)

    def forward(self, X: torch.Tensor) -> list[torch.Tensor]:
        """Return the layer's outputs, (n_rows, n_classes), as the only ones."""
        return [self.first(self.dropout(X))]
