"""Weighted sums over rows: all that standardisation, whitening and ridge regression need of them.

Sums over disjoint sets of images add up, so one pass over the rows serves every union of folds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from heads.arrays import Float64, Indices
from heads.dense import gram
from heads.feature_rows import FeatureRows

_LOOKED_AT = 1001


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over some rows x with weights w, about a reference r that all sets share.

    Parameters
    ----------
    reference : float64 tensor, shape (n_columns,)
        Near the mean, so that nothing is lost when means are taken out.
    weight : float64 tensor, shape (n_classes,)
        Sum of w over the rows of each class.
    total : float64 tensor, shape (n_columns, n_classes)
        Sum of ``w (x - r)`` over the rows of each class.
    products : float64 tensor, shape (n_columns, n_columns)
        Sum of ``w (x - r)(x - r)'``.
    precision : float
        Rounding of one product, relative.
    """

    reference: torch.Tensor
    weight: torch.Tensor
    total: torch.Tensor
    products: torch.Tensor
    precision: float

    def __add__(self, other: Moments) -> Moments:
        return dataclasses.replace(
            self,
            weight=self.weight + other.weight,
            total=self.total + other.total,
            products=self.products + other.products,
        )

    @property
    def n_rows(self) -> float:
        """Sum of all weights."""
        return float(self.weight.sum())

    @property
    def offset(self) -> torch.Tensor:
        """Mean of the rows less the reference, shape (n_columns,)."""
        return self.total.sum(dim=1) / self.n_rows

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
        """Return the same of the rows' distances from their classes' means: what classes do not account for."""
        between = self.total / self.weight.clamp_min(1e-300).sqrt()
        covariance = torch.addmm(self.products, between, between.T, alpha=-1).div_(self.n_rows)
        return covariance.mul_(inverse_scale).mul_(inverse_scale[:, None])


def moments_of_cells(
    rows: FeatureRows, labels: Indices, weights: Float64, cells: Indices, n_classes: int
) -> list[Moments]:
    """Add up the rows of each cell, in one pass.

    Parameters
    ----------
    rows : FeatureRows
    labels : int64 array, shape (n_images,)
        Class indices.
    weights : float64 array, shape (n_images,)
        Of each of an image's rows.
    cells : int64 array, shape (n_images,)
        0 to n_cells - 1.
    n_classes : int

    Returns
    -------
    list of Moments, length n_cells
    """
    n_columns, device = rows.n_columns, rows.device
    wide = torch.float64
    reference: torch.Tensor | None = None
    sums = [
        Moments(
            reference=torch.empty(0),
            weight=torch.zeros(n_classes, dtype=wide, device=device),
            total=torch.zeros((n_columns, n_classes), dtype=wide, device=device),
            products=torch.zeros((n_columns, n_columns), dtype=wide, device=device),
            precision=torch.finfo(rows.dtype).eps,
        )
        for _ in range(1 + int(cells.max()))
    ]
    for images, chunk in rows.chunks():
        if reference is None:
            # A median: a few rows that are far off, in whatever set, shall not cost the others their last digits.
            reference = chunk[:_LOOKED_AT].median(dim=0).values
        for cell in np.unique(cells[images]).tolist():
            here = np.flatnonzero(cells[images] == cell)
            part = _rows_of(chunk, here, rows.n_views) - reference
            weight = torch.from_numpy(weights[images[here]]).to(device).repeat_interleave(rows.n_views)
            true = torch.from_numpy(labels[images[here]]).to(device).repeat_interleave(rows.n_views)
            member = torch.zeros((len(part), n_classes), dtype=rows.dtype, device=device)
            member[torch.arange(len(part), device=device), true] = weight.to(rows.dtype)
            into = sums[cell]
            into.weight.index_add_(0, true, weight)
            # Products of a chunk are float32 where the rows are; their sums are float64.
            into.total.add_(part.T @ member)
            part *= weight.sqrt().to(rows.dtype)[:, None]
            into.products.add_(gram(part))
    if reference is None:
        msg = "there are no rows"
        raise ValueError(msg)
    return [dataclasses.replace(each, reference=reference.to(wide)) for each in sums]


def _rows_of(chunk: torch.Tensor, images: Indices, n_views: int) -> torch.Tensor:
    if len(images) * n_views == len(chunk):
        return chunk
    places = torch.from_numpy(images).to(chunk.device)
    return chunk.reshape(-1, n_views, chunk.shape[1])[places].reshape(-1, chunk.shape[1])
