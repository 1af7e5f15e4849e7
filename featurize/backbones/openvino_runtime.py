"""Networks compiled by OpenVINO for the processor: the same features, sooner."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from features_cache.extras import load_extra
from features_cache.recipe import Precision
from featurize.backbones.build import Backbone
from featurize.backbones.faithful import conversion_faults, example_for, require_faithful
from featurize.backbones.precision import has_depthwise
from featurize.device import load_openvino
from featurize.views.inputs import padded

NAME = "OpenVINO"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


@functools.cache
def _core() -> Any:  # noqa: ANN401 - a module without types
    # One, for the life of the process: each sets a stack that signals are handled on, and as it goes gives back the one of the core
    # before it, which may have gone first. The next signal, Ctrl-C or a job's end, would then be a segmentation fault.
    return load_openvino("--runtime openvino").Core()


class OpenVinoNetwork:
    """A network compiled for batches of one shape; batches of another shape are compiled for when they come.

    Networks with depthwise convolutions stay in float32 whatever the recipe allows: wholly in bfloat16, real nuclei through a
    mobilenet_v2 give cosines down to 0.998, and in float32 OpenVINO is still twice as quick as torch is in either.

    Parameters
    ----------
    backbone : Backbone
        In float32, on the CPU, as it was trained; not changed.
    side_px : int
        Of its input.
    micro_batch : int
        Views in one batch.
    precision : {"float32", "bfloat16"}
        Arithmetic that the recipe allows.
    n_threads : int

    Raises
    ------
    NotConverted
        If OpenVINO cannot convert it, or computes other features.
    OptionError
        If OpenVINO is not installed.
    """

    def __init__(
        self, backbone: Backbone, side_px: int, micro_batch: int, precision: Precision, n_threads: int
    ) -> None:
        openvino = load_openvino("--runtime openvino")
        taken: Precision = "float32" if has_depthwise(backbone) else precision
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[taken],
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": 1,
            # Pinned, the networks of two shards would share one core, and leave the other to nobody.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: dict[tuple[int, ...], Any] = {}
        example = example_for(backbone, side_px)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of tracing, about checks of shapes that are fixed here
            with conversion_faults(NAME):
                # Not by convert_model: it traces twice, and folds what compiling folds again.
                traced = torch.jit.trace(backbone, example, check_trace=False)  # type: ignore[no-untyped-call]
                decoder = load_extra("openvino.frontend.pytorch.ts_decoder", "openvino").TorchScriptPythonDecoder
                frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
                # Kept: the model reads the weights out of torch's memory.
                self._decoder = decoder(traced, example_input=example)
                self._model = frontend.convert(frontend.load(self._decoder))
                found = self(padded(example[:micro_batch], micro_batch))[: len(example)]
            require_faithful(NAME, found, backbone, example, taken)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features.

        Parameters
        ----------
        images : float32 tensor, shape (n, n_channels, side_px, side_px)
            Normalised.

        Returns
        -------
        float32 tensor, shape (n, n_columns)
        """
        shape = tuple(images.shape)
        if shape not in self._compiled:
            self._model.reshape(list(shape))
            self._compiled[shape] = _core().compile_model(self._model, "CPU", self._options)
        vectors = self._compiled[shape](images.contiguous().numpy())[0]
        # A copy: the next pass writes into the same memory.
        return torch.from_numpy(np.array(vectors, dtype=np.float32))
