"""Our features against a plain, slow script that knows nothing but torchvision."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import picture
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from features_cache.reader import FeatureCache
from featurize.backbones.build import backbone_names, build_backbone
from featurize.backbones.listing import list_backbones
from featurize.backbones.shape import shape_of
from featurize.run import featurize
from featurize.settings import DEFAULT_BACKBONES, FeaturizeSettings
from featurize.views.affine import drawn

SIDE_PX = 96
N_COPIES = 2
N_IMAGES = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference_view(image: Image.Image, flip_x: bool, flip_y: bool, angle: float, side_px: int) -> Tensor:
    """To [0,1], resize, flip, mirror the border outwards, rotate, cut the middle out, normalise."""
    pixels = tv.to_tensor(image.convert("RGB"))
    pixels = tv.resize(pixels, [side_px, side_px], InterpolationMode.BILINEAR, antialias=True)
    pixels = tv.hflip(pixels) if flip_x else pixels
    pixels = tv.vflip(pixels) if flip_y else pixels
    margin = side_px // 2
    wide = tv.pad(pixels, [margin], padding_mode="symmetric")
    # torchvision turns counter-clockwise for positive degrees; ours are counted from x to y, on a screen clockwise, and
    # map a view's place to the image's: the picture itself turns the other way.
    turned = tv.rotate(wide, math.degrees(angle), InterpolationMode.BILINEAR)
    return tv.normalize(tv.center_crop(turned, [side_px, side_px]), MEAN, STD)


def plain_taps(name: str, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Where the default backbones' vectors leave them, written down independently of the code."""
    if name == "vgg19":
        return lambda x: network.features(x).mean((2, 3))
    if name == "resnet18":
        network.fc = nn.Identity()
        return network
    if name == "vit_b_16":
        network.heads = nn.Identity()
        return network
    return lambda x: nn.functional.adaptive_avg_pool2d(network.features(x), 1).flatten(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights files of the four default networks: random, with batch-norm statistics that keep them alive."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    probe = torch.stack([reference_view(picture(index), False, False, 0.0, SIDE_PX) for index in range(12)])
    for name in DEFAULT_BACKBONES:
        network = models.get_model(name, weights=None)
        if name == "vgg19":
            network.classifier = nn.Sequential()  # 120 million numbers that no feature needs
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.inference_mode():
            network.train()(probe if name != "vit_b_16" else torch.zeros(1, 3, 224, 224))
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "train"
    folder.mkdir()
    for index in range(N_IMAGES):
        picture(index, side_px=40 + 7 * index).save(folder / f"{index}.png")
    return folder


RUNTIMES = pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=pytest.mark.openvino)])


def ours(
    images: Path,
    weights: Path,
    out: Path,
    names: tuple[str, ...],
    precision: str,
    size_px: int = SIDE_PX,
    runtime: str = "torch",
) -> FeatureCache:
    settings = FeaturizeSettings(
        train_images=images, out=out, augment=N_COPIES, backbones=names, weights=(str(weights),), size_px=size_px, precision=precision,
        storage="float32", device="cpu", runtime=runtime,
    )  # fmt: skip
    featurize(settings)
    return FeatureCache(out / "train.h5")


def reference(
    images: Path, weights: Path, names: tuple[str, ...], ids: tuple[str, ...], size_px: int = SIDE_PX
) -> np.ndarray:
    columns = []
    for name in names:
        state = torch.load(weights / f"{name}.pth", weights_only=True)
        network = models.get_model(name, weights=None, **({"image_size": size_px} if name == "vit_b_16" else {}))
        if name == "vit_b_16":
            state = models.vision_transformer.interpolate_embeddings(size_px, 16, state)
        if name == "vgg19":
            network.classifier = nn.Sequential()
        network.load_state_dict(state)
        tap = plain_taps(name, network.eval())
        rows = []
        for image_id in ids:
            for view in range(1 + N_COPIES):
                flips = drawn(0, image_id, view) if view else (False, False, 0.0)
                with torch.inference_mode():
                    pixels = reference_view(Image.open(images / image_id), *flips, size_px)
                    rows.append(tap(pixels[None])[0].numpy())
        columns.append(np.stack(rows).reshape(len(ids), 1 + N_COPIES, -1))
    return np.concatenate(columns, axis=2)


