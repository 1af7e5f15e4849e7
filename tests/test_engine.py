"""Networks in micro-batches: a view's features do not depend on its neighbours, nor, within tolerance, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from cache_data import picture, recipe
from torch import Tensor, nn

from features_cache.errors import DeviceLost, OptionError
from features_cache.plan import Execution, Plan
from features_cache.recipe import Block
from features_cache.sources import SourceFile
from featurize.backbones.build import build_backbone
from featurize.backbones.precision import fold_batch_norm, lowered
from featurize.device import choose_device, choose_precision, cpu_is_fast_in_bfloat16
from featurize.engine import Engine
from featurize.views.augmentation import Augmentation
from featurize.views.geometry import Square, as_planes, to_square

SIDE_PX = 64


def engine(device: str = "cpu", precision: str = "float32", micro_batch: int = 6) -> Engine:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", SIDE_PX, None)
    plan = Plan(
        ids=("a",),
        sources=((SourceFile(path="a.png", n_bytes=1, sign=1),),),
        n_views=2,
        blocks=(Block(name="resnet18", start=0, columns=512, recipe=recipe("resnet18", precision=precision)),),
        unit_images=1,
        execution=Execution(device=device, micro_batch=micro_batch, n_threads=torch.get_num_threads()),
    )
    return Engine({"resnet18": backbone}, plan, Augmentation())


def pictures(numbers: Sequence[int]) -> Tensor:
    return torch.stack(
        [
            to_square(as_planes(np.asarray(picture(number), np.float32) / 255), Square("stretch", SIDE_PX))
            for number in numbers
        ]
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_place_and_neighbours_in_a_batch_change_no_bit(precision: str) -> None:
    ours = engine(precision=precision)
    one = ours.features(pictures([7]), ["x"], [3])
    many = ours.features(pictures([1, 2, 7, 3]), ["p", "q", "x", "r"], [0, 1, 3, 2])
    torch.testing.assert_close(many[2], one[0], rtol=0, atol=0)
    assert not torch.equal(many[1], many[2])


def test_view_0_is_the_image_itself_and_others_are_drawn_from_seed_image_and_view() -> None:
    images = pictures([1, 1, 1])
    views = engine().make_views(images, ["x", "x", "y"], [0, 1, 1])
    torch.testing.assert_close(views[0], images[0], rtol=0, atol=0)
    assert not torch.equal(views[1], views[2])


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "resnet18"])
def test_folding_batch_norm_changes_only_last_bits(name: str) -> None:
    torch.manual_seed(1)
    plain = build_backbone(name, SIDE_PX, None)
    for layer in plain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train().momentum = 1.0
    with torch.inference_mode():
        plain(pictures(range(8)))
        expected = plain.eval()(pictures([1, 2]))
        folded = fold_batch_norm(plain)(pictures([1, 2]))
    assert (folded - expected).norm() / expected.norm() < 1e-4
    n_left = sum(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())
    assert (n_left == 0) == (name != "resnet18")


def test_a_network_with_depthwise_layers_keeps_them_and_its_first_layer_in_float32() -> None:
    network = lowered(build_backbone("mobilenet_v2", SIDE_PX, None), torch.bfloat16)
    kinds = {
        (layer.groups > 1, layer.in_channels == 3, layer.weight.dtype)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    }
    assert kinds == {(True, False, torch.float32), (False, True, torch.float32), (False, False, torch.bfloat16)}


def test_precision_and_device_are_asked_for_not_assumed() -> None:
    assert choose_precision("auto", "cpu") == ("bfloat16" if cpu_is_fast_in_bfloat16() else "float32")
    assert choose_precision("float32", "cuda") == "float32"
    with pytest.raises(OptionError, match="float16 needs a GPU"):
        choose_precision("float16", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="--device cuda: not on this machine"):
            choose_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999999), ("bfloat16", 0.999), ("float16", 0.999)])
def test_a_gpu_gives_the_features_of_the_cpu(precision: str, least: float) -> None:
    images, ids, views = pictures([1, 2, 3]), ["a", "b", "c"], [0, 1, 2]
    expected = engine().features(images, ids, views)
    found = engine("cuda", precision).features(images, ids, views)
    assert nn.functional.cosine_similarity(expected, found).min() >= least


class _Small(torch.nn.Module):
    """A network on a device that holds a few views at once."""

    def __init__(self, inner: torch.nn.Module, n_views: int) -> None:
        super().__init__()
        self.inner = inner
        self._n_views = n_views

    def forward(self, views: Tensor) -> Tensor:
        if len(views) > self._n_views:
            raise torch.OutOfMemoryError
        return self.inner(views)


@pytest.mark.parametrize(("room", "views_a_pass"), [(6, 6), (5, 3), (2, 2), (1, 1)])
def test_out_of_memory_halves_what_goes_through_at_once_and_keeps_the_features(room: int, views_a_pass: int) -> None:
    whole, small = engine(), engine()
    small._networks["resnet18"] = _Small(small._networks["resnet18"], room)
    images, ids, views = pictures([1, 2, 3, 4]), ["p", "q", "r", "s"], [0, 1, 2, 3]
    expected, found = whole.features(images, ids, views), small.features(images, ids, views)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert small.views_a_pass == views_a_pass


def test_too_little_memory_for_one_view_and_a_lost_device_stop_the_run_resumably() -> None:
    ours = engine()
    ours._networks["resnet18"] = _Small(ours._networks["resnet18"], 0)
    with pytest.raises(DeviceLost, match="too little memory for a single view"):
        ours.features(pictures([1]), ["p"], [0])
    ours = engine()

    def gone(_: Tensor) -> Tensor:
        raise torch.AcceleratorError

    ours._networks["resnet18"].forward = gone
    with pytest.raises(DeviceLost, match=r"cpu was lost .* Type the same command again to go on"):
        ours.features(pictures([1]), ["p"], [0])
    assert DeviceLost.exit_code == 75
