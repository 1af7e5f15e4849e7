"""Taps of torchvision's networks, each against torchvision itself and a pooling written out place by place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from backbone_data import assert_same, pixels, places_of, plain, slow_pool
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from features_cache.errors import OptionError
from featurize.backbones.build import build_backbone, build_shared, network_of
from featurize.backbones.precision import fold_batch_norm, lowered
from featurize.backbones.shape import shape_of
from featurize.backbones.spelling import Spelling
from featurize.backbones.state import load_state

pytestmark = pytest.mark.usefixtures("one_thread")

# The node of torchvision's own graph that gives the last map, the side of the images, and two layers with their columns.
MAPS = {
    "resnet18": ("layer4", 64, "layer3+layer4", 256 + 512),
    "resnet50": ("layer4", 64, "layer2", 512),
    "resnet101": ("layer4", 64, "layer1+layer4", 256 + 2048),
    "vgg16": ("features", 64, "features.16+features.23", 256 + 512),
    "densenet161": ("features", 64, "features.denseblock2", 768),
    "convnext_tiny": ("features", 64, "features.1+features.5", 96 + 384),
    "regnet_y_400mf": ("trunk_output", 64, "trunk_output.block3", 208),
    "inception_v3": ("Mixed_7c", 96, "Mixed_6e", 768),
    "googlenet": ("inception5b", 64, "inception4e+inception5a", 832 + 832),
    "mobilenet_v2": ("features", 64, "features.4", 32),
    "mobilenet_v3_small": ("features", 64, "features.3", 24),
    "squeezenet1_1": ("features", 64, "features.7", 384 - 128),
    "shufflenet_v2_x0_5": ("conv5", 64, "stage2+stage4", 48 + 192),
    "mnasnet0_5": ("layers", 64, "layers.9", 24),
    "maxvit_t": ("blocks.3", 224, "blocks.0", 64),
    **{f"efficientnet_b{size}": ("features", 64, "features.3", 0) for size in range(8)},
}
COLUMNS = {
    "densenet161": 2208, "vgg16": 512, "resnet50": 2048, "resnet101": 2048, "efficientnet_b0": 1280, "efficientnet_b1": 1280,
    "efficientnet_b2": 1408, "efficientnet_b3": 1536, "efficientnet_b4": 1792, "efficientnet_b5": 2048, "efficientnet_b6": 2304,
    "efficientnet_b7": 2560, "resnet18": 512, "convnext_tiny": 768, "regnet_y_400mf": 440, "inception_v3": 2048,
    "googlenet": 1024, "mobilenet_v2": 1280, "mobilenet_v3_small": 576, "squeezenet1_1": 512, "shufflenet_v2_x0_5": 1024,
    "mnasnet0_5": 1280, "maxvit_t": 512,
}  # fmt: skip


def taken(network: nn.Module, nodes: Sequence[str], images: Tensor) -> list[Tensor]:
    """What nodes give, by torchvision's own means."""
    extractor = create_feature_extractor(network, {node: node for node in nodes}, suppress_diff_warning=True)
    with torch.inference_mode():
        found = extractor(images)
    return [found[node] for node in nodes]


@pytest.mark.parametrize("name", MAPS)
def test_every_tap_of_a_convolution_network_is_torchvision_s_map_pooled(name: str) -> None:
    node, side_px, layers, layer_columns = MAPS[name]
    network, images = plain(name, side_px), pixels(2, side_px)
    values, *of_layers = taken(network, [node, *layers.split("+")], images)
    values = values.relu() if name.startswith("densenet") else values
    expected = {tap: slow_pool(places_of(values), tap) for tap in ("average", "gem", "max+average")}
    of_layers = [slow_pool(places_of(layer), "average") for layer in of_layers]
    names = [name, *(f"{name}/{tap}" for tap in expected), f"{name}/{layers}"]
    with torch.inference_mode():
        backbone = build_shared(names, side_px, dict(network.state_dict()))
        usual, average, gem, both, named = backbone(images).split(
            [COLUMNS[name], COLUMNS[name], COLUMNS[name], 2 * COLUMNS[name], sum(part.shape[1] for part in of_layers)],
            dim=1,
        )
    assert_same(average, expected["average"], name)
    assert_same(gem, expected["gem"], f"{name}/gem")
    assert_same(both, expected["max+average"], f"{name}/max+average")
    for part, one in zip(named.split([part.shape[1] for part in of_layers], dim=1), of_layers, strict=True):
        assert_same(part, one, f"{name}/{layers}")
    assert named.shape[1] == (layer_columns or named.shape[1])
    if name == "maxvit_t":  # its usual tap lies behind a layer norm
        norm = network.classifier[2]
        assert_same(usual, norm(torch.from_numpy(expected["average"]).float()).detach().double().numpy(), name)
    else:
        assert_same(usual, expected["average"], name)


