"""Networks compiled by torch itself: fewer and larger kernels, and on a GPU recorded as one graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from features_cache.recipe import Precision
from featurize.backbones.faithful import N_COMPARED, conversion_faults, require_faithful
from featurize.views.inputs import padded

NAME = "torch.compile"


def compiled_by_torch(
    network: nn.Module, example: Tensor, micro_batch: int, precision: Precision
) -> Callable[[Tensor], Tensor]:
    """Compile a network for batches of one shape.

    Parameters
    ----------
    network : nn.Module
        On its device, channels last, in its arithmetic; it takes and gives float32.
    example : float32 tensor on that device, shape (n, n_channels, side_px, side_px)
        Inputs to try it with.
    micro_batch : int
        Views in one batch.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic of the network, for the comparison.

    Returns
    -------
    callable
        From inputs to features, as the network.

    Raises
    ------
    NotConverted
        If torch cannot compile it (it needs a C++ compiler on a processor, Triton on a GPU), or computes other features.
    """
    # CUDA graphs: one launch a pass, for batches of one shape.
    compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if example.is_cuda else None)

    def run(images: Tensor) -> Tensor:
        # A copy: a graph gives the same memory in each pass.
        vectors: Tensor = compiled(images).clone()
        return vectors

    batch = padded(example[:micro_batch], micro_batch).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        with conversion_faults(NAME):
            found = run(batch)[:N_COMPARED]
        require_faithful(NAME, found, network, batch, precision)
    return run
