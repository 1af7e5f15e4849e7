"""Networks of the user's own: callables that installed distributions offer as entry points.

A distribution names a callable in the group ``permafeat.backbones``; the entry point's name is the backbone's::

    def build(size_px: int) -> nn.Module

It returns a module that maps normalised images, float32 (n, 3, size_px, size_px), to vectors (n, columns). Its weights are in
it, or given with ``--weights NAME=FILE``. The callable may carry ``mean`` and ``std`` (three numbers each; ImageNet's unless
given), ``size_px`` (the size that it was trained on; 224) and ``licence``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import Tensor, nn

from features_cache.errors import OptionError, listed
from featurize.backbones.spelling import NETWORK_NAME
from featurize.backbones.state import fill
from featurize.backbones.taps import Read, Tap, Trunk
from featurize.backbones.torchvision_backbones import torchvision_names
from featurize.settings import TRAINED_SIZE_PX

GROUP = "permafeat.backbones"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OwnBackbone:
    """What an entry point offers.

    Parameters
    ----------
    name : str
        Of the backbone.
    distribution : str
        Name and version of what offers it.
    build : callable
        From the side of the images to the network.
    mean, std : tuple of float, length 3, or None
        Normalisation in units of the [0, 1] range; None for ImageNet's.
    size_px : int
        Side of the images that it was trained on.
    licence : str
        Of its weights; empty where it does not say.
    """

    name: str
    distribution: str
    build: Callable[[int], nn.Module]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    size_px: int
    licence: str


def own_names() -> tuple[str, ...]:
    """Return the names of all own networks, without importing them."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def own_backbone(name: str) -> OwnBackbone:
    """Import what an entry point offers.

    Raises
    ------
    OptionError
        If the name is taken or no name, several distributions offer it, its module cannot be imported, or what it offers is
        not as described above; the message names the distribution.
    """
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    by = " and ".join(sorted(_distribution(entry) for entry in entries))
    where = f"backbone {name!r}, an entry point of {by},"
    if name in torchvision_names():
        msg = f"{where} has the name of one of torchvision's networks; expected a name of its own. Rename it, or uninstall it"
        raise OptionError(msg)
    if not NETWORK_NAME.fullmatch(name):
        msg = f"{where} has a name that cannot be spelled; expected letters, digits, '.', '_' and '-'"
        raise OptionError(msg)
    if len(entries) != 1:
        msg = f"{where} is offered {len(entries)} times; expected once. Uninstall all but one"
        raise OptionError(msg)
    try:
        offered = entries[0].load()
    except Exception as error:
        msg = f"{where} cannot be imported ({type(error).__name__}: {error}). Mend it, or uninstall it"
        raise OptionError(msg) from error
    if not callable(offered):
        msg = f"{where} is {type(offered).__name__}; expected a callable: def build(size_px: int) -> torch.nn.Module"
        raise OptionError(msg)
    size_px = getattr(offered, "size_px", TRAINED_SIZE_PX)
    if not isinstance(size_px, int) or isinstance(size_px, bool) or size_px < 1:
        msg = f"{where} has size_px {size_px!r}; expected a whole number above 0"
        raise OptionError(msg)
    std = _three(offered, "std", where)
    if std is not None and min(std) <= 0:
        msg = f"{where} has std {std}; expected numbers above 0"
        raise OptionError(msg)
    return OwnBackbone(
        name=name,
        distribution=by,
        build=offered,
        mean=_three(offered, "mean", where),
        std=std,
        size_px=size_px,
        licence=str(getattr(offered, "licence", "")),
    )


def build_own(name: str, size_px: int, state: dict[str, Tensor] | None) -> Trunk:
    """Build an own network.

    Parameters
    ----------
    name : str
        The entry point's name.
    size_px : int
        Side of its input.
    state : dict of Tensor, optional
        Weights that replace those that it is built with.

    Raises
    ------
    OptionError
        If it cannot be built, or is no module; the message names the distribution.
    WeightsMismatch
        If the weights are another network's.
    """
    own = own_backbone(name)
    where = f"backbone {name!r}, an entry point of {own.distribution},"
    try:
        network: Any = own.build(size_px)
    except Exception as error:
        msg = f"{where} cannot be built for {size_px} px ({type(error).__name__}: {error}). Mend it, or choose another --size"
        raise OptionError(msg) from error
    if not isinstance(network, nn.Module):
        msg = f"{where} builds {type(network).__name__}; expected a torch.nn.Module"
        raise OptionError(msg)
    network.eval().to("cpu", torch.float32)
    if state is not None:
        fill(name, network, state)
    return Trunk(network=network, tap=Tap("output", (Read("", _vector),)), final=None)


def all_own() -> Iterator[tuple[str, OwnBackbone | None, str]]:
    """Yield each own network's name with what it offers, or None and what is wrong with it."""
    for name in own_names():
        try:
            own = own_backbone(name)
        except OptionError as error:
            yield name, None, str(error)
        else:
            yield name, own, ""


def _vector(output: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        found = (
            f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        )
        msg = f"its module gives {found}; expected vectors, floating point, of shape (images, columns)"
        raise OptionError(msg)
    return output.float()


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _three(offered: object, name: str, where: str) -> tuple[float, float, float] | None:
    values = getattr(offered, name, None)
    if values is None:
        return None
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        msg = f"{where} has {name} {values!r}; expected three numbers"
        raise OptionError(msg) from error
    if not all(map(math.isfinite, (first, second, third))):
        msg = f"{where} has {name} {listed([first, second, third])}; expected finite numbers"
        raise OptionError(msg)
    return first, second, third
