"""Networks of timm's: taps and weights against timm itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbone_data import assert_same, pixels, places_of, plain_timm, slow_pool
from torch import Tensor

from features_cache.errors import OptionError, WeightsMismatch
from features_cache.reader import FeatureCache
from featurize.backbones.build import build_backbone, build_shared
from featurize.backbones.calibrate import RANDOM_STATES
from featurize.backbones.precision import fold_batch_norm
from featurize.backbones.profile import profile_of
from featurize.backbones.shape import shape_of

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., tuple[int, str, str]]

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"
COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40


def taps_of(name: str, model: Any, images: Tensor) -> dict[str, np.ndarray]:
    """The vectors of each tap, by timm's own methods and loops of ours."""
    with torch.inference_mode():
        found = model.forward_features(images)
    if name.startswith(("test_resnet", "test_mambaout")):
        places = places_of(found, channels_last=name == "test_mambaout")
        assert places.shape[1] == (images.shape[-1] // 32) ** 2
        return {tap: slow_pool(places, tap) for tap in ("average", "gem", "max+average")}
    tokens, n_prefix = found.double().numpy(), {"test_vit2.r160_in1k": 1, VIT: 1}.get(name, 0)
    assert tokens.shape[1] == n_prefix + (images.shape[-1] // 16) ** 2
    patches = tokens[:, n_prefix:]
    taps = {tap: slow_pool(patches, tap) for tap in ("average", "gem", "max+average")}
    if name == VIT:
        taps |= {tap: slow_pool(patches, tap, tokens[:, 0]) for tap in ("class", "class+average")}
    return taps


@pytest.mark.parametrize("name", [RESNET, "test_mambaout", VIT, "test_vit2.r160_in1k", "test_vit_relpos"])
def test_every_tap_is_timm_s_map_or_tokens_pooled(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model, images = plain_timm(name, 160), pixels(2, 160)
    expected = {f"timm:{name}/{tap}": values for tap, values in taps_of(name, model, images).items()}
    model.reset_classifier(0)
    with torch.inference_mode():
        expected[f"timm:{name}"] = model(images).double().numpy()
        state = plain_timm(name, 160).state_dict()
        vectors = build_shared(list(expected), 160, state)(images)
    widths = [values.shape[1] for values in expected.values()]
    for mine, (tap, values) in zip(vectors.split(widths, dim=1), expected.items(), strict=True):
        assert_same(mine, values, tap)
        assert shape_of(tap, 160).columns == values.shape[1]


@pytest.mark.parametrize("name", ["densenet121", "test_byobnet", "test_efficientnet", RESNET])
def test_folding_batch_norm_keeps_the_activations_that_timm_puts_into_its_norms(name: str) -> None:
    images = pixels(2, 96)
    state = plain_timm(name, 96).state_dict()
    for scale in (value for key, value in state.items() if key.endswith("weight") and value.ndim == 1):
        scale[::2] *= -1  # as training may leave them: else a second ReLU would hide that the first was lost
    with torch.inference_mode():
        expected = build_backbone(f"timm:{name}", 96, state)(images)
        folded = fold_batch_norm(build_backbone(f"timm:{name}", 96, state))(images)
    assert_same(folded, expected.double().numpy(), name)


def test_layers_are_named_as_timm_names_them() -> None:
    model, images, kept = plain_timm(VIT, 160), pixels(2, 160), {}
    model.blocks[2].register_forward_hook(lambda *called: kept.update(out=called[2].clone()))
    with torch.inference_mode():
        model(images)
        mine = build_backbone(f"timm:{VIT}/blocks.2", 160, model.state_dict())(images)
    assert_same(mine, kept["out"].double().numpy().mean(axis=1), "blocks.2")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (f"timm:{RESNET}/class", r"has no class token; expected no tap, average, gem, max\+average, or layers of it"),
        ("timm:test_vit2.r160_in1k/class", "has no class token"),
        ("timm:crossvit_9_240/average", "its last output is list; expected a map or tokens"),
        ("timm:coat_lite_tiny/gem", "it gives 50 tokens and does not say which are patches"),
        ("timm:volo_d1_224/class", "gives vectors, and no map or tokens to pool"),
        (f"timm:{VIT}/blocks.9", r"no tap or layer 'blocks.9'; did you mean 'blocks.\d'\?"),
        ("timm:mobilenetv5_300m_enc", "its own output is no vector an image .* expected a tap, such as /average"),
        ("timm:test_renset", r"no backbone 'timm:test_renset'; `cli backbones --timm 'test\*'` lists timm's; did you mean 'timm:test_resnet"),
        ("timm:resnet50.nonsense", r"no backbone 'timm:resnet50.nonsense'"),
        ("timm:levit_128", "cannot be built for 100 px|does not take images of 100 px"),
    ],
)  # fmt: skip
def test_what_timm_or_a_network_does_not_have_is_told(name: str, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        shape_of(name, {"timm:levit_128": 100, "timm:crossvit_9_240/average": 240}.get(name, 224))


def test_a_profile_has_the_network_s_own_normalisation_size_and_licence() -> None:
    profile = profile_of("timm:vit_small_patch14_dinov2.lvd142m@main/class")
    assert (profile.size_px, profile.licence, profile.is_permissive) == (518, "apache-2.0", True)
    assert profile.weights == "timm/vit_small_patch14_dinov2.lvd142m@main"
    assert profile_of(f"timm:{VIT}").mean == profile_of(f"timm:{VIT}").std == (0.5, 0.5, 0.5)
    assert not profile_of("timm:convnextv2_atto.fcmae").is_permissive
    assert profile_of("vit_b_16").size_px == 224
    assert not profile_of("vit_h_14").is_permissive


def test_weights_with_and_without_classifier_and_of_another_size_are_loaded_as_timm_does() -> None:
    images = pixels(2, 96)
    whole = plain_timm(VIT, 160).state_dict()
    bare = {key: value for key, value in whole.items() if not key.startswith("head.")}
    expected = timm.create_model(
        VIT, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(whole)}, num_classes=0, img_size=96
    ).eval()
    with torch.inference_mode():
        for state in (whole, bare):
            found = build_backbone(f"timm:{VIT}", 96, dict(state))(images)
            torch.testing.assert_close(found, expected(images), rtol=0, atol=0)
    assert shape_of(f"timm:{VIT}", 96).tap.endswith("; built by timm for 96 instead of 160 px")


def test_weights_of_another_network_half_of_them_and_broken_ones_are_refused() -> None:
    state = plain_timm(VIT, 160).state_dict()
    with pytest.raises(WeightsMismatch, match=f"the weights are not those of timm:{RESNET}"):
        build_backbone(f"timm:{RESNET}", 160, dict(state))
    half = {key: value for key, value in state.items() if "blocks.3" not in key}
    with pytest.raises(WeightsMismatch, match=r"the weights are not those of .*blocks\.3"):
        build_backbone(f"timm:{VIT}", 160, half)
    with pytest.raises(WeightsMismatch, match="hold NaN or infinite values"):
        build_backbone(f"timm:{VIT}", 160, state | {"norm.weight": state["norm.weight"] * torch.nan})


def test_random_weights_have_a_file_without_colon_and_slash_and_are_the_same_for_every_tap(
    project: Path, run_cli: Run
) -> None:
    names = f"timm:{RESNET},timm:{RESNET}/gem,resnet18,resnet18/layer3+layer4"
    code, _, err = run_cli("featurize", "--backbone", names, "--weights", "random", "--size", 64, "--device", "cpu")
    assert code == 0, err
    assert "RANDOM WEIGHTS" in err
    files = sorted(path.name for path in (Path("features") / RANDOM_STATES).iterdir())
    # The name that earlier versions gave it, so that their caches are extended with the same weights.
    assert files == ["resnet18-d4dc13bf.safetensors", f"timm-{RESNET}-d4dc13bf.safetensors"]
    with FeatureCache(Path("features/train.h5")) as found:
        first, gem, plain_one, layers = (block.recipe for block in found.blocks)
    assert first.weights_sha256 == gem.weights_sha256 != plain_one.weights_sha256 == layers.weights_sha256


def test_without_the_extra_it_says_what_to_install(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for words in (("featurize", "--backbone", f"timm:{RESNET}"), ("backbones", "--timm", "resnet*")):
        code, _, err = run_cli(*words)
        assert code == 2
        assert "pip install 'permafeat[timm]'" in err
    assert not Path("features").exists()
