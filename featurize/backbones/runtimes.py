"""What runs a network, as its plan says: torch as it is, torch compiled, or OpenVINO; torch where OpenVINO cannot."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from features_cache.errors import OptionError
from features_cache.plan import COMPILE, OPENVINO, Execution
from features_cache.recipe import Recipe
from featurize.backbones.build import Backbone
from featurize.backbones.compile_runtime import compiled_by_torch
from featurize.backbones.faithful import NotConverted, example_for
from featurize.backbones.openvino_runtime import OpenVinoNetwork
from featurize.backbones.precision import fold_batch_norm, lowered

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def made_quick(
    backbone: Backbone, recipe: Recipe, execution: Execution
) -> tuple[Callable[[Tensor], Tensor], str | None]:
    """Bring a network to its device, in its arithmetic, ready for batches.

    Parameters
    ----------
    backbone : Backbone
        In float32 on the CPU; moved and converted in place, unless OpenVINO runs it.
    recipe : Recipe
        Says the arithmetic.
    execution : Execution
        Says device, runtime, micro-batch and threads.

    Returns
    -------
    network : callable
        From inputs (n, n_channels, side_px, side_px) to features (n, n_columns), float32 on the device.
    note : str or None
        Why torch runs it and not OpenVINO.

    Raises
    ------
    OptionError
        If torch cannot compile it, where it should.
    """
    note = None
    if execution.runtime == OPENVINO:
        try:
            return OpenVinoNetwork(
                backbone, recipe.size_px, execution.micro_batch, recipe.precision, execution.n_threads
            ), None
        except NotConverted as error:
            note = f"{recipe.backbone} run by torch: {error}"
    fast = lowered(fold_batch_norm(backbone), _DTYPES[recipe.precision])
    fast = fast.to(execution.device).to(memory_format=torch.channels_last)
    if execution.runtime == COMPILE:
        example = example_for(backbone, recipe.size_px).to(execution.device)
        try:
            return compiled_by_torch(fast, example, execution.micro_batch, recipe.precision), None
        except NotConverted as error:
            # No fallback: whether there is a compiler is a matter of the machine, and others may work on the same cache.
            msg = f"--runtime compile: {recipe.backbone}: {error}. Take --runtime torch, with another --out where something is there already"
            raise OptionError(msg) from error
    return fast, note
