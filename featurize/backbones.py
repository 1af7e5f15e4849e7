"""Frozen networks by name, and where each one's vector leaves it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.models import vision_transformer

from features_cache.errors import OptionError, WeightsMismatch, did_you_mean, listed
from featurize.settings import DEFAULT_BACKBONES, TRAINED_SIZE_PX
from featurize.weights import hub_path, published_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_POOLED = "global average pool of the last feature map"
_TRANSFORMED = {
    "googlenet",
    "inception_v3",
}  # their ImageNet weights expect inputs scaled once more, by the network itself


class Backbone(nn.Module):
    """A network without its classifier: images in, one vector an image out.

    Parameters
    ----------
    name : str
        torchvision's name.
    network : nn.Module
        The whole network.
    tap : str
        Where the vector leaves it, in words.
    vectors : callable
        From the network and normalised images (n, 3, side, side) to vectors (n, columns).
    """

    def __init__(self, name: str, network: nn.Module, tap: str, vectors: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.tap = tap
        self._vectors = vectors

    def forward(self, images: Tensor) -> Tensor:
        """Return one float32 vector an image, shape (n, columns)."""
        return self._vectors(self.network, images).float()


def backbone_names() -> list[str]:
    """Return the names of all networks that can be used: torchvision's classification models."""
    return [name for name in models.list_models(module=models) if not name.startswith("quantized_")]


def check_backbone(name: str) -> None:
    """Check that a network is known.

    Raises
    ------
    OptionError
        If it is not; the nearest name is suggested.
    """
    if name not in backbone_names():
        msg = f"no backbone {name!r}; `cli backbones` lists them{did_you_mean(name, backbone_names())}"
        raise OptionError(msg)


def build_backbone(name: str, size_px: int, state: dict[str, Tensor] | None, n_channels: int = 3) -> Backbone:
    """Build a network for inputs of one size, in evaluation mode and float32.

    Parameters
    ----------
    name : str
        torchvision's name.
    size_px : int
        Side of its input.
    state : dict of Tensor, optional
        Weights. Without them it is initialised from torch's global random state.

    Returns
    -------
    Backbone

    Raises
    ------
    OptionError
        If the name is unknown, or the network does not take the size.
    WeightsMismatch
        If the weights are another network's.
    """
    check_backbone(name)
    if n_channels != 3:
        raise NotImplementedError
    network, tap, vectors = _build(name, size_px, pretrained=state is not None)
    if state is not None:
        _fill(name, network, _fitted_to(network, state))
    backbone = Backbone(name, network, tap, vectors).eval()
    return backbone.requires_grad_(requires_grad=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a network contributes.

    Parameters
    ----------
    columns : int
        Length of its vector.
    tap : str
        Where the vector leaves it.
    """

    columns: int
    tap: str


@functools.cache
def shape_of(name: str, size_px: int = TRAINED_SIZE_PX, n_channels: int = 3) -> Shape:
    """Find out what a network contributes, by a forward pass without numbers.

    Raises
    ------
    OptionError
        If the network is unknown, or does not take inputs of the size.
    """
    # RegNet computes its widths with tensors while it is built: those need numbers, its parameters do not.
    with _EmptyOnMeta() if name.startswith("regnet_") else torch.device("meta"):
        backbone = build_backbone(name, size_px, None, n_channels)
        try:
            columns = int(backbone(torch.empty(2, n_channels, size_px, size_px)).shape[1])
        except (RuntimeError, ValueError, AssertionError) as error:
            msg = f"{name} does not take images of {size_px} px ({error}); --size {TRAINED_SIZE_PX} always works"
            raise OptionError(msg) from error
    return Shape(columns, backbone.tap)


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters and buffers without numbers; everything else as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        options = dict(kwargs or {})
        if func in {torch.empty, torch.zeros, torch.ones}:
            options["device"] = "meta"
        return func(*args, **options)


def _build(name: str, size_px: int, *, pretrained: bool) -> tuple[nn.Module, str, Callable[[Any, Tensor], Tensor]]:
    options: dict[str, Any] = {}
    if name in _TRANSFORMED:
        options = {"init_weights": not pretrained, "transform_input": pretrained, "aux_logits": True}
    if name.startswith("vit_"):
        patch_px = int(name.rpartition("_")[2])
        if size_px % patch_px:
            msg = f"{name} takes multiples of {patch_px} px; --size {size_px} is none. Try {size_px // patch_px * patch_px}"
            raise OptionError(msg)
        options = {"image_size": size_px}
    network = models.get_model(name, weights=None, **options)
    if isinstance(getattr(network, "features", None), nn.Module) and not isinstance(network, models.SwinTransformer):
        network.classifier = nn.Identity()  # never run: 120 million numbers in vgg19
        return network, _POOLED, _densenet_features if isinstance(network, models.DenseNet) else _pooled_features
    if isinstance(network, models.MaxVit):
        network.classifier = network.classifier[:-3]
        return network, "input of the classifier's linear layers", _whole
    last = next(part for part in ("fc", "heads", "head", "classifier") if hasattr(network, part))
    setattr(network, last, nn.Identity())
    tap = "output before fc" if last == "fc" else f"input of {last}"
    if isinstance(network, models.VisionTransformer) and size_px != TRAINED_SIZE_PX:
        side = size_px // network.patch_size
        tap += f"; position embeddings interpolated (bicubic) to {side} x {side}"
    return network, tap, _whole


def _whole(network: nn.Module, images: Tensor) -> Tensor:
    return network(images).flatten(1)  # type: ignore[no-any-return]


def _pooled_features(network: Any, images: Tensor) -> Tensor:  # noqa: ANN401 - nn.Module has no attribute `features`
    # Pooled in float32: a mean of 49 bfloat16 values would lose what the network kept.
    return network.features(images).float().mean(dim=(2, 3))  # type: ignore[no-any-return]


def _densenet_features(network: Any, images: Tensor) -> Tensor:  # noqa: ANN401 - as above
    # DenseNet's own forward pass applies this ReLU between `features` and the pool.
    return torch.relu(network.features(images)).float().mean(dim=(2, 3))


def _fitted_to(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and resize what torchvision itself would when it loads its files."""
    if isinstance(network, models.DenseNet):
        old = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var).*)")
        state = {
            "".join(match.groups()) if (match := old.fullmatch(key)) else key: value for key, value in state.items()
        }
    if isinstance(network, models.VisionTransformer) and "encoder.pos_embedding" in state:
        state = dict(vision_transformer.interpolate_embeddings(network.image_size, network.patch_size, dict(state)))
    return state