def test_taps_of_a_vision_transformer_tell_the_class_token_from_the_patches() -> None:
    network, images = plain("vit_b_32", 64), pixels(2, 64)
    layer, tokens = taken(network, ["encoder.layers.encoder_layer_3.add_1", "encoder.ln"], images)
    tokens, layer = tokens.double().numpy(), layer.double().numpy()
    assert tokens.shape == (2, 1 + 4, 768)
    token, patches = tokens[:, 0], tokens[:, 1:]
    expected = {
        "vit_b_32": token,
        **{f"vit_b_32/{tap}": slow_pool(patches, tap, token) for tap in ("average", "class", "class+average")},
        **{f"vit_b_32/{tap}": slow_pool(patches, tap) for tap in ("gem", "max+average")},
        "vit_b_32/encoder.layers.encoder_layer_3": layer.mean(axis=1),
    }
    with torch.inference_mode():
        vectors = build_shared(list(expected), 64, dict(network.state_dict()))(images)
    for part, (name, values) in zip(
        vectors.split([part.shape[1] for part in expected.values()], dim=1), expected.items(), strict=True
    ):
        assert_same(part, values, name)


def test_taps_of_a_swin_transformer_average_over_its_places_not_its_channels() -> None:
    network, images = plain("swin_t", 96), pixels(2, 96)
    stage, values = taken(network, ["features.1", "norm"], images)
    assert values.shape == (2, 3, 3, 768)
    assert stage.shape == (2, 24, 24, 96)
    expected = {
        **{f"swin_t/{tap}": slow_pool(places_of(values, channels_last=True), tap) for tap in ("average", "gem")},
        "swin_t/max+average": slow_pool(places_of(values, channels_last=True), "max+average"),
        "swin_t/features.1": slow_pool(places_of(stage, channels_last=True), "average"),
        "swin_t": slow_pool(places_of(values, channels_last=True), "average"),
    }
    with torch.inference_mode():
        vectors = build_shared(list(expected), 96, dict(network.state_dict()))(images)
    for part, (name, wanted) in zip(
        vectors.split([part.shape[1] for part in expected.values()], dim=1), expected.items(), strict=True
    ):
        assert_same(part, wanted, name)


def test_a_layer_of_the_classifier_can_be_tapped_and_then_the_classifier_stays() -> None:
    network, images = plain("alexnet", 64), pixels(2, 64)
    with torch.inference_mode():
        backbone = build_backbone("alexnet/classifier.4", 64, dict(network.state_dict()))
        flat = network.avgpool(network.features(images)).flatten(1)
        # The ReLU that follows works in place: it must not reach what was tapped.
        expected = network.classifier[:5](flat).clone()
        assert (expected < 0).any()
        assert_same(backbone(images), expected.double().numpy(), "alexnet/classifier.4")
    assert network_of("alexnet/classifier.4") != network_of("alexnet/gem") == network_of("alexnet")


def test_a_map_that_is_changed_in_place_afterwards_is_pooled_as_it_was() -> None:
    network, images = plain("resnet18", 64), pixels(2, 64)
    kept = {}
    network.layer1[0].bn2.register_forward_hook(lambda *called: kept.update(map=called[2].clone()))
    with torch.inference_mode():
        network(images)
        mine = build_backbone("resnet18/layer1.0.bn2", 64, dict(network.state_dict()))(images)
    assert_same(mine, slow_pool(places_of(kept["map"]), "average"), "resnet18/layer1.0.bn2")


def test_a_map_with_as_many_channels_as_rows_and_columns_is_still_a_map() -> None:
    network, images = plain("resnet18", 256), pixels(2, 256)
    (values,) = taken(network, ["layer1"], images)
    assert values.shape == (2, 64, 64, 64)
    with torch.inference_mode():
        mine = build_backbone("resnet18/layer1", 256, dict(network.state_dict()))(images)
    assert_same(mine, slow_pool(places_of(values), "average"), "resnet18/layer1")


@pytest.mark.parametrize("tap", ["features.0.0", "features.0.1", "features.3.conv.1.0", "features.18.0", "features.3"])
def test_folding_batch_norm_leaves_what_is_tapped(tap: str) -> None:
    images = pixels(2, 64)
    backbone = build_backbone(f"mobilenet_v2/{tap}", 64, dict(plain("mobilenet_v2", 64).state_dict()))
    with torch.inference_mode():
        expected = backbone(images)
        found = fold_batch_norm(backbone)(images)
    assert_same(found, expected.double().numpy(), tap)
    n_left = sum(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())
    assert n_left == (1 if tap.endswith(".0") else 0), "only the norm behind a tapped convolution stays"


@pytest.mark.parametrize("name", ["resnet18/average", "vit_b_32/gem", "densenet121/max+average"])
def test_taps_are_pooled_in_float32_whatever_the_network_computes_in(name: str) -> None:
    network = lowered(build_backbone(name, 64, None), torch.bfloat16)
    final = {"resnet18": "layer4", "vit_b_32": "encoder", "densenet121": "features"}[name.partition("/")[0]]
    kept = {}
    network.inner.network.get_submodule(final).register_forward_hook(lambda *called: kept.update(out=called[2].clone()))
    with torch.inference_mode():
        mine = network(pixels(2, 64))
    assert kept["out"].dtype == torch.bfloat16
    values = kept["out"].relu() if name.startswith("densenet") else kept["out"]
    places = values[:, 1:].double().numpy() if values.ndim == 3 else places_of(values)
    expected = torch.from_numpy(slow_pool(places, name.partition("/")[2]))
    torch.testing.assert_close(mine.double(), expected, rtol=1e-5, atol=1e-6)