@RUNTIMES
def test_in_float32_every_view_of_every_block_is_the_plain_script_s(
    images: Path, weights: Path, tmp_path: Path, runtime: str
) -> None:
    with ours(images, weights, tmp_path, DEFAULT_BACKBONES, "float32", runtime=runtime) as cache:
        features, cached_blocks = cache.load(), cache.blocks
    expected = reference(images, weights, DEFAULT_BACKBONES, cache.ids)
    assert features.shape == expected.shape == (N_IMAGES, 1 + N_COPIES, 3072)
    assert [(block.name, block.columns) for block in cached_blocks] == [
        ("vgg19", 512), ("resnet18", 512), ("efficientnet_b0", 1280), ("vit_b_16", 768),
    ]  # fmt: skip
    for block in cached_blocks:
        mine, plain = (array[:, :, block.start : block.stop] for array in (features, expected))
        assert np.linalg.norm(plain) > 1, f"{block.name} is dead: the comparison would hold for anything"
        for view in range(1 + N_COPIES):
            error = np.linalg.norm(mine[:, view] - plain[:, view]) / np.linalg.norm(plain[:, view])
            assert error < 1e-4, f"{block.name}, view {view}"
        assert np.linalg.norm(mine[:, 1] - mine[:, 0]) / np.linalg.norm(mine[:, 0]) > 1e-3, (
            f"{block.name} sees no augmentation"
        )


@RUNTIMES
def test_in_bfloat16_each_image_and_block_points_the_same_way(
    images: Path, weights: Path, tmp_path: Path, runtime: str
) -> None:
    with ours(images, weights, tmp_path, DEFAULT_BACKBONES, "bfloat16", runtime=runtime) as cache:
        features = cache.load()
    expected = reference(images, weights, DEFAULT_BACKBONES, cache.ids)
    for block in cache.blocks:
        mine, plain = (array[:, :, block.start : block.stop] for array in (features, expected))
        # An untrained efficientnet_b0 is chaotic: it turns any rounding into much. Of depthwise networks the bound is held on
        # real weights, below.
        assert cosines(mine, plain).min() >= (0.97 if block.name == "efficientnet_b0" else 0.999), block.name


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


@RUNTIMES
def test_with_real_weights_real_nuclei_give_the_plain_script_s_features(
    real_data: Path, real_weights: Path, tmp_path: Path, runtime: str
) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for path in sorted((real_data / "mitocheck" / "train").iterdir())[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    names = ("mobilenet_v2", "squeezenet1_1")
    expected = reference(folder, real_weights, names, tuple(sorted(path.name for path in folder.iterdir())), 224)
    for precision in ("float32", "bfloat16"):
        with ours(folder, real_weights, tmp_path / precision, names, precision, 224, runtime) as cache:
            features = cache.load()
        for block in cache.blocks:
            mine, plain = (array[:, :, block.start : block.stop] for array in (features, expected))
            if precision == "float32":
                assert np.linalg.norm(mine - plain) / np.linalg.norm(plain) < 1e-4, block.name
            else:
                assert cosines(mine, plain).min() >= 0.999, block.name


@pytest.mark.parametrize(
    ("name", "columns"),
    [("mobilenet_v2", 1280), ("squeezenet1_1", 512), ("densenet161", 2208), ("vgg16", 512), ("resnet50", 2048), ("convnext_tiny", 768),
     ("swin_t", 768), ("regnet_y_400mf", 440), ("shufflenet_v2_x0_5", 1024)],
)  # fmt: skip
def test_other_networks_give_their_pooled_penultimate_layer(name: str, columns: int) -> None:
    assert shape_of(name).columns == columns
    torch.manual_seed(0)
    backbone = build_backbone(name, 64, None)
    assert backbone(torch.rand(2, 3, 64, 64)).shape == (2, columns)


def test_densenet_is_tapped_where_its_own_classifier_reads() -> None:
    torch.manual_seed(0)
    network = models.densenet121(weights=None).eval()
    state = dict(network.state_dict())
    network.classifier = nn.Identity()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(build_backbone("densenet121", 64, state)(pixels), network(pixels))


def test_every_listed_backbone_says_columns_weights_and_licence(run_cli: Callable[..., tuple[int, str, str]]) -> None:
    entries = {entry.name: entry for entry in list_backbones()}
    assert tuple(entries)[:4] == DEFAULT_BACKBONES
    assert set(entries) == set(backbone_names())
    assert sum(entries[name].columns for name in DEFAULT_BACKBONES) == 3072
    assert all(entry.columns > 0 and entry.file.endswith(".pth") and entry.licence for entry in entries.values())
    code, out, err = run_cli("backbones", "--json")
    assert code == 0
    assert [json.loads(line)["name"] for line in out.splitlines()] == list(entries)
    assert "timm:NAME" in err and "permafeat.backbones" in err
    assert len(run_cli("backbones")[1].splitlines()) == 1 + len(entries)
