"""Run frozen networks over views, in micro-batches of one fixed shape."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from features_cache.errors import DeviceLost
from features_cache.plan import Plan
from featurize.augment import view_matrix, warp
from featurize.backbones import Backbone
from featurize.precision import fold_batch_norm, lowered

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Engine:
    """Networks on a device, ready for batches.

    Parameters
    ----------
    backbones : mapping of str to Backbone
        By the name of the block that each computes. They are moved and converted in place.
    plan : Plan
        Says device, micro-batch and threads, and in its recipes the arithmetic and the seed. Warp and normalisation are
        float32 in any case.

    Attributes
    ----------
    micro_batch : int
        Views in one batch; always this many, the last ones padded.
    views_a_pass : int
        Views that go through at once: as many, unless the device's memory was too small.
    """

    def __init__(self, backbones: Mapping[str, Backbone], plan: Plan) -> None:
        execution, recipe = plan.execution, plan.blocks[0].recipe
        self.micro_batch = self.views_a_pass = execution.micro_batch
        self._device = torch.device(execution.device)
        self._seed = recipe.seed
        if execution.device == "cpu":
            torch.set_num_threads(execution.n_threads)
        if execution.device == "cuda" and recipe.precision == "float32":
            # The recipe promises float32; TF32 keeps 10 bits of the mantissa.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        with _device_losses(self._device):
            self._networks = {
                name: lowered(fold_batch_norm(backbone), _DTYPES[recipe.precision])
                .to(self._device)
                .to(memory_format=torch.channels_last)
                for name, backbone in backbones.items()
            }
            self._normalisations = {
                block.name: (self._planes(block.recipe.mean), self._planes(block.recipe.std)) for block in plan.blocks
            }

    def features(
        self, images: Tensor, ids: Sequence[str], views: Sequence[int], blocks: Sequence[str] | None = None
    ) -> Tensor:
        """Compute the features of some views.

        Parameters
        ----------
        images : float32 tensor, shape (n, 3, side, side)
            The resized image of each view, in [0, 1]; n at most the micro-batch.
        ids : sequence of str, length n
            The image of each view.
        views : sequence of int, length n
            Which view it is.
        blocks : sequence of str, optional
            Which networks compute; all unless given.

        Returns
        -------
        float32 tensor on the CPU, shape (n, columns of these blocks)
        """
        names = list(blocks or self._networks)
        while True:
            try:
                with _device_losses(self._device):
                    made = self.make_views(images, ids, views)
                    return torch.cat([self._vectors(self._batch(made, name), name) for name in names], dim=1)[
                        : len(images)
                    ]
            except RuntimeError as error:
                if isinstance(error, DeviceLost) or not _is_out_of_memory(error):
                    raise
                if self.views_a_pass == 1:
                    msg = f"{self._device}: too little memory for a single view; free some, or take --device cpu (with another --out)"
                    raise DeviceLost(msg) from error
            # Outside the handler: the error holds the tensors that were too large.
            self.views_a_pass = -(-self.views_a_pass // 2)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _planes(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device).view(1, -1, 1, 1)

    def _batch(self, made: Tensor, block: str) -> Tensor:
        """Normalise views as a block's recipe says, and pad them to the one shape that the networks are given."""
        mean, std = self._normalisations[block]
        normalised = (made - mean) / std
        padded = normalised.new_zeros((self.micro_batch, *normalised.shape[1:]))
        padded[: len(normalised)] = normalised
        return padded.contiguous(memory_format=torch.channels_last)

    def _vectors(self, batch: Tensor, name: str) -> Tensor:
        """Run a network on a batch, in pieces where the device's memory was too small before."""
        with torch.inference_mode():
            pieces = batch.split(self.views_a_pass)  # type: ignore[no-untyped-call]
            return torch.cat([self._networks[name](piece).cpu() for piece in pieces])

    def make_views(self, images: Tensor, ids: Sequence[str], views: Sequence[int]) -> Tensor:
        """Warp each image to its view; shapes as in :meth:`features`, the result on the device and not normalised."""
        matrices = [
            torch.from_numpy(view_matrix(self._seed, name, view)) for name, view in zip(ids, views, strict=True)
        ]
        return warp(images.to(self._device), torch.stack(matrices).to(self._device), [view == 0 for view in views])


@contextlib.contextmanager
def _device_losses(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.AcceleratorError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{device} was lost ({first}); what was committed is safe. Type the same command again to go on"
        raise DeviceLost(msg) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    # Only CUDA has a class for it; the CPU's allocator and Metal raise RuntimeError.
    told = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)
