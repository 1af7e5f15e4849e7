"""timm's networks (Wightman, 2019), without their classifiers; they need the extra ``timm``."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from features_cache.errors import OptionError, WeightsMismatch, did_you_mean, listed
from featurize.backbones.spelling import TIMM
from featurize.backbones.state import fill, require_finite
from featurize.backbones.taps import Final, Read, Tap, Trunk

_OUTPUT = "output of timm without classifier (num_classes=0)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimmCard:
    """What timm knows of a network without building it.

    Parameters
    ----------
    name : str
        timm's name, with the tag of its weights.
    hub_id : str
        Where its weights are on the Hugging Face hub; empty where timm knows no place there.
    licence : str
        Of the weights.
    mean, std : tuple of float, length 3
        Normalisation in units of the [0, 1] range.
    size_px : int
        Side of the images that it was trained on.
    is_fixed : bool
        Whether it has to be built for one size.
    n_classes : int
        Of its weights' classifier; 0 where they have none.
    """

    name: str
    hub_id: str
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size_px: int
    is_fixed: bool
    n_classes: int


def load_timm() -> ModuleType:
    """Import timm.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        msg = f"--backbone {TIMM}NAME needs timm, which is not installed ({error}). Type pip install 'permafeat[timm]'"
        raise OptionError(msg) from error
    return timm


def timm_card(name: str) -> TimmCard:
    """Look a network up.

    Raises
    ------
    OptionError
        If timm is not installed, or does not know the network or its tag; the nearest name is suggested.
    """
    timm = load_timm()
    try:
        found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # an unknown tag
        found = None
    if found is None:
        known = [TIMM + each for each in (*timm.list_models(), *timm.list_models(pretrained=True))]
        near = did_you_mean(TIMM + name, known)
        msg = f"no backbone {TIMM + name!r}; `cli backbones --timm '{name[:4]}*'` lists timm's{near}"
        raise OptionError(msg)
    tag = f".{found.tag}" if found.tag else ""
    return TimmCard(
        name=name if "." in name else f"{name}{tag}",
        hub_id=found.hf_hub_id or "",
        licence=found.license or "unknown",
        mean=_three(found.mean),
        std=_three(found.std),
        size_px=found.input_size[-1],
        is_fixed=found.fixed_input_size,
        n_classes=found.num_classes,
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def timm_cards(pattern: str) -> Iterator[TimmCard]:
    """Look up all networks with weights whose names match a pattern, such as ``resnet50*``; a word is looked for anywhere.

    Raises
    ------
    OptionError
        If timm is not installed, or no name matches.
    """
    names = load_timm().list_models(pretrained=True)
    matching = fnmatch.filter(names, pattern if set(pattern) & set("*?[") else f"*{pattern}*")
    if not matching:
        msg = f"--timm {pattern!r} matches none of timm's {len(names):,} names{did_you_mean(pattern, names)}; expected such as 'resnet50*'"
        raise OptionError(msg)
    return map(timm_card, matching)


class _Tappable(nn.Module):
    """A network of timm whose last map or tokens pass a module, so that a hook finds them."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - each family of timm's is a class of its own
        super().__init__()
        self.model = model
        self.last = nn.Identity()
        features = model.forward_features
        # timm's own forward pass calls this method, whatever else a family does before and after.
        model.forward_features = lambda *args, **options: self.last(features(*args, **options))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)  # type: ignore[no-any-return]


def build_timm(name: str, size_px: int, state: dict[str, Tensor] | None) -> Trunk:
    """Build one of timm's networks.

    Parameters
    ----------
    name : str
        timm's name.
    size_px : int
        Side of its input.
    state : dict of Tensor, optional
        Weights as timm publishes them, with or without classifier. Without them it is initialised from torch's global
        random state.

    Raises
    ------
    OptionError
        If timm is not installed, or the network is unknown or does not take the size.
    WeightsMismatch
        If the weights are another network's.
    """
    card = timm_card(name)
    options = {"img_size": size_px} if card.is_fixed and size_px != card.size_px else {}
    try:
        model = load_timm().create_model(name, pretrained=False, num_classes=0, in_chans=3, **options)
    except (AssertionError, TypeError, ValueError) as error:
        msg = f"{TIMM}{name} cannot be built for {size_px} px ({error}); its own size is --size {card.size_px}"
        raise OptionError(msg) from error
    if state is not None:
        fill(TIMM + name, model, _converted(card, state, options, set(model.state_dict())))
    has_class = getattr(model, "cls_token", None) is not None
    n_prefix = getattr(model, "num_prefix_tokens", None)
    known = n_prefix is not None or not has_class
    return Trunk(
        network=_Tappable(model),
        tap=Tap(_OUTPUT, (Read("", _vector),)),
        final=Final(
            layer="last",
            words="timm's forward_features",
            channels_last=getattr(model, "output_fmt", "") == "NHWC",
            n_prefix=n_prefix,
            has_class=has_class and n_prefix is not None,
        )
        if known
        else None,
        root="model",
        note=f"; built by timm for {size_px} instead of {card.size_px} px" if options else "",
    )


def _vector(output: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        msg = f"its own output is no vector an image ({found}); expected a tap, such as /average"
        raise OptionError(msg)
    return output.float()


def _converted(
    card: TimmCard, state: dict[str, Tensor], options: dict[str, Any], wanted: set[str]
) -> dict[str, Tensor]:
    """Let timm rename and resize weights as it does with its own, and leave the classifier out.

    timm is strict only where the classifier fits: a network with the classifier of the weights is filled first (or, where
    they have none, one without).
    """
    name = TIMM + card.name
    require_finite(name, state)
    first: RuntimeError | None = None
    for n_classes in dict.fromkeys((card.n_classes, 0)):
        overlay = {"state_dict": dict(state), "num_classes": n_classes}
        try:
            filled = load_timm().create_model(
                card.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=n_classes, in_chans=3, **options
            )
            return {key: value for key, value in filled.state_dict().items() if key in wanted}
        except RuntimeError as error:
            first = first or error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # timm's renaming stumbles over a state that is none of this network.
            first = first or RuntimeError(f"{type(error).__name__}: {error}")
    lines = [line.strip() for line in str(first).splitlines()]
    msg = f"the weights are not those of {name}: {listed([line[:200] for line in lines[1:] or lines], 2)}"
    raise WeightsMismatch(msg)
