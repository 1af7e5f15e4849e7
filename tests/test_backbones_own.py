"""Networks that installed distributions offer as entry points: used like any other, and refused by the distribution's name."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import picture
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from features_cache.errors import OptionError
from features_cache.reader import FeatureCache
from featurize.backbones.build import build_backbone, check_backbone
from featurize.backbones.listing import list_backbones, list_own
from featurize.backbones.origin import find_origin
from featurize.backbones.precision import lowered
from featurize.backbones.profile import profile_of
from featurize.backbones.shape import shape_of
from featurize.backbones.state import sha256_of_state
from featurize.backbones.weights import parse_weights

Run = Callable[..., tuple[int, str, str]]
Install = Callable[..., None]
DOCS = Path(__file__).parent.parent / "docs" / "BACKBONES.md"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path as an installer would: its module, and a .dist-info folder."""

    def place(name: str, code: str, *, distribution: str = "cells-net", points_at: str = "build") -> None:
        site, module = tmp_path / f"site-{distribution}", f"{distribution.replace('-', '_')}_module"
        facts = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        facts.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (facts / "entry_points.txt").write_text(f"[permafeat.backbones]\n{name} = {module}:{points_at}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return place


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, size_px):
        super().__init__()
        self.size_px = size_px
        self.conv = nn.Conv2d(3, 8, 5, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-1, 1, 600).reshape(8, 3, 5, 5))
    def forward(self, images):
        assert images.shape[2:] == (self.size_px, self.size_px)
        return self.conv(images).relu().mean((2, 3))

def build(size_px):
    return Net(size_px)
