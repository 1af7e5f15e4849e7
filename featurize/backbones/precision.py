"""Networks made quick: batch norms folded, half precision as far as features allow (cosine 0.999 to float32, each image)."""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from features_cache.errors import OptionError
from featurize.backbones.build import Backbone

# They read their layers' weights instead of calling the layers.
_READS_WEIGHTS = nn.MultiheadAttention | nn.TransformerEncoderLayer


class _Half(nn.Module):
    """A layer or network that takes and gives float32, and computes in half precision."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner.to(dtype)
        self._dtype = dtype

    def forward(self, values: Tensor) -> Tensor:
        try:
            return self.inner(values.to(self._dtype)).float()  # type: ignore[no-any-return]
        except RuntimeError as error:
            # So torch calls them; a network may hold tensors of its own that nobody converted.
            if not re.search("BFloat16|Half", str(error)):
                raise
            msg = f"a network cannot compute in {self._dtype} ({str(error).splitlines()[0]}); type --precision float32"
            raise OptionError(msg) from error


def lowered(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a network to bfloat16 or float16, in place; it still takes and gives float32.

    Depthwise convolutions add up few products, so their rounding errors do not average out: real nuclei through a
    mobilenet_v2 wholly in bfloat16 gave cosines down to 0.9975. In networks that have such layers, the dense layers alone
    are converted (all but the first, which sees the pixels): 0.9996, and the dense layers are where the time goes.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, float32.
    dtype : torch.dtype
        ``torch.float32`` leaves it as it is.

    Returns
    -------
    nn.Module
    """
    if dtype == torch.float32:
        return network
    if not has_depthwise(network):
        return _Half(network, dtype)
    _lower_dense_layers(network, dtype)
    return network


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, where the two follow one another in an ``nn.Sequential``, in place.

    In evaluation mode a batch norm is a scale and a shift; folded, the features move in the last bits and a mobilenet_v2
    takes half the time. A convolution whose output is tapped stays as it is.
    """
    _fold(module, "", module.layers if isinstance(module, Backbone) else frozenset())
    return module


def _fold(module: nn.Module, place: str, tapped: frozenset[str]) -> None:
    for name, child in module.named_children():
        _fold(child, f"{place}{name}.", tapped)
    if isinstance(module, nn.Sequential):
        layers = list(module.named_children())
        for (name, layer), (next_name, next_layer) in itertools.pairwise(layers):
            # Of these very classes: one derived from them may standardise its weights, or apply a ReLU after the norm.
            if type(layer) is nn.Conv2d and type(next_layer) is nn.BatchNorm2d and f"{place}{name}" not in tapped:
                setattr(module, name, fuse_conv_bn_eval(layer, next_layer))
                setattr(module, next_name, nn.Identity())


def has_depthwise(network: nn.Module) -> bool:
    """Whether a network has depthwise or grouped convolutions, whose rounding errors do not average out."""
    return any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in network.modules())


def _lower_dense_layers(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        dense = isinstance(child, nn.Linear) or (
            isinstance(child, nn.Conv2d) and child.groups == 1 and child.in_channels > 3
        )
        if dense:
            setattr(module, name, _Half(child, dtype))
        elif not isinstance(child, _READS_WEIGHTS | _Half):
            _lower_dense_layers(child, dtype)
