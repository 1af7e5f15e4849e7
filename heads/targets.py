"""What images are: of one class each, or of any number of classes."""

from __future__ import annotations

import abc
import functools
from typing import ClassVar, Self

import numpy as np
import torch

from heads.arrays import Bool, Float, Float64, Indices

# Smaller ones count as this: the logarithm of 0 would make one image outweigh all others.
LEAST_PROBABILITY = 1e-15


class Targets(abc.ABC):
    """The classes of some images, and what follows from one or many labels an image.

    Attributes
    ----------
    is_many : bool
        Whether an image may have any number of classes.
    n_classes : int
    """

    is_many: ClassVar[bool]
    n_classes: int

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    @abc.abstractmethod
    def members(self) -> Bool:
        """Whether each image is of each class, shape (n_images, n_classes)."""

    @abc.abstractmethod
    def take(self, images: Indices) -> Self:
        """Return the targets of some images, by place."""

    @abc.abstractmethod
    def join(self, others: Self) -> Self:
        """Return these images' targets, then the others'."""

    @abc.abstractmethod
    def encoded(self, classes: Indices) -> torch.Tensor:
        """Return what losses take, for a head that knows some classes.

        Parameters
        ----------
        classes : int64 array
            Ascending.

        Returns
        -------
        tensor
            int64, shape (n_images,), places in ``classes`` (of an image of another class: any place); or float32, shape
            (n_images, len(classes)), 1 for members.
        """

    @abc.abstractmethod
    def losses(self, probabilities: Float) -> Float64:
        """Return each image's loss in nats, shape (n_images,).

        One label: minus the log of its class's probability. Many: the mean over classes of minus the log of the probability of
        what is so, member or not.

        Parameters
        ----------
        probabilities : float array, shape (n_images, n_classes)
        """

    @abc.abstractmethod
    def loss_of_any(self, probabilities: Float) -> float:
        """Return the mean loss over images, as if nothing were known of their labels but which classes there are, in nats."""

    @functools.cached_property
    def counts(self) -> Indices:
        """Images of each class, shape (n_classes,)."""
        counts: Indices = self.members.sum(axis=0, dtype=np.int64)
        return counts

    @property
    def can_be_learned(self) -> bool:
        """Whether there are enough classes to tell apart."""
        return int(np.count_nonzero(self.counts)) >= (1 if self.is_many else 2)


class OneLabel(Targets):
    """Images of one class each.

    Parameters
    ----------
    labels : int64 array, shape (n_images,)
        Class indices, 0 to n_classes - 1.
    n_classes : int
    """

    is_many = False

    def __init__(self, labels: Indices, n_classes: int) -> None:
        self.labels = labels
        self.n_classes = n_classes

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def members(self) -> Bool:
        """Whether each image is of each class, shape (n_images, n_classes)."""
        members: Bool = self.labels[:, None] == np.arange(self.n_classes)
        return members

    @functools.cached_property
    def counts(self) -> Indices:
        """Images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def take(self, images: Indices) -> OneLabel:
        """Return the targets of some images, by place."""
        return OneLabel(self.labels[images], self.n_classes)

    def join(self, others: OneLabel) -> OneLabel:
        """Return these images' targets, then the others'."""
        return OneLabel(np.concatenate([self.labels, others.labels]), self.n_classes)

    def encoded(self, classes: Indices) -> torch.Tensor:
        """Return places in ``classes``: see :meth:`Targets.encoded`."""
        return torch.from_numpy(np.searchsorted(classes, self.labels).clip(max=len(classes) - 1))

    def losses(self, probabilities: Float) -> Float64:
        """Return minus the log of each true class's probability: see :meth:`Targets.losses`."""
        true = probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return -np.log(np.maximum(true, LEAST_PROBABILITY))

    def loss_of_any(self, probabilities: Float) -> float:
        """Return the mean loss over images and the classes that occur: see :meth:`Targets.loss_of_any`."""
        known = np.flatnonzero(self.counts)
        return float(-np.log(np.maximum(probabilities[:, known], LEAST_PROBABILITY)).mean())


class ManyLabels(Targets):
    """Images of any number of classes.

    Parameters
    ----------
    members : bool array, shape (n_images, n_classes)
    """

    is_many = True

    def __init__(self, members: Bool) -> None:
        self._members = members
        self.n_classes = members.shape[1]

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> Bool:
        """Whether each image is of each class, shape (n_images, n_classes)."""
        return self._members

    def take(self, images: Indices) -> ManyLabels:
        """Return the targets of some images, by place."""
        return ManyLabels(self._members[images])

    def join(self, others: ManyLabels) -> ManyLabels:
        """Return these images' targets, then the others'."""
        return ManyLabels(np.concatenate([self._members, others.members]))

    def encoded(self, classes: Indices) -> torch.Tensor:
        """Return 1 for members: see :meth:`Targets.encoded`."""
        return torch.from_numpy(self._members[:, classes].astype(np.float32))

    def losses(self, probabilities: Float) -> Float64:
        """Return the mean over classes of binary losses: see :meth:`Targets.losses`."""
        wide = probabilities.astype(np.float64)
        likely = np.where(self._members, wide, 1 - wide)
        mean: Float64 = -np.log(np.maximum(likely, LEAST_PROBABILITY)).mean(axis=1)
        return mean

    def loss_of_any(self, probabilities: Float) -> float:
        """Return the mean loss of members and non-members of the classes that occur: see :meth:`Targets.loss_of_any`."""
        known = probabilities[:, np.flatnonzero(self.counts)]
        likely = known * (1 - known)
        return float(-np.log(np.maximum(likely, LEAST_PROBABILITY)).mean() / 2)


def to_probabilities(outputs: torch.Tensor, *, many: bool) -> torch.Tensor:
    """Turn outputs of a head into probabilities, over the last axis: a softmax, or a sigmoid a class."""
    return torch.sigmoid(outputs) if many else torch.softmax(outputs, dim=-1)


def row_losses(
    outputs: torch.Tensor, true: torch.Tensor, *, many: bool, positive_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the loss of each row, with a gradient.

    Parameters
    ----------
    outputs : float tensor, shape (n_rows, n_classes)
    true : tensor
        As of :meth:`Targets.encoded`.
    many : bool
        Binary cross-entropy, summed over classes (one against the rest), instead of cross-entropy.
    positive_weights : float tensor, shape (n_classes,), optional
        What a member of a class weighs beside a non-member.

    Returns
    -------
    float tensor, shape (n_rows,)
    """
    if not many:
        return torch.nn.functional.cross_entropy(outputs, true, reduction="none")
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs, true, pos_weight=positive_weights, reduction="none"
    )
    return each.sum(dim=1)
