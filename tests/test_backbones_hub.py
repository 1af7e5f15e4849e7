"""Weights of timm's networks: found without a network, downloaded once, named with revision and licence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_data import places_of, plain_timm, slow_pool
from cache_data import picture
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from features_cache.errors import OptionError, WeightsMissing
from features_cache.reader import FeatureCache
from featurize.backbones.origin import find_origin
from featurize.backbones.state import load_state
from featurize.backbones.weights import parse_weights, sha256_of

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., tuple[int, str, str]]

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"
COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no way to the hub."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return folder


def cache(hub: Path, name: str, commit: str, state: dict[str, Tensor], branch: str = "") -> Path:
    """Lay weights where `hf download` would."""
    repository = hub / f"models--timm--{name}"
    file = repository / "snapshots" / commit / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(state, file)
    if branch:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    return file


def test_the_cache_is_searched_and_the_revision_is_honoured(hub: Path) -> None:
    states = [plain_timm(RESNET, 160).state_dict() for _ in range(2)]
    states[1]["conv1.0.weight"] = states[1]["conv1.0.weight"] + 1
    newest = cache(hub, RESNET, COMMIT, states[0], "main")
    pinned = cache(hub, RESNET, OTHER, states[1])
    choice = parse_weights(["imagenet"])
    for spelled, file, commit in (("", newest, COMMIT), ("@main", newest, COMMIT), (f"@{OTHER}", pinned, OTHER)):
        origin = find_origin(f"timm:{RESNET}{spelled}/gem", choice)
        assert origin.file == file
        assert origin.provenance == f"timm/{RESNET}@{commit}/model.safetensors, apache-2.0"
        assert not origin.warning


def test_without_weights_and_without_a_network_it_says_at_once_what_to_do(hub: Path) -> None:
    began = time.monotonic()
    with pytest.raises(WeightsMissing) as told:
        find_origin(f"timm:{RESNET}@{COMMIT}", parse_weights([]))
    assert time.monotonic() - began < 5
    for words in (
        f"timm:{RESNET}: no weights of timm/{RESNET} at {COMMIT} in {hub}, and the download failed (",
        f"type `hf download timm/{RESNET} model.safetensors --revision {COMMIT}`",
        f"copy the folder models--timm--{RESNET} to that place",
        f"--weights DIR (timm-{RESNET}.safetensors in it) or --weights timm:{RESNET}=FILE",
        "--weights random",
    ):
        assert words in str(told.value)


class _Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one download asks for."""

    repository, files, asked = f"timm/{RESNET}", dict[str, bytes](), list[str]()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if self.path.startswith(f"/api/models/{self.repository}"):
            about = {"id": self.repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return self.answer(json.dumps(about).encode(), "application/json")
        name = self.path.rpartition("/")[2]
        return self.answer(self.files.get(name), "application/octet-stream")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, body: bytes | None, kind: str) -> None:
        self.send_response(404 if body is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"' + "0" * 40 + '"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("file_name", ["model.safetensors", "pytorch_model.bin"])
def test_a_download_goes_into_the_cache_once_and_its_commit_is_told(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_name: str
) -> None:
    from huggingface_hub import constants

    state = plain_timm(RESNET, 160).state_dict()
    (save_file if file_name.endswith("safetensors") else torch.save)(state, tmp_path / file_name)
    monkeypatch.setattr(_Hub, "files", {file_name: (tmp_path / file_name).read_bytes(), "config.json": b"{}"})
    monkeypatch.setattr(_Hub, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        origin = find_origin(f"timm:{RESNET}", parse_weights([]))
        server.shutdown()
    assert origin.provenance == f"timm/{RESNET}@{COMMIT}/{file_name}, apache-2.0"
    assert origin.file and load_state(origin.file).keys() == state.keys()
    n_asked = len(_Hub.asked)
    assert find_origin(f"timm:{RESNET}@{COMMIT}", parse_weights([])) == find_origin(f"timm:{RESNET}", parse_weights([]))
    assert len(_Hub.asked) == n_asked > 0, "found in the cache, by branch and by commit"


def test_files_and_folders_come_before_the_cache(hub: Path, tmp_path: Path) -> None:
    state = plain_timm(RESNET, 160).state_dict()
    cache(hub, RESNET, COMMIT, state, "main")
    for file in (tmp_path / "mine.safetensors", tmp_path / f"timm-{RESNET}.safetensors"):
        save_file(state, file)
    torch.save(state, tmp_path / f"timm-{VIT}.pth")
    name = f"timm:{RESNET}"
    assert (
        find_origin(name, parse_weights([f"{name}={tmp_path / 'mine.safetensors'}"])).file
        == tmp_path / "mine.safetensors"
    )
    assert find_origin(name, parse_weights([str(tmp_path)])).file == tmp_path / f"timm-{RESNET}.safetensors"
    assert find_origin(f"timm:{VIT}", parse_weights([str(tmp_path)])).file == tmp_path / f"timm-{VIT}.pth"
    with pytest.raises(OptionError, match=r"mine.safetensors has no revisions; expected timm:test_resnet"):
        find_origin(f"{name}@{COMMIT}", parse_weights([f"{name}={tmp_path / 'mine.safetensors'}"]))
    with pytest.raises(
        WeightsMissing, match=r"neither timm-test_vit2.safetensors nor timm-test_vit2.pth; it holds mine"
    ):
        find_origin("timm:test_vit2", parse_weights([str(tmp_path)]))
    with pytest.raises(
        WeightsMissing, match=r"timm names no weights on the hub. Give a file with --weights timm:test_mambaout=FILE"
    ):
        find_origin("timm:test_mambaout", parse_weights([]))


def test_a_run_has_timm_s_features_and_says_where_they_came_from(hub: Path, project: Path, run_cli: Run) -> None:
    state = plain_timm(RESNET, 160).state_dict()
    file = cache(hub, RESNET, COMMIT, state, "main")
    names = [f"timm:{RESNET}", f"timm:{RESNET}@{COMMIT}/gem"]
    code, _, err = run_cli(
        "featurize", "--backbone", ",".join(names), "--size", 96, "--device", "cpu", "--precision", "float32",
        "--dtype", "float32",
    )  # fmt: skip
    assert code == 0, err
    assert "warning: timm" not in err
    with FeatureCache(Path("features/train.h5")) as found:
        features, blocks, ids = found.load(), found.blocks, found.ids
    assert [block.name for block in blocks] == names
    recipe = blocks[1].recipe
    assert (recipe.backbone, recipe.mean, recipe.std) == (f"timm:{RESNET}", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert recipe.weights_sha256 == sha256_of(file)
    model = timm.create_model(RESNET, num_classes=1000).eval()
    model.load_state_dict(load_state(file))
    for row, image_id in enumerate(ids):
        image = picture(int(image_id.removeprefix("train").removesuffix(".png")))
        seen = tv.resize(tv.to_tensor(image), [96, 96], InterpolationMode.BILINEAR, antialias=True)
        with torch.inference_mode():
            places = places_of(model.forward_features((seen[None] - 0.5) / 0.5))
        for block, tap in zip(blocks, ("average", "gem"), strict=True):
            expected, mine = slow_pool(places, tap)[0], features[row, 0, block.start : block.stop]
            assert np.linalg.norm(mine - expected) / np.linalg.norm(expected) < 1e-4, (image_id, tap)
    told = f"timm/{RESNET}@{COMMIT}/model.safetensors, apache-2.0"
    assert json.loads(Path("features/train.json").read_text())["weights"] == dict.fromkeys(names, told)
    _, out, _ = run_cli("inspect", "features/train.h5")
    assert out.count(f"  weights: {told}") == 2
    assert json.loads(run_cli("inspect", "features/train.h5", "--json")[1])["weights"] == dict.fromkeys(names, told)


def test_a_licence_that_forbids_uses_is_a_warning_before_and_after(project: Path, run_cli: Run, tmp_path: Path) -> None:
    name = "timm:convnextv2_atto.fcmae"
    save_file(plain_timm("convnextv2_atto.fcmae", 64).state_dict(), tmp_path / "w.safetensors")
    words = (
        "featurize",
        "--backbone",
        f"{name},{name}/gem",
        "--weights",
        f"{name}={tmp_path / 'w.safetensors'}",
        "--size",
        64,
        "--limit",
        2,
    )
    warning = f"warning: {name}: its weights (timm/convnextv2_atto.fcmae) have the licence cc-by-nc-4.0; read it before"
    code, out, err = run_cli(*words, "--dry-run")
    assert code == 0, err
    assert warning in out
    assert "w.safetensors, cc-by-nc-4.0, sha256" in out
    code, _, err = run_cli(*words)
    assert code == 0, err
    assert warning in err


def test_the_list_of_timm_s_networks_is_asked_for_by_a_pattern(hub: Path, run_cli: Run) -> None:
    file = cache(hub, RESNET, COMMIT, plain_timm(RESNET, 160).state_dict(), "main")
    code, out, _ = run_cli("backbones", "--timm", "test_res*", "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "name": f"timm:{RESNET}", "source": "timm", "columns": None, "size_px": 160, "weights": f"timm/{RESNET}",
            "file": "model.safetensors", "size_mb": file.stat().st_size / 1e6, "licence": "apache-2.0", "here": True,
            "default": False, "fault": "",
        }
    ]  # fmt: skip
    _, out, _ = run_cli("backbones", "--timm", "dinov2")
    assert "timm:vit_small_patch14_dinov2.lvd142m" in out and "timm/vit_small_patch14_dinov2.lvd142m" in out
    code, _, err = run_cli("backbones", "--timm", "resnt50")
    assert code == 2
    assert "--timm 'resnt50' matches none of timm's" in err