"""


def documented() -> tuple[str, str]:
    """The example in docs/BACKBONES.md: its code, and what its entry point points at."""
    text = DOCS.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    return code, re.search(r'cells = "cells_net:(\w+)"', text)[1]


def test_the_documented_example_is_featurized_as_it_computes_itself(
    project: Path, run_cli: Run, install: Install
) -> None:
    code, points_at = documented()
    assert len(code.splitlines()) <= 18
    install("cells", code, points_at=points_at)
    words = (
        "featurize", "--backbone", "cells,cells/1", "--size", 128, "--precision", "float32", "--dtype", "float32",
        "--device", "cpu",
    )  # fmt: skip
    exit_code, _, err = run_cli(*words)
    assert exit_code == 0, err
    assert "RANDOM" not in err and "warning: cells" not in err
    with FeatureCache(Path("features/train.h5")) as cache:
        features, (block, layer), ids = cache.load(), cache.blocks, cache.ids
    build = getattr(importlib.import_module("cells_net_module"), points_at)
    network = build(128).eval()
    for row, image_id in enumerate(ids):
        image = picture(int(image_id.removeprefix("train").removesuffix(".png")))
        seen = tv.resize(tv.to_tensor(image), [128, 128], InterpolationMode.BILINEAR, antialias=True)
        with torch.inference_mode():
            seen = (seen[None] - 0.5) / 0.25
            expected = [network(seen)[0].numpy(), network[:2](seen).mean((2, 3))[0].numpy()]
        for part, wanted in zip((block, layer), expected, strict=True):
            mine = features[row, 0, part.start : part.stop]
            assert np.linalg.norm(mine - wanted) / np.linalg.norm(wanted) < 1e-5, (image_id, part.name)
    assert block.recipe.pretrained
    assert block.recipe.weights_sha256 == sha256_of_state(
        {f"network.{key}": value for key, value in network.state_dict().items()}
    )
    assert block.recipe.std == (0.25, 0.25, 0.25)
    record = json.loads(Path("features/train.json").read_text())
    assert record["weights"] == {"cells": "cells-net 1.2, MIT", "cells/1": "cells-net 1.2, MIT"}
    # The same again: a complete cache has nothing to compute.
    assert "complete, nothing to compute" in run_cli(*words)[2]


def test_it_is_listed_beside_torchvision_s_without_being_built(install: Install) -> None:
    install(
        "cells", "def build(size_px):\n    raise RuntimeError\nbuild.licence = 'cc-by-nc-4.0'\nbuild.size_px = 96\n"
    )
    (entry,) = list_own()
    assert (entry.name, entry.source, entry.columns, entry.size_px) == ("cells", "own", None, 96)
    assert (entry.weights, entry.licence, entry.here, entry.fault) == ("cells-net 1.2", "cc-by-nc-4.0", True, "")
    assert (
        "its weights (cells-net 1.2) have the licence cc-by-nc-4.0" in find_origin("cells", parse_weights([])).warning
    )


def test_its_weights_may_be_given_as_a_file(install: Install, project: Path, run_cli: Run) -> None:
    install("cells", NETWORK)
    state = {"conv.weight": torch.rand(8, 3, 5, 5), "conv.bias": torch.zeros(8)}
    save_file(state, "mine.safetensors")
    words = (
        "featurize",
        "--backbone",
        "cells",
        "--size",
        64,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--limit",
        2,
    )
    code, _, err = run_cli(*words, "--weights", "cells=mine.safetensors")
    assert code == 0, err
    assert json.loads(Path("features/train.json").read_text())["weights"] == {"cells": "mine.safetensors"}
    with FeatureCache(Path("features/train.h5")) as cache:
        given = cache.load()
    assert run_cli(*words, "--out", "other")[0] == 0
    with FeatureCache(Path("other/train.h5")) as cache:
        assert not np.allclose(cache.load(), given)
    save_file({"conv.weight": state["conv.weight"]}, "half.safetensors")
    code, _, err = run_cli(*words, "--weights", "cells=half.safetensors", "--out", "third")
    assert code == 2
    assert "half.safetensors: the weights are not those of cells: 1 keys missing ('conv.bias')" in err


FAULTY = {
    "cannot be imported (ModuleNotFoundError: No module named 'no_such_thing')": "import no_such_thing\n",
    "cannot be imported (AttributeError": "bild = 3\n",
    "cannot be imported (ZeroDivisionError": "1 / 0\n",
    "is int; expected a callable": "build = 3\n",
    "has mean (0.5, 0.5); expected three numbers": NETWORK + "build.mean = (0.5, 0.5)\n",
    "has std (0.5, 0.0, 0.5); expected numbers above 0": NETWORK + "build.std = (0.5, 0, 0.5)\n",
    "has size_px '224'; expected a whole number": NETWORK + "build.size_px = '224'\n",
    "cannot be built for 64 px (TypeError": "def build():\n    pass\n",
    "builds NoneType; expected a torch.nn.Module": "def build(size_px):\n    pass\n",
    "its module gives torch.float32 of shape (2, 3, 64, 64); expected vectors": "import torch\ndef build(size_px):\n    return torch.nn.Identity()\n",
    "its module gives tuple": NETWORK.replace("return ", "return images, ", 1),
    "does not take images of 64 px ('no such key')": NETWORK.replace("return ", "return {}['no such key'] or ", 1),
}  # fmt: skip


@pytest.mark.parametrize("complaint", FAULTY)
def test_one_that_cannot_be_used_ends_with_2_and_the_distribution_s_name(
    project: Path, run_cli: Run, install: Install, complaint: str
) -> None:
    install("cells", FAULTY[complaint])
    code, _, err = run_cli("featurize", "--backbone", "cells", "--size", 64)
    assert code == 2, err
    assert "entry point of cells-net 1.2" in err
    assert complaint in err
    assert not Path("features/train.h5").exists()


def test_one_that_cannot_be_imported_does_not_hide_the_others(install: Install) -> None:
    install("cells", "1 / 0\n")
    install("fine", NETWORK, distribution="other-net")
    cells, fine = list_own()
    assert not cells.here
    assert "cannot be imported (ZeroDivisionError: division by zero)" in cells.fault
    assert (fine.name, fine.here, fine.fault) == ("fine", True, "")
    assert shape_of("resnet18").columns == 512


def test_the_names_of_torchvision_s_networks_are_refused_and_no_other_is_touched(install: Install) -> None:
    install("resnet18", NETWORK)
    with pytest.raises(
        OptionError, match=r"'resnet18', an entry point of cells-net 1.2, has the name of one of torchvision's"
    ):
        check_backbone("resnet18/gem")
    check_backbone("resnet34")
    (listed,) = list_own()
    assert "has the name of one of torchvision's networks" in listed.fault
    first = list(itertools.islice(list_backbones(), 4))
    assert "resnet18" not in [entry.name for entry in first], "nobody could tell which is meant"


def test_two_distributions_with_one_name_are_told(install: Install) -> None:
    install("cells", NETWORK)
    install("cells", NETWORK, distribution="other-net")
    with pytest.raises(
        OptionError, match=r"entry point of cells-net 1.2 and other-net 1.2, is offered 2 times; expected once"
    ):
        shape_of("cells", 64)


def test_taps_that_pool_a_map_are_refused_and_layers_are_not(install: Install) -> None:
    install("cells", NETWORK)
    assert shape_of("cells/conv", 64).columns == 8
    with pytest.raises(
        OptionError,
        match="cells gives vectors, and no map or tokens to pool; expected no tap, or layers of it, such as conv",
    ):
        shape_of("cells/gem", 64)
    assert profile_of("cells").mean == profile_of("resnet18").mean


def test_a_network_that_cannot_compute_in_half_precision_says_so(project: Path, run_cli: Run, install: Install) -> None:
    install("cells", NETWORK.replace("self.conv(images)", "nn.functional.conv2d(images.float(), self.conv.weight)"))
    words = ("featurize", "--backbone", "cells", "--size", 64, "--device", "cpu")
    code, _, err = run_cli(*words, "--precision", "bfloat16")
    assert code == 2
    assert "a network cannot compute in torch.bfloat16" in err and "type --precision float32" in err
    assert run_cli(*words, "--precision", "float32")[0] == 0


ATTENTION = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self._stem = nn.Conv2d(3, 16, 8, 8)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.last = nn.Linear(16, 24)
    def forward(self, images):
        tokens = self.depthwise(self._stem(images)).flatten(2).transpose(1, 2)
        return self.last(self.encoder(self.attention(tokens, tokens, tokens)[0]).mean(1))

def build(size_px):
    torch.manual_seed(3)
    return Net()
"""


def test_attention_beside_depthwise_layers_runs_in_bfloat16(install: Install) -> None:
    install("cells", ATTENTION)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = build_backbone("cells/_stem+last", 64, None)(images)
        found = lowered(build_backbone("cells/_stem+last", 64, None), torch.bfloat16)(images)
    assert expected.shape == (2, 16 + 24)
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999
    assert not torch.equal(found, expected), "the last layer computes in bfloat16"