def test_blocks_of_one_network_share_it_and_one_pass_gives_what_each_alone_gives() -> None:
    state, images = dict(plain("resnet18", 64).state_dict()), pixels(2, 64)
    names = ["resnet18/layer3", "resnet18", "resnet18/gem"]
    shared = build_shared(names, 64, state)
    n_passes = []
    shared.network.conv1.register_forward_hook(lambda *_: n_passes.append(1))
    with torch.inference_mode():
        parts = shared(images).split([256, 512, 512], dim=1)
        alone = [build_backbone(name, 64, state)(images) for name in names]
    assert len(n_passes) == 1
    for part, one in zip(parts, alone, strict=True):
        torch.testing.assert_close(part, one, rtol=0, atol=0)
    with pytest.raises(OptionError, match=r"resnet18, resnet34/gem: expected backbones of one network"):
        build_shared(["resnet18", "resnet34/gem"], 64, None)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_mnasnet_is_loaded_from_files_with_and_without_the_version_that_it_asks_for(
    tmp_path: Path, suffix: str
) -> None:
    network, images = plain("mnasnet0_5", 64), pixels(2, 64)
    file = tmp_path / f"mnasnet0_5{suffix}"
    (torch.save if suffix == ".pth" else save_file)(network.state_dict(), file)
    with torch.inference_mode():
        mine = build_backbone("mnasnet0_5", 64, load_state(file))(images)
        assert_same(mine, network.layers(images).mean((2, 3)).double().numpy(), "mnasnet0_5")


REFUSED = {
    "resnet18/class": r"resnet18 has no class token; expected no tap, average, gem, max\+average, or layers of it, such as layer3\+layer4",
    "resnet18/class+average": "resnet18 has no class token",
    "resnet18/gme": r"resnet18 has no tap or layer 'gme'; did you mean 'gem'\?; expected average, gem, max\+average, or layers",
    "resnet18/layer3+layre4": r"no tap or layer 'layre4'; did you mean 'layer4'\?",
    "resnet18/average+layer4": "no tap or layer 'average'",
    "vit_b_32/clas": r"did you mean 'class'\?; expected average, class, class\+average, gem, max\+average, or layers of it",
    "vit_b_32/encoder.layers.encoder_layer_0.self_attention": "layer 'encoder.layers.encoder_layer_0.self_attention' gives tuple",
    "inception_v3/AuxLogits": "layer 'AuxLogits' gives nothing in a forward pass; expected a layer that images go through",
    "swin_t/features.1.0.attn.qkv": "layer 'features.1.0.attn.qkv' gives nothing in a forward pass",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_tap_that_a_network_does_not_have_is_told_with_those_that_it_has(name: str) -> None:
    with pytest.raises(OptionError, match=REFUSED[name]) as told:
        shape_of(name, 96)
    assert str(told.value).startswith(f"--backbone {name}: ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"--backbone ''; expected NETWORK\[@REVISION\]\[/TAP\]"),
        ("resnet18/", "expected NETWORK"),
        ("/gem", "expected NETWORK"),
        ("resnet18/layer3++layer4", "expected NETWORK"),
        ("resnet 18", "expected NETWORK"),
        ("../resnet18", "expected NETWORK"),
        ("timm:", "expected NETWORK"),
        ("tim:resnet50", "expected NETWORK"),
        ("resnet18@main", r"only timm's networks have revisions; expected resnet18, or timm:NAME@main"),
    ],
)
def test_what_is_no_spelling_is_told_with_one_that_is(text: str, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        Spelling.parse(text)


@pytest.mark.parametrize("name", ["vgg19", "resnet18", "efficientnet_b0", "vit_b_16", "densenet161", "maxvit_t"])
def test_the_usual_taps_keep_the_words_that_digests_are_made_of(name: str) -> None:
    words = {
        "vgg19": "global average pool of the last feature map",
        "resnet18": "output before fc",
        "efficientnet_b0": "global average pool of the last feature map",
        "vit_b_16": "input of heads",
        "densenet161": "global average pool of the last feature map",
        "maxvit_t": "input of the classifier's linear layers",
    }
    assert shape_of(name).tap == words[name]


def test_a_recipe_s_words_tell_taps_and_sizes_apart() -> None:
    assert shape_of("vit_b_16/class+average", 96).tap == (
        "class token, then average of the patch tokens of encoder; position embeddings interpolated (bicubic) to 6 x 6"
    )
    assert shape_of("densenet121/gem").tap == "generalised mean (p = 3, clamped at 1e-06) of features after ReLU"
    assert shape_of("resnet18/layer3+layer4").tap == "layer3 + layer4, averaged over places"
