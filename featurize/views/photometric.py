"""What changes a view's pixels and moves none: brightness, contrast, blur, noise.

Every function takes views of one size with a strength each. It computes by single additions and multiplications an element, in
an order that the batch, its size, the threads and the number of planes have no part in: a view's bits are its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# scipy.ndimage.gaussian_filter cuts there, too: 6e-5 of the weight lies beyond.
_RADIUS_IN_SIGMAS = 4.0


def brighten(views: Tensor, factors: Sequence[float]) -> Tensor:
    """Multiply by a factor, as a longer or shorter exposure of a linear camera does: ``v' = f v``, and black stays black.

    The formula of torchvision's ``adjust_brightness``, not clamped here.

    Parameters
    ----------
    views : float32 tensor, shape (views, planes, side, side)
    factors : sequence of float, length views
        1 changes nothing.

    Returns
    -------
    float32 tensor, shape (views, planes, side, side)
    """
    return views * _column(factors, views)


def stretch(views: Tensor, factors: Sequence[float]) -> Tensor:
    """Change the contrast about each plane's own mean ``m``: ``v' = m + f (v - m)``; the mean stays.

    The formula of TensorFlow's ``tf.image.adjust_contrast``, not clamped here. A mean a plane, not one of all: planes may be
    stains that have nothing to do with each other.

    Parameters
    ----------
    views : float32 tensor, shape (views, planes, side, side)
    factors : sequence of float, length views
        1 changes nothing.

    Returns
    -------
    float32 tensor, shape (views, planes, side, side)
    """
    means = plane_means(views)
    return (views - means) * _column(factors, views) + means


def plane_means(views: Tensor) -> Tensor:
    """Average each plane by a fixed tree of sums.

    ``Tensor.mean`` promises no order: it may change with the number of threads, views and planes, and the last bits with it.

    Parameters
    ----------
    views : float32 tensor, shape (views, planes, side, side)

    Returns
    -------
    float32 tensor, shape (views, planes, 1, 1)
    """
    sums = views.flatten(2)
    n_pixels = sums.shape[2]
    while sums.shape[2] > 1:
        if sums.shape[2] % 2:
            sums = torch.nn.functional.pad(sums, (0, 1))
        half = sums.shape[2] // 2
        sums = sums[..., :half] + sums[..., half:]
    return (sums / n_pixels)[..., None]


def blur(views: Tensor, sigmas: Sequence[float], most: float) -> Tensor:
    """Convolve with a Gaussian: ``w_k = exp(-k^2 / (2 sigma^2)) / sum``, rows after columns, the border mirrored.

    Parameters
    ----------
    views : float32 tensor, shape (views, planes, side, side)
    sigmas : sequence of float, length views
        In pixels; 0 changes nothing.
    most : float
        The largest sigma that any view may have: it sets the kernel's radius (4 sigma, rounded) for all of them.

    Returns
    -------
    float32 tensor, shape (views, planes, side, side)
        Beyond the border the view is mirrored, the border pixel included, as by ``scipy.ndimage`` with ``mode="reflect"``.
    """
    radius = int(_RADIUS_IN_SIGMAS * most + 0.5)
    weights = torch.from_numpy(gaussian_weights(sigmas, radius)).to(views.device)
    mirrored = torch.from_numpy(_mirrored(views.shape[-1], radius)).to(views.device)
    term = torch.empty_like(views, memory_format=torch.contiguous_format)
    for axis in (2, 3):
        wide = views.index_select(axis, mirrored)
        views = torch.empty_like(term)
        side = views.shape[axis]
        torch.mul(wide.narrow(axis, radius, side), weights[:, :1, None, None], out=views)
        for step in range(1, radius + 1):
            torch.add(wide.narrow(axis, radius - step, side), wide.narrow(axis, radius + step, side), out=term)
            # Not addcmul, which may round once or twice: an element's bits would depend on where in a vector it lies.
            term.mul_(weights[:, step : step + 1, None, None])
            views.add_(term)
    return views


def gaussian_weights(sigmas: Sequence[float], radius: int) -> NDArray[np.float32]:
    """Sample half of each symmetric kernel.

    Returns
    -------
    float32 array, shape (kernels, radius + 1)
        The weight of the middle, and of each distance from it in pixels; the middle and twice the others add up to 1.

    Examples
    --------
    >>> gaussian_weights([0.0, 0.5], 1).astype(float).round(3).tolist()
    [[1.0, 0.0], [0.787, 0.107]]
    """
    distances = np.arange(radius + 1)
    with np.errstate(under="ignore"):
        weights = np.exp(-0.5 * (distances / np.maximum(np.asarray(sigmas, np.float64), 1e-3)[:, None]) ** 2)
    halves: NDArray[np.float32] = (weights / (2 * weights.sum(axis=1, keepdims=True) - 1)).astype(np.float32)
    return halves


def _mirrored(side: int, radius: int) -> NDArray[np.int64]:
    """Return which pixel stands at each place from ``-radius`` to ``side + radius - 1``."""
    places = np.arange(-radius, side + radius) % (2 * side)
    return np.minimum(places, 2 * side - 1 - places)


def add_noise(views: Tensor, deviations: Sequence[float], sources: Sequence[np.random.Generator]) -> Tensor:
    """Add Gaussian noise: ``v' = v + sigma n``, ``n`` standard normal, drawn anew for each pixel of each plane.

    Parameters
    ----------
    views : float32 tensor, shape (views, planes, side, side)
    deviations : sequence of float, length views
        In units of the range [0, 1].
    sources : sequence of Generator, length views
        Each view's own; drawn from on the processor, plane by plane, so that every device, and any number of planes, has the
        same numbers.

    Returns
    -------
    float32 tensor, shape (views, planes, side, side)
    """
    noise = np.empty(views.shape, np.float32)

    def draw(index: int) -> None:
        sources[index].standard_normal(out=noise[index], dtype=np.float32)

    # NumPy draws without the interpreter's lock; a view has its own source, so the order of threads changes nothing.
    n_threads = min(len(sources), os.cpu_count() or 1)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(draw, range(len(sources))))
    return views + torch.from_numpy(noise).to(views.device) * _column(deviations, views)


def _column(numbers: Sequence[float], views: Tensor) -> Tensor:
    """One number a view, in a shape that multiplies views."""
    return torch.tensor(numbers, dtype=views.dtype, device=views.device).view(-1, 1, 1, 1)
