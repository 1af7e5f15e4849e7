"""From views of an image's planes to what each network is given: its channels, in its normalisation, in its size."""

from __future__ import annotations

import torch
from torch import Tensor

from features_cache.recipe import Recipe
from featurize.images.blends import NONE
from featurize.views.geometry import cut_crops


def padded(batch: Tensor, n: int) -> Tensor:
    """Pad a batch with zeros to n, the one shape that networks are given."""
    whole = batch.new_zeros((n, *batch.shape[1:]))
    whole[: len(batch)] = batch
    return whole


class NetworkInput:
    """What one block's network is given of a view.

    Parameters
    ----------
    recipe : Recipe
        Of the block.
    planes : tuple of str
        Names of the planes of the images.
    device : torch.device

    Attributes
    ----------
    key : tuple
        Equal where two blocks are given the same, so that it is made once.
    """

    def __init__(self, recipe: Recipe, planes: tuple[str, ...], device: torch.device) -> None:
        self.key = (recipe.channels, recipe.mean, recipe.std, recipe.size_px, recipe.crops)
        self._size_px = recipe.size_px
        self._n_crops = recipe.crops
        n_inputs = len(recipe.mean)
        named = recipe.channels or planes
        named = named * n_inputs if len(named) == 1 else named
        self._places = [-1 if name == NONE else planes.index(name) for name in named]
        self._is_all = self._places == list(range(len(planes)))
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, n_inputs, 1, 1) for values in (recipe.mean, recipe.std)
        )

    def of(self, views: Tensor) -> list[Tensor]:
        """Select, normalise and cut.

        Parameters
        ----------
        views : float32 tensor, shape (n, n_planes, side, side)
            In [0, 1].

        Returns
        -------
        list of float32 tensor, shape (n, n_inputs, size_px, size_px)
            One a crop.
        """
        if not self._is_all:
            empty = torch.zeros_like(views[:, :1])
            views = torch.cat([views, empty], dim=1)[:, self._places]
        return cut_crops((views - self._mean) / self._std, self._size_px, self._n_crops)