def _fill(name: str, network: nn.Module, state: dict[str, Tensor]) -> None:
    unwanted = {key for key in state if key.startswith(("fc.", "classifier.", "head.", "heads."))}
    wanted = set(network.state_dict())
    kept = {key: value for key, value in state.items() if key in wanted or key not in unwanted}
    try:
        result = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        shapes = [line.strip() for line in str(error).splitlines()[1:]]
        msg = f"the weights are not those of {name}: {listed(shapes, 2)}"
        raise WeightsMismatch(msg) from error
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        msg = (
            f"the weights are not those of {name}: {len(missing)} keys missing ({listed(missing, 3)}), "
            f"{len(result.unexpected_keys)} unexpected ({listed(result.unexpected_keys, 3)})"
        )
        raise WeightsMismatch(msg)
    broken = [key for key, value in kept.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        msg = f"the weights of {name} hold NaN or infinite values ({listed(broken, 3)})"
        raise WeightsMismatch(msg)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackboneEntry:
    """One line of `cli backbones`.

    Parameters
    ----------
    name : str
        The network.
    columns : int
        What it contributes at 224 px.
    weights : str
        Name of torchvision's ImageNet weights.
    file : str
        Their file.
    size_mb : float
        Its size in units of 10^6 bytes.
    licence : str
        Of the weights.
    here : bool
        Whether the file is on this machine.
    default : bool
        Whether it is one of the four.
    """

    name: str
    columns: int
    weights: str
    file: str
    size_mb: float
    licence: str
    here: bool
    default: bool


def list_backbones() -> Iterator[BackboneEntry]:
    """Describe every network, the default four first."""
    others = [name for name in backbone_names() if name not in DEFAULT_BACKBONES]
    for name in (*DEFAULT_BACKBONES, *others):
        weights = published_weights(name)
        yield BackboneEntry(
            name=name,
            columns=shape_of(name).columns,
            weights=weights.name,
            file=hub_path(name).name,
            size_mb=float(weights.meta.get("_file_size", 0.0)),
            licence=str(weights.meta.get("license", "BSD-3-Clause")),
            here=hub_path(name).is_file(),
            default=name in DEFAULT_BACKBONES,
        )
