"""Pixels on their way to the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurize.views.geometry import as_planes

_WHITE = np.float32(255)


class Travel:
    """Brings images to a device: on a GPU along a stream of their own, beside what the networks compute.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def on_the_way(self) -> AbstractContextManager[object]:
        """Do what is inside along that stream; threads may be inside at once."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def arrive(self, tensors: Iterable[Tensor]) -> None:
        """Let what comes next on this thread's stream wait for all that was sent, and keep the memory for as long as it needs it."""
        if self._stream is None:
            return
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(here)


def travelled(pixels: NDArray[np.float32], device: torch.device) -> Tensor:
    """Bring an image to the device, in 8 bits where these hold all of it: a quarter of the bytes.

    Parameters
    ----------
    pixels : float32 array, shape (height, width, n_planes)
        In [0, 1].
    device : torch.device

    Returns
    -------
    float32 tensor on the device, shape (n_planes, height, width)
        The same numbers; on a GPU but for the last bit.
    """
    if device.type == "cpu":
        return as_planes(pixels)
    sent = _sent(packed(pixels), device)
    return sent.float() / 255 if sent.dtype == torch.uint8 else sent


def packed(pixels: NDArray[np.float32]) -> Tensor:
    """Put an image into 8 bits, if these hold all of it.

    Parameters
    ----------
    pixels : float32 array, shape (height, width, n_planes)
        In [0, 1].

    Returns
    -------
    uint8 or float32 tensor, shape (n_planes, height, width)
    """
    in_bytes = np.rint(pixels * _WHITE)
    is_exact = np.array_equal(in_bytes / _WHITE, pixels)
    return as_planes(in_bytes.astype(np.uint8) if is_exact else pixels)


def _sent(planes: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        # Out of pinned memory the copy goes on beside what the processor does; torch keeps the memory until it is done.
        planes = planes.pin_memory()
    return planes.to(device, non_blocking=device.type == "cuda")
