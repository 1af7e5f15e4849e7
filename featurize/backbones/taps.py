"""Where vectors leave a network: at its end, at its last map or tokens pooled anew, or at named layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from features_cache.errors import OptionError, did_you_mean

Pool = Callable[[Tensor], Tensor]

AVERAGE, CLASS, CLASS_AVERAGE, GEM, MAX_AVERAGE = "average", "class", "class+average", "gem", "max+average"
POOLINGS = (AVERAGE, CLASS, CLASS_AVERAGE, GEM, MAX_AVERAGE)
GEM_POWER = 3.0
GEM_LEAST = 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """One vector taken in a forward pass.

    Parameters
    ----------
    layer : str
        The module whose output it comes from; empty for the network's own.
    pool : callable
        From that output to vectors (n, columns), float32.
    """

    layer: str
    pool: Pool


@dataclasses.dataclass(frozen=True, slots=True)
class Tap:
    """Where a block's columns come from.

    Parameters
    ----------
    words : str
        What the recipe says.
    reads : tuple of Read
        What is taken, in the order of the columns.
    """

    words: str
    reads: tuple[Read, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The last feature map, or the last tokens, of a network.

    Parameters
    ----------
    layer : str
        The module that gives it: (n, channels, height, width), with channels last, or tokens (n, tokens, channels).
    words : str
        What the recipe calls it.
    channels_last : bool
        Whether a map is (n, height, width, channels).
    n_prefix : int or None
        Tokens before those of the patches (class token, registers); None where nobody says.
    has_class : bool
        Whether the first token is the class token.
    is_rectified : bool
        Whether the network applies a ReLU before it pools.
    """

    layer: str
    words: str
    channels_last: bool = False
    n_prefix: int | None = 0
    has_class: bool = False
    is_rectified: bool = False

    @property
    def poolings(self) -> tuple[str, ...]:
        """The taps that it allows."""
        return POOLINGS if self.has_class else (AVERAGE, GEM, MAX_AVERAGE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """A network without its classifier, as its library builds it.

    Parameters
    ----------
    network : nn.Module
        Images (n, 3, side, side) in.
    tap : Tap
        The usual place for a vector to leave it.
    final : Final or None
        What else may be pooled.
    root : str
        The module inside ``network`` that layers are named from; empty where it is the network itself.
    note : str
        What the recipe says of every tap, such as that position embeddings were interpolated.
    """

    network: nn.Module
    tap: Tap
    final: Final | None
    root: str = ""
    note: str = ""


def layers_of(tap: str) -> tuple[str, ...]:
    """Return the layers that a tap names; none where it is a pooling, or empty.

    Examples
    --------
    >>> layers_of("layer3+layer4"), layers_of("class+average")
    (('layer3', 'layer4'), ())
    """
    return () if not tap or tap in POOLINGS else tuple(tap.split("+"))


def tap_of(trunk: Trunk, network: str, tap: str) -> Tap:
    """Understand a tap.

    Parameters
    ----------
    trunk : Trunk
    network : str
        Its name, for messages.
    tap : str
        As spelled; empty for the usual place.

    Raises
    ------
    OptionError
        If the tap is unknown, or the network cannot have it; the message names those that it has.
    """
    if not tap:
        return dataclasses.replace(trunk.tap, words=trunk.tap.words + trunk.note)
    if tap in POOLINGS:
        return _final_tap(trunk, network, tap)
    layers = layers_of(tap)
    modules = dict(trunk.network.get_submodule(trunk.root).named_modules())
    for layer in layers:
        if layer not in modules:
            near = did_you_mean(layer, [*_poolings(trunk), *modules])
            msg = (
                f"--backbone {network}/{tap}: {network} has no tap or layer {layer!r}{near}; expected {_choices(trunk)}"
            )
            raise OptionError(msg)
    channels_last = trunk.final is not None and trunk.final.channels_last
    reads = tuple(Read(f"{trunk.root}.{layer}".lstrip("."), _layer_pool(layer, channels_last)) for layer in layers)
    return Tap(f"{' + '.join(layers)}, averaged over places{trunk.note}", reads)


def _poolings(trunk: Trunk) -> tuple[str, ...]:
    return trunk.final.poolings if trunk.final else ()


def _choices(trunk: Trunk) -> str:
    """Say which taps a network has."""
    children = list(trunk.network.get_submodule(trunk.root).named_children())
    # Of some size, and run: a list of modules is not.
    large = [name for name, child in children if [*child.children()] and not isinstance(child, nn.ModuleList)]
    return ", ".join((*_poolings(trunk), f"or layers of it, such as {'+'.join(large[-2:] or [children[0][0]])}"))


def _final_tap(trunk: Trunk, network: str, tap: str) -> Tap:
    final = trunk.final
    if final is None or tap not in final.poolings:
        lack = "gives vectors, and no map or tokens to pool" if final is None else "has no class token"
        msg = f"--backbone {network}/{tap}: {network} {lack}; expected no tap, {_choices(trunk)}"
        raise OptionError(msg)
    place = ("the patch tokens of " if final.n_prefix else "") + final.words
    words = {
        AVERAGE: f"average of {place}",
        CLASS: f"class token of {final.words}",
        CLASS_AVERAGE: f"class token, then average of {place}",
        GEM: f"generalised mean (p = {GEM_POWER:g}, clamped at {GEM_LEAST:g}) of {place}",
        MAX_AVERAGE: f"maximum, then average of {place}",
    }
    return Tap(words[tap] + trunk.note, (Read(final.layer, _final_pool(final, tap)),))


def own_output(output: Tensor) -> Tensor:
    """Take what a network gives as its vector: (n, columns), or maps of one place."""
    return output.flatten(1).float()


def map_average(values: Tensor) -> Tensor:
    """Average maps (n, channels, height, width) over their places, in float32.

    A mean of 49 bfloat16 values would lose what the network kept.
    """
    return values.float().mean(dim=(2, 3))


def generalised_mean(places: Tensor, power: float = GEM_POWER, least: float = GEM_LEAST) -> Tensor:
    """Pool places by their generalised mean, ``(mean(max(x, least) ** p)) ** (1 / p)``.

    Between the average (p = 1) and the maximum (p towards infinity); Radenovic, Tolias and Chum, 2018. It was made for maps
    after a ReLU. Of maps that take both signs the negative values count as ``least``: a channel that is negative everywhere
    becomes ``least``.

    Parameters
    ----------
    places : float32 tensor, shape (n, places, channels)
    power : float
        p, above 0.
    least : float
        What smaller values are raised to, above 0: the root has no slope at 0.

    Returns
    -------
    float32 tensor, shape (n, channels)

    Examples
    --------
    >>> generalised_mean(torch.tensor([[[0.0, -1.0], [2.0, -1.0]]])).numpy().round(4)
    array([[1.5874, 0.    ]], dtype=float32)
    """
    return places.clamp(min=least).pow(power).mean(1).pow(1 / power)


def _final_pool(final: Final, tap: str) -> Pool:
    def pool(values: Tensor) -> Tensor:
        prefix, places = _prefix_and_places(values, final)
        if tap == CLASS:
            return prefix[:, 0].clone()
        if tap == GEM:
            return generalised_mean(places)
        average = places.mean(1)
        if tap == CLASS_AVERAGE:
            return torch.cat([prefix[:, 0], average], dim=1)
        return torch.cat([places.amax(1), average], dim=1) if tap == MAX_AVERAGE else average

    return pool


def _prefix_and_places(values: Tensor, final: Final) -> tuple[Tensor, Tensor]:
    """Lay a map or tokens out as tokens (n, prefix, channels) and places (n, places, channels), float32."""
    if not isinstance(values, Tensor) or values.ndim not in {3, 4}:
        msg = f"its last output is {_found(values)}; expected a map or tokens. Take no tap, or layers of it"
        raise OptionError(msg)
    values = torch.relu(values.float()) if final.is_rectified else values.float()
    if values.ndim == 4:
        places = (values if final.channels_last else values.movedim(1, -1)).flatten(1, 2)
        return places[:, :0], places
    n_prefix = final.n_prefix
    if n_prefix is None:
        # Images are square, and so are their grids of patches: another number of tokens holds some that are no patches.
        if math.isqrt(values.shape[1]) ** 2 != values.shape[1]:
            msg = f"it gives {values.shape[1]} tokens and does not say which are patches; expected no tap, or layers of it"
            raise OptionError(msg)
        n_prefix = 0
    return values[:, :n_prefix], values[:, n_prefix:]


def _layer_pool(layer: str, channels_last: bool) -> Pool:  # noqa: FBT001 - a layout, named by its caller
    def pool(values: Tensor) -> Tensor:
        if isinstance(values, Tensor) and values.ndim == 2:
            return values.float().clone()  # the next layer may work in place
        if isinstance(values, Tensor) and values.ndim == 3:
            return values.float().mean(1)
        if isinstance(values, Tensor) and values.ndim == 4:
            # Images are square, and so are maps: the two equal sides are the map's, wherever the channels stand.
            first, second, third = values.shape[1:]
            if first == second and (second != third or channels_last):
                return values.float().mean((1, 2))
            if second == third:
                return map_average(values)
        msg = f"layer {layer!r} gives {_found(values)}; expected a square map, tokens or a vector. Take another layer"
        raise OptionError(msg)

    return pool


def _found(values: object) -> str:
    return f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
