"""Frozen networks by name: built, and tapped."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from features_cache.errors import OptionError, did_you_mean
from featurize.backbones.own_backbones import build_own, own_backbone, own_names
from featurize.backbones.spelling import TIMM, Spelling
from featurize.backbones.state import fill
from featurize.backbones.taps import Read, Tap, Trunk, layers_of, tap_of
from featurize.backbones.timm_backbones import build_timm, timm_card
from featurize.backbones.torchvision_backbones import build_torchvision, fitted_to, keeps_classifier, torchvision_names

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
N_CHANNELS = 3


class Backbone(nn.Module):
    """A frozen network and its taps: images in, the vectors of every tap out, in one pass.

    Parameters
    ----------
    network : nn.Module
        Images (n, 3, side, side) in.
    taps : mapping of str to Tap
        By the names of the blocks that they give.
    n_channels : int
        Of the images that :meth:`forward` takes.

    Attributes
    ----------
    layers : frozenset of str
        Modules, named from this one, whose outputs are read: nothing may be folded into them.
    """

    def __init__(self, network: nn.Module, taps: dict[str, Tap], n_channels: int = N_CHANNELS) -> None:
        super().__init__()
        self.network = network
        self.taps = taps
        self.n_channels = n_channels
        self.layers = frozenset(f"network.{read.layer}" for tap in taps.values() for read in tap.reads if read.layer)

    def forward(self, images: Tensor) -> Tensor:
        """Return the vectors of all taps side by side.

        Parameters
        ----------
        images : tensor, shape (n, n_channels, side, side)
            Normalised.

        Returns
        -------
        float32 tensor, shape (n, columns of all taps)

        Raises
        ------
        OptionError
            If a layer that is tapped gives nothing that can be a vector an image.
        """
        reads = [read for tap in self.taps.values() for read in tap.reads]
        found: dict[Read, Tensor] = {}
        with contextlib.ExitStack() as hooks:
            for layer, here in _by_layer(reads).items():
                # Found by name at each pass: a layer may have been replaced by a quicker one.
                module = self.network.get_submodule(layer)
                hooks.enter_context(module.register_forward_hook(_keeper(here, found)))
            output = self.network(as_three_channels(images) if self.n_channels != N_CHANNELS else images)
        found |= {read: read.pool(output) for read in reads if not read.layer}
        silent = [read.layer for read in reads if read not in found]
        if silent:
            msg = f"layer {silent[0]!r} gives nothing in a forward pass; expected a layer that images go through"
            raise OptionError(msg)
        vectors = torch.cat([found[read] for read in reads], dim=1)
        if vectors.ndim != 2 or len(vectors) != len(images):
            msg = (
                f"{' + '.join(self.taps)}: {tuple(vectors.shape)} for {len(images)} images; expected a vector an image"
            )
            raise OptionError(msg)
        return vectors


def _by_layer(reads: Sequence[Read]) -> dict[str, list[Read]]:
    layers: dict[str, list[Read]] = defaultdict(list)
    for read in reads:
        if read.layer:
            layers[read.layer].append(read)
    return layers


def _keeper(reads: Sequence[Read], found: dict[Read, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401 - torch's signature
        for read in reads:
            # Pooled at once: what follows may change the map in place.
            found[read] = read.pool(output)

    return keep


def as_three_channels(images: Tensor) -> Tensor:
    """Show images of any number of channels to a network that was trained on three.

    The same as repeating the weights of its first convolution cyclically over the channels, each divided by how often it is
    there (3 / n where n is a multiple of three): a convolution is linear, so the channels that share weights may be averaged
    before it. Channels that are all alike give what a grey image gives.

    Parameters
    ----------
    images : tensor, shape (n, channels, height, width)
        Up to three channels are repeated cyclically; of more, every third is averaged.

    Returns
    -------
    tensor, shape (n, 3, height, width), of the same dtype

    Examples
    --------
    >>> as_three_channels(torch.tensor([1.0, 2, 3, 5]).reshape(1, 4, 1, 1)).flatten()
    tensor([3., 2., 3.])
    """
    n_channels = images.shape[1]
    if n_channels < N_CHANNELS:
        return images[:, [place % n_channels for place in range(N_CHANNELS)]]
    values = images.float()
    # Around the first of each: equal channels then give exactly what one gives.
    first = values[:, :N_CHANNELS]
    beyond = [(values[:, place::N_CHANNELS] - first[:, place : place + 1]).mean(1) for place in range(N_CHANNELS)]
    return (first + torch.stack(beyond, 1)).to(images.dtype)


def backbone_names() -> list[str]:
    """Return the names of all networks that are here: torchvision's classification models, then own ones.

    timm's are not among them: ``timm:`` and any name of timm's is one more.
    """
    return [*torchvision_names(), *(name for name in own_names() if name not in torchvision_names())]


def check_backbone(name: str) -> None:
    """Check that a backbone is spelled well, and its network known.

    Raises
    ------
    OptionError
        If it is not; the nearest name is suggested.
    """
    spelling = Spelling.parse(name)
    if spelling.is_timm:
        timm_card(spelling.timm_name)
    elif spelling.network in own_names():
        own_backbone(spelling.network)
    elif spelling.network not in torchvision_names():
        near = did_you_mean(spelling.network, backbone_names())
        msg = f"no backbone {spelling.network!r}; `cli backbones` lists them{near or f'; timm has more, spelled {TIMM}NAME'}"
        raise OptionError(msg)


def build_backbone(name: str, size_px: int, state: dict[str, Tensor] | None, n_channels: int = N_CHANNELS) -> Backbone:
    """Build a network for inputs of one size, in evaluation mode and float32.

    Parameters
    ----------
    name : str
        As spelled: ``NETWORK[@REVISION][/TAP]``.
    size_px : int
        Side of its input.
    state : dict of Tensor, optional
        Weights. Without them it is initialised from torch's global random state, or has those that its owner gave it.
    n_channels : int
        Of the images that it will be given.

    Returns
    -------
    Backbone

    Raises
    ------
    OptionError
        If name or tap are unknown, or the network does not take the size.
    WeightsMismatch
        If the weights are another network's.
    """
    return build_shared([name], size_px, state, n_channels)


def build_shared(
    names: Sequence[str], size_px: int, state: dict[str, Tensor] | None, n_channels: int = N_CHANNELS
) -> Backbone:
    """Build one network with the taps of several blocks, which one pass gives side by side.

    Parameters
    ----------
    names : sequence of str
        As spelled, and of one :func:`network_of`.
    size_px, state, n_channels
        As of :func:`build_backbone`.

    Raises
    ------
    OptionError, WeightsMismatch
        As :func:`build_backbone`; or if the names are of several networks.
    """
    if len({network_of(name) for name in names}) != 1:
        msg = f"{', '.join(names) or 'no name'}: expected backbones of one network"
        raise OptionError(msg)
    for name in names:
        check_backbone(name)
    spellings = {name: Spelling.parse(name) for name in names}
    first = spellings[names[0]]
    layers = [layer for spelling in spellings.values() for layer in layers_of(spelling.tap)]
    trunk = _build(first, size_px, state, layers)
    taps = {name: tap_of(trunk, spelling.network, spelling.tap) for name, spelling in spellings.items()}
    return Backbone(trunk.network, taps, n_channels).eval().requires_grad_(requires_grad=False)


def network_of(name: str) -> str:
    """Return what is equal for spellings that can share one network in memory.

    Examples
    --------
    >>> network_of("resnet18/gem") == network_of("resnet18"), network_of("vgg16/classifier.3") == network_of("vgg16")
    (True, False)
    """
    spelling = Spelling.parse(name)
    whole = not spelling.is_timm and keeps_classifier(layers_of(spelling.tap))
    return f"{spelling.network}@{spelling.revision}" + (", with its classifier" if whole else "")


def _build(spelling: Spelling, size_px: int, state: dict[str, Tensor] | None, layers: Sequence[str]) -> Trunk:
    if spelling.is_timm:
        return build_timm(spelling.timm_name, size_px, state)
    if spelling.network in own_names():
        return build_own(spelling.network, size_px, state)
    trunk = build_torchvision(spelling.network, size_px, is_pretrained=state is not None, layers=layers)
    if state is not None:
        fill(spelling.network, trunk.network, fitted_to(trunk.network, state))
    return trunk
