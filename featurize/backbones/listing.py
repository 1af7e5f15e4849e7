"""The networks that can be used, for `cli backbones`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from featurize.backbones.own_backbones import GROUP, all_own
from featurize.backbones.shape import shape_of
from featurize.backbones.spelling import TIMM
from featurize.backbones.timm_backbones import timm_cards
from featurize.backbones.timm_weights import cached_file
from featurize.backbones.torchvision_backbones import torchvision_names
from featurize.backbones.weights import hub_path, published_licence, published_weights
from featurize.settings import DEFAULT_BACKBONES, TRAINED_SIZE_PX

HINT = (
    f"more: {TIMM}NAME is any network of timm's (`cli backbones --timm 'resnet50*'` lists them), and entry points "
    f"{GROUP} are yours; NETWORK/TAP takes other vectors of a network (docs/BACKBONES.md)"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackboneEntry:
    """One line of `cli backbones`.

    Parameters
    ----------
    name : str
        The network, as ``--backbone`` takes it.
    source : {"torchvision", "timm", "own"}
        Whose it is.
    columns : int or None
        What it contributes at 224 px; None where it would have to be built.
    size_px : int or None
        Side of the images that it was trained on; 224 for all of torchvision's. None where it cannot be used.
    weights : str
        Name of the weights: torchvision's, a place on the Hugging Face hub, or a distribution.
    file : str
        Their file; empty where there is none, or it is not known before it is here.
    size_mb : float or None
        Its size in units of 10^6 bytes; None where that is not known.
    licence : str
        Of the weights; empty where nobody says.
    here : bool
        Whether the weights are on this machine.
    default : bool
        Whether it is one of the four.
    fault : str
        Why it cannot be used; empty where it can.
    """

    name: str
    source: str
    columns: int | None
    size_px: int | None
    weights: str
    file: str
    size_mb: float | None
    licence: str
    here: bool
    default: bool
    fault: str = ""


def list_backbones() -> Iterator[BackboneEntry]:
    """Describe torchvision's networks, the default four first, and own ones."""
    own_ones = list(list_own())
    taken = {entry.name for entry in own_ones}  # refused: nobody could tell which is meant
    for name in dict.fromkeys((*DEFAULT_BACKBONES, *torchvision_names())):
        if name in taken:
            continue
        weights, file = published_weights(name), hub_path(name)
        yield BackboneEntry(
            name=name,
            source="torchvision",
            columns=shape_of(name).columns,
            size_px=TRAINED_SIZE_PX,
            weights=weights.name,
            file=file.name,
            size_mb=float(weights.meta.get("_file_size", 0.0)),
            licence=published_licence(name),
            here=file.is_file(),
            default=name in DEFAULT_BACKBONES,
        )
    yield from own_ones


def list_own() -> Iterator[BackboneEntry]:
    """Describe the networks that entry points offer; none is built, and a faulty one does not hide the others."""
    for name, own, fault in all_own():
        yield BackboneEntry(
            name=name,
            source="own",
            columns=None,
            size_px=own.size_px if own else None,
            weights=own.distribution if own else "",
            file="",
            size_mb=None,
            licence=own.licence if own else "",
            here=own is not None,
            default=False,
            fault=fault,
        )


def list_timm(pattern: str) -> Iterator[BackboneEntry]:
    """Describe timm's networks whose names match a pattern; none is built, and no network is needed.

    Raises
    ------
    OptionError
        If timm is not installed, or nothing matches.
    """
    for card in timm_cards(pattern):
        cached = cached_file(card.hub_id) if card.hub_id else None
        yield BackboneEntry(
            name=f"{TIMM}{card.name}",
            source="timm",
            columns=None,
            size_px=card.size_px,
            weights=card.hub_id,
            file=cached.name if cached else "",
            size_mb=cached.stat().st_size / 1e6 if cached else None,
            licence=card.licence,
            here=cached is not None,
            default=False,
        )
