"""Images of other than three channels: what a network that was trained on three makes of them."""

from __future__ import annotations

import pytest
import torch
from backbone_data import pixels, plain
from torch import Tensor, nn
from torchvision import models

from featurize.backbones.build import Backbone, as_three_channels, build_backbone
from featurize.backbones.shape import shape_of

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = {
    "resnet18": 64, "vgg11": 64, "vit_b_16": 64, "convnext_tiny": 64, "efficientnet_b0": 64, "swin_t": 64, "densenet121": 64,
    "inception_v3": 96, "googlenet": 64, "timm:test_vit.r160_in1k": 160, "timm:test_nfnet.r160_in1k": 64,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_of_equal_channels_gives_to_the_bit_what_it_gives_as_grey_rgb(name: str) -> None:
    side_px = NETWORKS[name]
    torch.manual_seed(0)
    # Networks that transform their input do so with weights only.
    state = None if name.startswith("timm:") else dict(plain(name, side_px).state_dict())
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    usual = build_backbone(name, side_px, state)
    grey = pixels(2, side_px, 1)
    with torch.inference_mode():
        expected = usual(grey.repeat(1, 3, 1, 1))
        assert not torch.allclose(expected[0], expected[1])
        for n_channels in range(1, 13):
            adapted = Backbone(usual.network, usual.taps, n_channels)
            found = adapted(grey.repeat(1, n_channels, 1, 1))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=f"{n_channels} channels")


def resnet_with_repeated_weights(state: dict[str, Tensor], n_channels: int) -> nn.Module:
    """The same thing done to the weights: repeated cyclically over the channels, and scaled to keep their sum."""
    network = models.resnet18(weights=None)
    network.load_state_dict(state)
    weight = network.conv1.weight.detach()
    wide = torch.zeros(64, n_channels, 7, 7)
    for place in range(max(n_channels, 3)):
        n_times = len(range(place % 3, max(n_channels, 3), 3))
        wide[:, place % n_channels] += weight[:, place % 3] / n_times
    if n_channels % 3 == 0:
        torch.testing.assert_close(wide, weight.repeat(1, n_channels // 3, 1, 1) * 3 / n_channels)
    network.conv1 = nn.Conv2d(n_channels, 64, 7, 2, 3, bias=False)
    network.conv1.weight = nn.Parameter(wide)
    network.fc = nn.Identity()
    return network.eval()


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 5, 6, 12])
def test_it_is_the_first_convolution_with_its_weights_repeated_and_scaled(n_channels: int) -> None:
    state, images = dict(plain("resnet18", 64).state_dict()), pixels(3, 64, n_channels)
    with torch.inference_mode():
        found = build_backbone("resnet18", 64, state, n_channels)(images)
        expected = resnet_with_repeated_weights(state, n_channels)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_three_channels_leave_all_as_it_is_to_the_bit() -> None:
    state, images = dict(plain("inception_v3", 96).state_dict()), pixels(2, 96)
    with torch.inference_mode():
        torch.testing.assert_close(
            build_backbone("inception_v3", 96, state, 3)(images),
            build_backbone("inception_v3", 96, state)(images),
            rtol=0,
            atol=0,
        )


def test_half_precision_does_not_lose_the_scale() -> None:
    images = torch.full((1, 12, 2, 2), 0.3, dtype=torch.bfloat16)
    torch.testing.assert_close(as_three_channels(images), images[:, :3], rtol=0, atol=0)


@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_columns_and_taps_do_not_depend_on_the_channels(n_channels: int) -> None:
    assert shape_of("vit_b_16/class+average", 64, n_channels) == shape_of("vit_b_16/class+average", 64)
