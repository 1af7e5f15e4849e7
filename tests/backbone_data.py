"""What tests of backbones need: plain networks whose outputs are alive, and slow poolings that know nothing of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models

Array = NDArray[np.float64]


def pixels(n_images: int, side_px: int, n_channels: int = 3) -> Tensor:
    """Normalised pictures that are no noise: coarse fields, the same on every machine."""
    rng = np.random.default_rng(side_px)
    coarse = torch.from_numpy(rng.normal(size=(n_images, n_channels, 4, 4))).float()
    return nn.functional.interpolate(coarse, size=(side_px, side_px), mode="bilinear", align_corners=False)


def enliven(network: nn.Module, images: Tensor) -> nn.Module:
    """Give batch norms statistics of these images: an untrained network in evaluation mode fades to nothing."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.inference_mode():
        network(images)
    return network.eval()


def plain(name: str, side_px: int) -> Any:
    """A network of torchvision's as it is, with random weights."""
    torch.manual_seed(11)
    options: dict[str, Any] = {"image_size": side_px} if name.startswith("vit_") else {}
    if name in {"inception_v3", "googlenet"}:
        # As their pretrained weights are loaded.
        options = {"init_weights": False, "transform_input": True, "aux_logits": True}
    return enliven(models.get_model(name, weights=None, **options).eval(), pixels(8 if side_px < 200 else 2, side_px))


def slow_pool(places: Array, tap: str, token: Array | None = None) -> Array:
    """Pool (n, places, channels) by the formulas, a place at a time."""
    total, raised, largest = np.zeros_like(places[:, 0]), np.zeros_like(places[:, 0]), places[:, 0]
    for place in range(places.shape[1]):
        total = total + places[:, place]
        raised = raised + np.maximum(places[:, place], 1e-6) ** 3
        largest = np.maximum(largest, places[:, place])
    average = total / places.shape[1]
    if tap == "gem":
        return (raised / places.shape[1]) ** (1 / 3)
    if tap == "max+average":
        return np.concatenate([largest, average], axis=1)
    if token is None:
        assert tap == "average"
        return average
    return {"class": token, "class+average": np.concatenate([token, average], axis=1), "average": average}[tap]


def places_of(values: Tensor, *, channels_last: bool = False) -> Array:
    """Lay a map (n, channels, height, width) out as (n, places, channels)."""
    array = values.double().numpy()
    array = array if channels_last else array.transpose(0, 2, 3, 1)
    return array.reshape(array.shape[0], -1, array.shape[-1])


def assert_same(mine: Tensor, expected: Array, name: str) -> None:
    """Columns and values, relative to their size; a dead network would prove nothing."""
    assert mine.dtype == torch.float32
    assert tuple(mine.shape) == expected.shape, name
    scale = np.linalg.norm(expected, axis=1)
    assert (scale > 1e-3).all() and np.isfinite(scale).all(), f"{name} is dead: the comparison would hold for anything"
    assert not np.allclose(expected[0], expected[1], rtol=1e-3), f"{name} says the same of every image"
    error = np.linalg.norm(mine.double().numpy() - expected, axis=1) / scale
    assert error.max() < 1e-4, f"{name}: {error.max():.1e}"


def plain_timm(name: str, side_px: int, **options: Any) -> Any:
    """A network of timm's as timm builds it, with random weights and its classifier."""
    torch.manual_seed(5)
    import timm  # an extra

    model = timm.create_model(name, pretrained=False, **options).eval()
    for part in model.parameters():  # timm starts some layers at zero: their tokens would all be alike
        part.data += 0.02 * torch.randn_like(part)
    return enliven(model, pixels(8, side_px))
