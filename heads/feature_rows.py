"""The rows that heads learn from and predict: a row a view, long tails drawn in, a chunk at a time."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import numpy as np
import torch

from heads import sizes
from heads.arrays import Float, Indices


class RowSource(abc.ABC):
    """Features of images, a row a view, ``sign(x) |x|^power`` of them, wherever they lie.

    Attributes
    ----------
    n_images, n_views, n_columns : int
    dtype : torch.dtype
    device : torch.device
        Where chunks are given out.
    """

    n_images: int
    n_views: int
    n_columns: int
    dtype: torch.dtype
    device: torch.device

    @abc.abstractmethod
    def chunks(
        self, images: Indices | None = None, n_views: int | None = None
    ) -> Iterator[tuple[Indices, torch.Tensor]]:
        """Go through the rows of some images.

        Parameters
        ----------
        images : int64 array, optional
            Which images, in the order wanted; all unless given.
        n_views : int, optional
            How many views of each, from view 0 on; all unless given.

        Yields
        ------
        images : int64 array, shape (n,)
        rows : float tensor, shape (n * n_views, n_columns)
            The views of an image stand next to each other. To be used before the next are asked for, and not changed.
        """


class FeatureRows(RowSource):
    """Features of images in memory.

    Parameters
    ----------
    X : float32 or float64 array, shape (n_images, n_views, n_columns)
        Raw features.
    power : float
        See :func:`draw_in`.
    device : torch.device or str
        Where chunks are given out.
    """

    def __init__(self, X: Float, power: float, device: torch.device | str = "cpu") -> None:
        self.n_images, self.n_views, self.n_columns = X.shape
        self.device = torch.device(device)
        # Learning passes over the rows hundreds of times: drawn in once, where one power serves.
        self._X = draw_in(torch.from_numpy(np.ascontiguousarray(X)), power).to(self.device)
        self.dtype = self._X.dtype

    def chunks(
        self, images: Indices | None = None, n_views: int | None = None
    ) -> Iterator[tuple[Indices, torch.Tensor]]:
        """Go through the rows of some images; see :meth:`RowSource.chunks`."""
        n_views = n_views or self.n_views
        count = self.n_images if images is None else len(images)
        n_images = max(1, sizes.CHUNK_ROWS // n_views)
        for start in range(0, count, n_images):
            if images is None:
                here = np.arange(start, min(start + n_images, count))
                taken = self._X[start : start + n_images, :n_views]
            else:
                here = images[start : start + n_images]
                taken = self._X[torch.from_numpy(here).to(self.device), :n_views]
            yield here, taken.reshape(-1, self.n_columns)


def draw_in(X: torch.Tensor, power: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Raise the size of each feature to a power and keep its sign.

    Parameters
    ----------
    X : float tensor
    power : float
        Above 0; 1 returns X itself.
    out : float tensor, shape and type of X, optional
        Filled and returned, unless the power is 1.

    Returns
    -------
    float tensor, shape and type of X

    Examples
    --------
    >>> draw_in(torch.tensor([-4.0, 0.0, 9.0]), 0.5).tolist()
    [-2.0, 0.0, 3.0]
    """
    if power == 1:
        return X
    size = torch.abs(X, out=out)
    size = size.sqrt_() if power == 0.5 else size.pow_(power)
    return size.copysign_(X)
