"""The k-nearest-neighbour head: votes of the training images that point the same way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from heads.estimators.head import Fit, Head
from heads.estimators.whiten import Whitening
from heads.problem import Problem, TrainingSet
from heads.sizes import PAIRS


class NeighboursHead(Head):
    """Votes of the k training images whose whitened rows make the smallest angles with a row's.

    A neighbour of cosine s has a vote of ``w exp((s - s_1) / closeness)``, with w its sample weight and s_1 the nearest one's
    cosine (Wu et al., 2018). Votes are counted by class, one more is shared out as the training images' weights are (the
    m-estimate of Cestnik, 1990), and the logarithm of a class's share is its output; where labels are many, the log-odds of
    its members' share, a member weighing as much as in the losses of other heads.

    Parameters
    ----------
    k : int
        Neighbours that vote; all training images where there are fewer.
    closeness : float
        Difference of cosines at which a vote has fallen to 1/e, above 0.
    smoothing : float
        Votes that are shared out in any case, above 0, in those of a nearest neighbour of mean weight.
    temperature : float
        Outputs are divided by it before the softmax, or the sigmoids; chosen out of fold.
    power : float
        Features x become ``sign(x) |x|^power`` before they are standardised; 1 leaves them.
    shrinkage : float
        Of the whitening, above 0, at most 1; 1 only standardises. See :meth:`heads.estimators.whiten.Whitening.fit`.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    n_features_in_ : int
    mean_, matrix_ : float32 array
        The whitening: shapes (n_columns,) and (n_columns, n_columns), or (n_columns,) without whitening.
    rows_ : float16 array, shape (n_images, n_columns)
        Whitened, of length 1: the mean over the views of each training image.
    votes_ : float32 array, shape (n_images, n_classes)
        What an image gives to each class.
    others_ : float32 array, same shape, or (0, n_classes) where an image has one label
        What it gives to the class's absence.
    """

    chosen = "k"
    keeps_images = True

    def __init__(
        self,
        k: int = 20,
        closeness: float = 0.05,
        smoothing: float = 1.0,
        temperature: float = 1.0,
        power: float = 0.5,
        shrinkage: float = 0.25,
    ) -> None:
        self.k = k
        self.closeness = closeness
        self.smoothing = smoothing
        self.temperature = temperature
        self.power = power
        self.shrinkage = shrinkage

    def fit_sets(
        self, problem: Problem, sets: Sequence[TrainingSet], candidates: Sequence[float]
    ) -> Iterator[list[Fit]]:
        """Keep each set's rows, once for all k. See :meth:`heads.estimators.head.Head.fit_sets`."""
        for place, cells in enumerate(sets):
            kept = self._kept(problem, cells)
            fits = []
            for k in candidates:
                head = clone(self).set_params(k=int(k))
                head.__dict__.update(kept)
                fits.append(Fit(place, k, head))
            yield fits

    def _kept(self, problem: Problem, cells: TrainingSet) -> dict[str, Any]:
        rows, images, classes = problem.rows, problem.learned_from(cells), problem.classes_of(cells)
        whitening = Whitening.fit(problem.moments_of(cells), self.shrinkage, torch.float32)
        parts = []
        for here, chunk in rows.chunks(images):
            # The mean of an image's views, whitened, is the whitened mean.
            image = chunk.float().reshape(len(here), rows.n_views, rows.n_columns).mean(dim=1)
            parts.append(_unit(whitening.apply(image, torch.float32)).half())
        weights = problem.weights[images] / problem.weights[images].mean()
        members = problem.targets.take(images).members[:, classes]
        is_many = problem.targets.is_many
        others = weights[:, None] * ~members if is_many else np.zeros((0, len(classes)))
        votes = weights[:, None] * members * (problem.positive_weights[classes] if is_many else 1)
        return {
            "classes_": classes,
            "is_many_": is_many,
            "n_features_in_": rows.n_columns,
            "mean_": whitening.mean.cpu().numpy(),
            "matrix_": np.ascontiguousarray(whitening.matrix.cpu().numpy()),
            "rows_": torch.cat(parts).cpu().numpy(),
            # In C order, which a file keeps.
            "votes_": np.ascontiguousarray(votes, dtype=np.float32),
            "others_": np.ascontiguousarray(others, dtype=np.float32),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the whitening, the kept rows and their votes."""
        return {name: getattr(self, name) for name in _LEARNED}

    def _take_up(self, arrays: dict[str, NDArray[Any]], n_columns: int, n_classes: int) -> None:
        n_images = len(arrays["rows_"])
        matrix = (n_columns,) if self.shrinkage == 1 else (n_columns, n_columns)
        others = (n_images if self.is_many_ else 0, n_classes)
        shapes = ((n_columns,), matrix, (n_images, n_columns), (n_images, n_classes), others)
        self._set_arrays(arrays, dict(zip(_LEARNED, shapes, strict=True)))

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logarithms of vote shares, or log-odds; see :meth:`heads.estimators.head.Head.outputs`."""
        return self.outputs_of([self], rows)[0]

    @classmethod
    def outputs_of(cls, heads: Sequence[NeighboursHead], rows: torch.Tensor) -> list[torch.Tensor]:
        """Let heads that keep the same rows look for neighbours once; see :meth:`heads.estimators.head.Head.outputs_of`."""
        first = heads[0]
        if any(head.rows_ is not first.rows_ for head in heads):
            return [cls.outputs_of([head], rows)[0] for head in heads]
        arrays = first.mean_, first.matrix_, first.rows_, first.votes_, first.others_
        mean, matrix, kept, votes, others = (torch.from_numpy(array).to(rows.device) for array in arrays)
        whitening, kept = Whitening(mean, matrix), kept.float()
        counted = torch.cat([votes, others], dim=1) if first.is_many_ else votes
        said: list[list[torch.Tensor]] = [[] for _ in heads]
        for part in rows.float().split(max(1, PAIRS // len(kept))):  # type: ignore[no-untyped-call]
            cosines = _unit(whitening.apply(part, torch.float32)) @ kept.T
            near, places = cosines.topk(min(max(head.k for head in heads), len(kept)), dim=1)
            strength = torch.exp((near - near[:, :1]) / first.closeness)
            sums = _sums_by_k(counted, places, strength, [min(head.k, len(kept)) for head in heads])
            for into, head, each in zip(said, heads, sums, strict=True):
                into.append(_log_shares(each + head.smoothing * counted.mean(dim=0), many=head.is_many_))
        return [torch.cat(parts)[None] for parts in said]


_LEARNED = ("mean_", "matrix_", "rows_", "votes_", "others_")


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Divide rows by their lengths; a row of zeros stays."""
    return torch.nn.functional.normalize(rows, dim=1)


def _sums_by_k(
    votes: torch.Tensor, places: torch.Tensor, strength: torch.Tensor, ks: Sequence[int]
) -> list[torch.Tensor]:
    """Sum ``strength[i, j] votes[places[i, j]]`` over the first k neighbours j, for each k: shapes (n_rows, n_classes)."""
    total = votes.new_zeros((len(places), votes.shape[1]))
    by_k = {}
    for place in range(places.shape[1]):
        total.addcmul_(votes[places[:, place]], strength[:, place, None])
        if place + 1 in ks:
            by_k[place + 1] = total.clone()
    return [by_k[k] for k in ks]


def _log_shares(sums: torch.Tensor, *, many: bool) -> torch.Tensor:
    """Turn votes for classes, and against them where labels are many, into outputs: shape (n_rows, n_classes)."""
    logs = sums.clamp_min(1e-30).log()
    if many:
        of, against = logs.tensor_split(2, dim=1)
        return of - against
    return logs - sums.sum(dim=1, keepdim=True).log()
