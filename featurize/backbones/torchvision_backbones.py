"""torchvision's classification models, without their classifiers."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.models import vision_transformer

from features_cache.errors import OptionError
from featurize.backbones.taps import Final, Pool, Read, Tap, Trunk, map_average, own_output
from featurize.settings import TRAINED_SIZE_PX

_TRANSFORMED = {
    "googlenet",
    "inception_v3",
}  # their ImageNet weights expect inputs scaled once more, by the network itself
_CLASSIFIERS = ("fc", "heads", "head", "classifier")
_FINAL_LAYERS: dict[type[nn.Module], str] = {
    models.ResNet: "layer4",
    models.GoogLeNet: "inception5b",
    models.Inception3: "Mixed_7c",
    models.MNASNet: "layers",
    models.ShuffleNetV2: "conv5",
    models.RegNet: "trunk_output",
}


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of all of torchvision's classification models."""
    return tuple(name for name in models.list_models(module=models) if not name.startswith("quantized_"))


def keeps_classifier(layers: Collection[str]) -> bool:
    """Whether named layers lie in a classifier, which is otherwise left out.

    Examples
    --------
    >>> keeps_classifier(["classifier.3"]), keeps_classifier(["layer4"])
    (True, False)
    """
    return any(layer.partition(".")[0] in _CLASSIFIERS for layer in layers)


def build_torchvision(name: str, size_px: int, *, is_pretrained: bool, layers: Collection[str]) -> Trunk:
    """Build one of torchvision's networks.

    Parameters
    ----------
    name : str
        torchvision's name.
    size_px : int
        Side of its input.
    is_pretrained : bool
        Whether weights will be loaded; without them it is initialised from torch's global random state.
    layers : collection of str
        Layers that taps name: the classifier stays where one of them lies in it.

    Raises
    ------
    OptionError
        If the network does not take the size.
    """
    options: dict[str, Any] = {}
    if name in _TRANSFORMED:
        options = {"init_weights": not is_pretrained, "transform_input": is_pretrained, "aux_logits": True}
    if name.startswith("vit_"):
        patch_px = int(name.rpartition("_")[2])
        if size_px % patch_px:
            msg = f"{name} takes multiples of {patch_px} px; --size {size_px} is none. Try {size_px // patch_px * patch_px}"
            raise OptionError(msg)
        options = {"image_size": size_px}
    with _Undrawn() if is_pretrained else contextlib.nullcontext():
        network = models.get_model(name, weights=None, **options)
    note = ""
    if isinstance(network, models.VisionTransformer) and size_px != TRAINED_SIZE_PX:
        side = size_px // network.patch_size
        note = f"; position embeddings interpolated (bicubic) to {side} x {side}"
    return Trunk(
        network=network,
        tap=_without_classifier(network, is_kept=keeps_classifier(layers)),
        final=_final(network),
        note=note,
    )


class _Undrawn(TorchFunctionMode):
    """Parameters whose random numbers are not drawn: weights take their place, and vgg19's alone cost a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        if func in {Tensor.uniform_, Tensor.normal_}:
            # Not left as it lies in memory: a truncated normal is drawn again until all of it is inside.
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


def _without_classifier(network: nn.Module, *, is_kept: bool) -> Tap:
    """Take the classifier off, unless it is kept; return the usual tap."""
    if isinstance(network, models.MaxVit):
        if not is_kept:
            network.classifier = network.classifier[:-3]
        return Tap("input of the classifier's linear layers", (Read("", own_output),))
    last = next(part for part in _CLASSIFIERS if hasattr(network, part))
    if not is_kept:
        setattr(network, last, nn.Identity())  # 120 million numbers in vgg19 that no tap reads
    if _has_features(network):
        pool: Pool = _rectified_average if isinstance(network, models.DenseNet) else map_average
        return Tap("global average pool of the last feature map", (Read("features", pool),))
    return Tap("output before fc" if last == "fc" else f"input of {last}", (Read("", own_output),))


def _rectified_average(values: Tensor) -> Tensor:
    # DenseNet's own forward pass applies this ReLU between `features` and the pool; not in place, others may read the map.
    return map_average(values.relu())


def _has_features(network: nn.Module) -> bool:
    return isinstance(getattr(network, "features", None), nn.Module) and not isinstance(network, models.SwinTransformer)


def _final(network: nn.Module) -> Final:
    if isinstance(network, models.DenseNet):
        return Final(layer="features", words="features after ReLU", is_rectified=True)
    if isinstance(network, models.VisionTransformer):
        return Final(layer="encoder", words="encoder", n_prefix=1, has_class=True)
    if isinstance(network, models.SwinTransformer):
        return Final(layer="norm", words="norm", channels_last=True)
    if isinstance(network, models.MaxVit):
        layer = f"blocks.{len(network.blocks) - 1}"
    else:
        layer = "features" if _has_features(network) else _FINAL_LAYERS[type(network)]
    return Final(layer=layer, words=layer)


def fitted_to(network: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and resize what torchvision itself would when it loads its files; leave out what the network left out."""
    state = given
    if isinstance(network, models.DenseNet):
        old = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var).*)")
        state = {
            "".join(match.groups()) if (match := old.fullmatch(key)) else key: value for key, value in state.items()
        }
    if isinstance(network, models.VisionTransformer) and "encoder.pos_embedding" in state:
        state = dict(vision_transformer.interpolate_embeddings(network.image_size, network.patch_size, dict(state)))
    wanted = set(network.state_dict())
    kept = OrderedDict(
        (key, value) for key, value in state.items() if key in wanted or key.partition(".")[0] not in _CLASSIFIERS
    )
    # MNASNet asks for the version that only torch's own files keep; 2 is torchvision's since 2019.
    kept._metadata = getattr(given, "_metadata", {"": {"version": 2}})  # type: ignore[attr-defined]  # noqa: SLF001 - torch's way
    return kept
