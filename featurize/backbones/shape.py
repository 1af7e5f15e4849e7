"""What a backbone contributes: how many columns, and from where."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from features_cache.errors import OptionError
from featurize.backbones.build import N_CHANNELS, Backbone, build_backbone
from featurize.backbones.own_backbones import own_backbone, own_names
from featurize.backbones.spelling import Spelling
from featurize.backbones.timm_backbones import timm_card
from featurize.settings import TRAINED_SIZE_PX


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a backbone contributes.

    Parameters
    ----------
    columns : int
        Length of its vector.
    tap : str
        Where the vector leaves it.
    """

    columns: int
    tap: str


def shape_of(name: str, size_px: int = TRAINED_SIZE_PX, n_channels: int = N_CHANNELS) -> Shape:
    """Find out what a backbone contributes, by a forward pass without numbers (of an own network: on zeros).

    Raises
    ------
    OptionError
        If the backbone is unknown, or does not take inputs of the size.
    """
    # What a name means may change while a process runs, where an entry point gives it.
    is_own = Spelling.parse(name).network in own_names()
    return (_shape_of if is_own else _remembered_shape_of)(name, size_px, n_channels)


def _shape_of(name: str, size_px: int, n_channels: int) -> Shape:
    spelling = Spelling.parse(name)
    is_own = not spelling.is_timm and spelling.network in own_names()
    where = f"{name}, an entry point of {own_backbone(spelling.network).distribution}," if is_own else name
    # Somebody else's network may raise anything.
    foreseen = (Exception,) if is_own else (RuntimeError, ValueError, AssertionError)
    backbone, place = _built_for_shape(spelling, name, size_px, n_channels)
    try:
        with place, torch.inference_mode():
            vectors = backbone(torch.zeros(2, n_channels, size_px, size_px))
    except OptionError as error:
        msg = f"--backbone {where}: {error}"
        raise OptionError(msg) from error
    except foreseen as error:
        if spelling.is_timm:
            advice = f"its own size is --size {timm_card(spelling.timm_name).size_px}"
        else:
            advice = "mend it, or choose another --size" if is_own else f"--size {TRAINED_SIZE_PX} always works"
        msg = f"{where} does not take images of {size_px} px ({error}); {advice}"
        raise OptionError(msg) from error
    return Shape(int(vectors.shape[1]), backbone.taps[name].words)


_remembered_shape_of = functools.cache(_shape_of)


def _built_for_shape(
    spelling: Spelling, name: str, size_px: int, n_channels: int
) -> tuple[Backbone, AbstractContextManager[Any]]:
    """Build a network without numbers where that can be; return it with the context that its inputs have to be made in."""
    if not spelling.is_timm and spelling.network in own_names():
        place: AbstractContextManager[Any] = nullcontext()
    # RegNet computes its widths with tensors while it is built: those need numbers, its parameters do not.
    elif spelling.network.startswith("regnet_"):
        place = _EmptyOnMeta()
    else:
        place = torch.device("meta")
    try:
        with place:
            return build_backbone(name, size_px, None, n_channels), place
    except (RuntimeError, NotImplementedError):
        if not spelling.is_timm:
            raise
    # Some of timm's families compute with tensors, too.
    return build_backbone(name, size_px, None, n_channels), nullcontext()


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters and buffers without numbers; everything else as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        options = dict(kwargs or {})
        if func in {torch.empty, torch.zeros, torch.ones}:
            options["device"] = "meta"
        return func(*args, **options)
