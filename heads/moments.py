"""Weighted sums over rows: all that standardisation, whitening and ridge regression need of them.

Sums over disjoint sets of images add up, so one pass over the rows serves every union of folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from heads.arrays import Float64, Indices
from heads.dense import gram
from heads.feature_rows import RowSource
from heads.targets import Targets

_LOOKED_AT = 1001
_SAYS_NOTHING = 1e-11


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over some rows x with weights w, about a reference r that all sets share.

    Parameters
    ----------
    reference : float64 tensor, shape (n_columns,)
        Near the mean, so that nothing is lost when means are taken out.
    together : float64 tensor, shape (n_classes + 1, n_classes + 1)
        Sum of w over the rows that are of two classes at once; the last row and column stand for all rows.
    total : float64 tensor, shape (n_columns, n_classes + 1)
        Sum of ``w (x - r)`` over the rows of each class; the last column over all rows.
    products : float64 tensor, shape (n_columns, n_columns)
        Sum of ``w (x - r)(x - r)'``.
    precision : float
        Rounding of one product, relative.
    """

    reference: torch.Tensor
    together: torch.Tensor
    total: torch.Tensor
    products: torch.Tensor
    precision: float

    @classmethod
    def total_of(cls, parts: Sequence[Moments]) -> Moments:
        """Add up the sums of disjoint sets; the parts stay as they are."""
        first, *others = parts
        if not others:
            return first
        second, *others = others
        sums = {name: getattr(first, name) + getattr(second, name) for name in ("together", "total", "products")}
        for other in others:  # in place: one new array instead of one a part
            for name, value in sums.items():
                value.add_(getattr(other, name))
        return dataclasses.replace(first, **sums)

    @property
    def weight(self) -> torch.Tensor:
        """Sum of w over the rows of each class, shape (n_classes,)."""
        return self.together.diagonal()[:-1]

    @property
    def n_rows(self) -> float:
        """Sum of all weights."""
        return float(self.together[-1, -1])

    @property
    def offset(self) -> torch.Tensor:
        """Mean of the rows less the reference, shape (n_columns,)."""
        return self.total[:, -1] / self.n_rows

    @property
    def mean(self) -> torch.Tensor:
        """Weighted mean of the rows, shape (n_columns,)."""
        return self.reference + self.offset

    def inverse_scale(self) -> torch.Tensor:
        """Return 1 / standard deviation of each column, shape (n_columns,); 0 where it is constant.

        A constant column leaves rounding noise behind; divided by it, a test row would become enormous.
        """
        offset = self.offset
        variance = self.products.diagonal() / self.n_rows - offset.square()
        noise = (10 * self.precision * self.mean).square() + 100 * self.precision * offset.square()
        return torch.where(variance > noise, variance.clamp_min(1e-300).rsqrt(), 0.0)

    def correlation(self, inverse_scale: torch.Tensor) -> torch.Tensor:
        """Return the correlation of the columns, float64, shape (n_columns, n_columns)."""
        offset = self.offset
        covariance = torch.addr(self.products / self.n_rows, offset, offset, alpha=-1)
        return covariance.mul_(inverse_scale).mul_(inverse_scale[:, None])

    def correlation_within(self, inverse_scale: torch.Tensor) -> torch.Tensor:
        """Return the same of what classes do not account for, by linear regression of columns on membership.

        Where each row is of one class, these are the rows' distances from their classes' means.
        """
        values, vectors = torch.linalg.eigh(self.together)
        # Memberships of one class each add up to 1: one direction says nothing new.
        known = values > _SAYS_NOTHING * values[-1]
        between = (self.total @ vectors[:, known]).mul_(values[known].rsqrt())
        covariance = torch.addmm(self.products, between, between.T, alpha=-1).div_(self.n_rows)
        return covariance.mul_(inverse_scale).mul_(inverse_scale[:, None])


def moments_of_cells(rows: RowSource, targets: Targets, weights: Float64, cells: Indices) -> list[Moments]:
    """Add up the rows of each cell, in one pass.

    Parameters
    ----------
    rows : RowSource
    targets : Targets
    weights : float64 array, shape (n_images,)
        Of each of an image's rows.
    cells : int64 array, shape (n_images,)
        0 to n_cells - 1.

    Returns
    -------
    list of Moments, length n_cells
    """
    reference: torch.Tensor | None = None
    sums = [_nothing(rows, targets) for _ in range(1 + int(cells.max()))]
    for images, chunk in rows.chunks():
        if reference is None:
            reference = _middle(chunk)
        for cell in np.unique(cells[images]).tolist():
            here = np.flatnonzero(cells[images] == cell)
            part = _rows_of(chunk, here, rows.n_views) - reference
            _add(sums[cell], part, targets.take(images[here]), weights[images[here]])
    if reference is None:
        msg = "there are no rows"
        raise ValueError(msg)
    return [dataclasses.replace(each, reference=reference.to(torch.float64)) for each in sums]


def moments_cell_by_cell(rows: RowSource, targets: Targets, weights: Float64, cells: Indices) -> Iterator[Moments]:
    """Add up the rows of each cell, one after the other, so that one alone is in memory; see :func:`moments_of_cells`."""
    _, chunk = next(rows.chunks())
    reference = _middle(chunk)
    for cell in range(1 + int(cells.max())):
        into = _nothing(rows, targets)
        for images, chunk in rows.chunks(np.flatnonzero(cells == cell)):
            _add(into, chunk - reference, targets.take(images), weights[images])
        yield dataclasses.replace(into, reference=reference.to(torch.float64))


def _middle(chunk: torch.Tensor) -> torch.Tensor:
    """Return a median: a few rows that are far off, in whatever set, shall not cost the others their last digits."""
    return chunk[:_LOOKED_AT].median(dim=0).values


def _nothing(rows: RowSource, targets: Targets) -> Moments:
    n_columns, n_members = rows.n_columns, targets.n_classes + 1
    return Moments(
        reference=torch.empty(0),
        together=torch.zeros((n_members, n_members), dtype=torch.float64, device=rows.device),
        total=torch.zeros((n_columns, n_members), dtype=torch.float64, device=rows.device),
        products=torch.zeros((n_columns, n_columns), dtype=torch.float64, device=rows.device),
        precision=torch.finfo(rows.dtype).eps,
    )


def _add(into: Moments, part: torch.Tensor, targets: Targets, weights: Float64) -> None:
    """Add the rows of some images, the reference taken out; they are overwritten."""
    n_views = len(part) // len(targets)
    weight = torch.from_numpy(weights).to(part.device)
    member = torch.from_numpy(targets.members).to(part.device)
    member = torch.cat([member, member.new_ones((len(targets), 1))], dim=1).to(torch.float64)
    into.together.add_(n_views * (member.T @ (weight[:, None] * member)))
    # Products of a chunk are float32 where the rows are; their sums are float64.
    weighted = (weight[:, None] * member).to(part.dtype).repeat_interleave(n_views, dim=0)
    into.total.add_(part.T @ weighted)
    part *= weight.sqrt().to(part.dtype).repeat_interleave(n_views)[:, None]
    into.products.add_(gram(part))


def _rows_of(chunk: torch.Tensor, images: Indices, n_views: int) -> torch.Tensor:
    if len(images) * n_views == len(chunk):
        return chunk
    places = torch.from_numpy(images).to(chunk.device)
    return chunk.reshape(-1, n_views, chunk.shape[1])[places].reshape(-1, chunk.shape[1])
