"""Run frozen networks over views, in micro-batches of one fixed shape."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features_cache.errors import DeviceLost
from features_cache.plan import Plan
from featurize.backbones.build import Backbone
from featurize.backbones.runtimes import made_quick
from featurize.images.blends import COLOURS
from featurize.views.augmentation import Augmentation
from featurize.views.inputs import NetworkInput, padded


class Engine:
    """Networks on a device, ready for batches.

    Parameters
    ----------
    backbones : mapping of str to Backbone
        By the name of the block that each computes; blocks may share one. They are moved and converted in place.
    plan : Plan
        Says device, micro-batch and threads, and in its recipes the arithmetic, the seed, and what each network is given. Views
        and normalisation are float32 in any case.
    augmentation : Augmentation
        What makes the copies.
    planes : tuple of str
        Names of the planes of the images.

    Attributes
    ----------
    device : torch.device
        Where the networks are.
    micro_batch : int
        Views in one batch; always this many, the last ones padded.
    views_a_pass : int
        Views that go through at once: as many, unless the device's memory was too small.
    """

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        plan: Plan,
        augmentation: Augmentation,
        planes: tuple[str, ...] = COLOURS,
    ) -> None:
        execution, recipe = plan.execution, plan.blocks[0].recipe
        self.micro_batch = self.views_a_pass = execution.micro_batch
        self.device = torch.device(execution.device)
        self._seed = recipe.seed
        self._augmentation = augmentation
        if execution.device == "cpu":
            torch.set_num_threads(execution.n_threads)
        if execution.device == "cuda" and recipe.precision == "float32":
            # The recipe promises float32; TF32 keeps 10 bits of the mantissa.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        recipes = {block.name: block.recipe for block in plan.blocks}
        self._notes: list[str] = []
        ready: dict[int, Callable[[Tensor], Tensor]] = {}
        with _device_losses(self.device):
            for name, backbone in backbones.items():  # blocks may share one
                if id(backbone) not in ready:
                    ready[id(backbone)], note = made_quick(backbone, recipes[name], execution)
                    self._notes += [note] if note else []
            self._networks = {name: ready[id(backbone)] for name, backbone in backbones.items()}
            self._inputs = {name: NetworkInput(recipes[name], planes, self.device) for name in backbones}

    @property
    def notes(self) -> list[str]:
        """What does not go as the plan says, up to now."""
        if self.views_a_pass == self.micro_batch:
            return self._notes
        told = f"computed {self.views_a_pass} views at a time instead of {self.micro_batch}, for want of memory"
        return [*self._notes, told]

    def features(
        self, images: Tensor, ids: Sequence[str], views: Sequence[int], blocks: Sequence[str] | None = None
    ) -> Tensor:
        """Compute the features of some views. On a GPU this returns while it computes; :meth:`collect` waits.

        Parameters
        ----------
        images : float32 tensor, shape (n, n_planes, side, side)
            The square image of each view, in [0, 1]; n at most the micro-batch.
        ids : sequence of str, length n
            The image of each view.
        views : sequence of int, length n
            Which view it is.
        blocks : sequence of str, optional
            Which networks compute, all of one square; all there are unless given.

        Returns
        -------
        float32 tensor on the device, shape (n, columns of these blocks)
        """
        names = list(blocks or self._networks)
        while True:
            try:
                with _device_losses(self.device):
                    return self.forward(self.make_views(images, ids, views), names)[: len(images)]
            except RuntimeError as error:
                if isinstance(error, DeviceLost) or not _is_out_of_memory(error):
                    raise
                if self.views_a_pass == 1:
                    msg = f"{self.device}: too little memory for a single view; free some, or take --device cpu (with another --out)"
                    raise DeviceLost(msg) from error
            # Outside the handler: the error holds the tensors that were too large.
            self.views_a_pass = -(-self.views_a_pass // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def collect(self, vectors: Tensor) -> NDArray[np.float32]:
        """Wait for features and bring them to the processor.

        Parameters
        ----------
        vectors : float32 tensor on the device, shape (n, n_columns)

        Returns
        -------
        float32 array, shape (n, n_columns)

        Raises
        ------
        DeviceLost
            If the device failed while it computed them.
        """
        with _device_losses(self.device):
            collected: NDArray[np.float32] = vectors.cpu().numpy()
        return collected

    def forward(self, views: Tensor, names: Sequence[str]) -> Tensor:
        """Run networks on views, in pieces where the device's memory was too small before.

        Parameters
        ----------
        views : float32 tensor on the device, shape (n, n_planes, side, side)
            As :meth:`make_views` gives them.
        names : sequence of str
            Of blocks.

        Returns
        -------
        float32 tensor on the device, shape (micro_batch, columns of these blocks)
            Rows from n on are of padding.
        """
        made: dict[tuple[Any, ...], list[Tensor]] = {}
        columns = []
        with torch.inference_mode():
            for name in names:
                wanted = self._inputs[name]
                if wanted.key not in made:
                    made[wanted.key] = [self._padded(crop) for crop in wanted.of(views)]
                network = self._networks[name]
                crops = [
                    torch.cat([network(piece) for piece in torch.split(batch, self.views_a_pass)])
                    for batch in made[wanted.key]
                ]
                columns.append(crops[0] if len(crops) == 1 else torch.stack(crops).mean(dim=0))
        return torch.cat(columns, dim=1)

    def _padded(self, batch: Tensor) -> Tensor:
        """Pad to the one shape that the networks are given."""
        return padded(batch, self.micro_batch).contiguous(memory_format=torch.channels_last)

    def make_views(self, images: Tensor, ids: Sequence[str], views: Sequence[int]) -> Tensor:
        """Make of each image its view; shapes as in :meth:`features`, the result on the device and not normalised."""
        return self._augmentation.views(images.to(self.device), self._seed, ids, views)


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
