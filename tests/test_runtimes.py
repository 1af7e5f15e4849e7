"""What runs networks: OpenVINO is taken where it is installed, kept by what goes on, and left where it cannot run a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cache_data import QUICK, recipe
from torch import Tensor, nn

import featurize.device
from features_cache.errors import OptionError
from features_cache.plan import COMPILE, OPENVINO, TORCH, Execution, Plan, parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.recipe import Block
from features_cache.sources import SourceFile
from featurize.backbones.build import Backbone, build_backbone
from featurize.backbones.compile_runtime import compiled_by_torch
from featurize.backbones.faithful import NotConverted
from featurize.backbones.openvino_runtime import OpenVinoNetwork
from featurize.backbones.runtimes import made_quick
from featurize.backbones.taps import Read, Tap
from featurize.device import choose_runtime, cpu_is_fast_in_bfloat16
from featurize.engine import Engine
from featurize.views.augmentation import Augmentation

pytestmark = pytest.mark.openvino
Run = Callable[..., tuple[int, str, str]]
SIDE_PX = 64
QUICK_BY_TORCH = (*QUICK, "--runtime", "torch")


def compiled(name: str, precision: str, micro_batch: int = 6) -> tuple[Backbone, OpenVinoNetwork]:
    torch.manual_seed(0)
    backbone = build_backbone(name, SIDE_PX, None)
    return backbone, OpenVinoNetwork(backbone, SIDE_PX, micro_batch, precision, torch.get_num_threads())


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_it_gives_torch_s_features_and_place_and_neighbours_change_no_bit(precision: str, most: float) -> None:
    backbone, network = compiled("squeezenet1_1", precision)
    images = torch.rand(6, 3, SIDE_PX, SIDE_PX)
    with torch.inference_mode():
        expected = backbone(images)
    found = network(images)
    assert off(found, expected) < most
    torch.testing.assert_close(network(images.flip(0)).flip(0), found, rtol=0, atol=0)
    # Its own memory: the next pass does not overwrite what this one gave.
    kept = found.clone()
    network(torch.zeros_like(images))
    assert torch.equal(found, kept)
    # As a process begun anew computes it.
    assert torch.equal(compiled("squeezenet1_1", precision)[1](images), found)


def test_a_signal_after_networks_are_gone_reaches_python() -> None:
    code = """
import faulthandler, gc, signal, sys
from featurize.backbones.build import build_backbone
from featurize.backbones.openvino_runtime import OpenVinoNetwork

faulthandler.enable()  # Python's handlers then run on a stack for signals
networks = [OpenVinoNetwork(build_backbone("squeezenet1_1", 64, None), 64, 2, "float32", 1) for _ in range(2)]
del networks[0]
gc.collect()
del networks[0]
gc.collect()
signal.signal(signal.SIGINT, lambda *_: sys.exit("received"))
signal.raise_signal(signal.SIGINT)
"""
    places = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": places},
    )
    assert (done.returncode, done.stderr) == (1, "received\n")


def test_depthwise_networks_stay_in_float32_and_others_are_lowered() -> None:
    images = torch.rand(6, 3, SIDE_PX, SIDE_PX)
    rounding = 1e-3 if cpu_is_fast_in_bfloat16() else 0.0
    for name, lowest, highest in (("mobilenet_v2", 0.0, 1e-3), ("squeezenet1_1", rounding, 0.03)):
        torch.manual_seed(0)
        backbone = build_backbone(name, SIDE_PX, None)
        with torch.no_grad():
            for layer in backbone.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.train().momentum = 1.0
            backbone(images)
            expected = backbone.eval()(images)
        network = OpenVinoNetwork(backbone, SIDE_PX, 6, "bfloat16", 2)
        assert lowest <= off(network(images), expected) < highest, name


def engine(runtime: str) -> Engine:
    torch.manual_seed(0)
    plan = Plan(
        ids=("a",),
        sources=((SourceFile(path="a.png", n_bytes=1, sign=1),),),
        n_views=2,
        blocks=(Block(name="squeezenet1_1", start=0, columns=512, recipe=recipe("squeezenet1_1")),),
        unit_images=1,
        execution=Execution(device="cpu", micro_batch=6, n_threads=torch.get_num_threads(), runtime=runtime),
    )
    return Engine({"squeezenet1_1": build_backbone("squeezenet1_1", SIDE_PX, None)}, plan, Augmentation())


def test_too_little_memory_halves_the_batch_and_other_shapes_are_compiled_for() -> None:
    whole, small = engine(OPENVINO), engine(OPENVINO)
    small.views_a_pass = 4
    images, ids, views = torch.rand(5, 3, SIDE_PX, SIDE_PX), list("pqrst"), [0] * 5
    expected = whole.features(images, ids, views)
    assert off(small.features(images, ids, views), expected) < 1e-5
    assert off(engine(TORCH).features(images, ids, views), expected) < 1e-5


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu().mean((2, 3))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_torch_compiles_a_network_that_gives_the_same_features() -> None:
    torch.manual_seed(0)
    network, images = _Tiny().eval(), torch.rand(6, 3, SIDE_PX, SIDE_PX)
    compiled = compiled_by_torch(network, images, 6, "float32")
    with torch.inference_mode():
        assert off(compiled(images), network(images)) < 1e-5
    with pytest.raises(NotConverted, match=r"torch\.compile computes other features"):
        compiled_by_torch(_Jitted(), images, 6, "float32")


class _Jitted(nn.Module):
    """What comes out of a compiler with a fault."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * (-1 if torch.compiler.is_compiling() else 1)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_torch_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    backbone = Backbone(_Tiny(), {"own": Tap("own", (Read("", lambda output: output),))})
    execution = Execution(device="cpu", micro_batch=2, n_threads=1, runtime=COMPILE)
    told = r"--runtime compile: squeezenet1_1: torch.compile cannot convert it .* Take --runtime torch"
    without_compiler = inductor.patch({"cpp.cxx": ("/nowhere/g++",), "force_disable_caches": True})
    with without_compiler, pytest.raises(OptionError, match=told):
        made_quick(backbone, recipe("squeezenet1_1", size_px=SIDE_PX), execution)


def test_shards_that_it_runs_give_the_bytes_of_one_process(project: Path, run_cli: Run) -> None:
    words = ("featurize", *QUICK, "--augment", 1, "--batch-size", 2)
    assert run_cli(*words, "--out", "alone")[0] == 0
    for shard in ("2/2", "1/2"):
        assert run_cli(*words, "--shard", shard)[0] == 0
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()
    assert json.loads(Path("features/train.json").read_text())["execution"]["runtime"] == OPENVINO


class _Unknown(nn.Module):
    """What OpenVINO has no operation for."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvals(images[:, 0]).abs()


class _Wrong(nn.Module):
    """What comes out of a conversion with a fault."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * (-1 if torch.jit.is_tracing() else 1)


@pytest.mark.parametrize(
    ("network", "told"), [(_Unknown(), "cannot convert it"), (_Wrong(), "computes other features")]
)
def test_a_network_that_it_cannot_run_faithfully_is_not_run_by_it(network: nn.Module, told: str) -> None:
    backbone = Backbone(network, {"own": Tap("own", (Read("", lambda output: output),))})
    with pytest.raises(NotConverted, match=told):
        OpenVinoNetwork(backbone, SIDE_PX, 2, "float32", 1)


class _Chaotic(nn.Module):
    """A network whose features hang on the last bits of its input."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.mean((2, 3)) * 1e6).sin()


def test_a_chaotic_network_is_held_to_what_rounding_does_to_it() -> None:
    backbone = Backbone(_Chaotic(), {"own": Tap("own", (Read("", lambda output: output),))})
    images = torch.rand(2, 3, SIDE_PX, SIDE_PX)
    found = OpenVinoNetwork(backbone, SIDE_PX, 2, "float32", 1)(images)
    assert off(found, backbone(images)) > 1e-3


def test_the_run_falls_back_to_torch_and_says_so(project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli("featurize", *QUICK_BY_TORCH, "--out", "plain")[0] == 0

    def refused(*_: object) -> None:
        msg = "OpenVINO cannot convert it (no such operation)"
        raise NotConverted(msg)

    monkeypatch.setattr("featurize.backbones.runtimes.OpenVinoNetwork", refused)
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0 and "squeezenet1_1 run by torch: OpenVINO cannot convert it (no such operation)" in err
    assert Path("features/train.h5").read_bytes() == Path("plain/train.h5").read_bytes()
    record = json.loads(Path("features/train.json").read_text())
    assert "squeezenet1_1 run by torch: OpenVINO cannot convert it (no such operation)" in record["conversions"]
    # Told by the parts, whoever publishes them.
    assert run_cli("featurize", *QUICK, "--out", "shards", "--batch-size", 1, "--shard", "1/2")[0] == 0
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert (
        run_cli("featurize", *QUICK, "--out", "shards", "--batch-size", 1, "--shard", "2/2", "--runtime", "openvino")[0]
        == 0
    )
    record = json.loads(Path("shards/train.json").read_text())
    assert record["conversions"] == {"squeezenet1_1 run by torch: OpenVINO cannot convert it (no such operation)": 3}


def test_auto_takes_it_the_provenance_says_so_and_what_goes_on_keeps_it(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    record = json.loads(Path("features/train.json").read_text())
    assert record["execution"]["runtime"] == OPENVINO
    assert record["libraries"]["openvino"] != "not installed"
    with FeatureCache(Path("features/train.h5")) as cache:
        features = cache.load()

    code, _, err = run_cli("featurize", *QUICK_BY_TORCH, "--augment", 1)
    assert code == 2 and "openvino ran its networks; --runtime torch is asked for. Leave --runtime away" in err

    monkeypatch.setattr(featurize.device, "openvino_is_there", lambda: False)  # auto would take torch now
    assert run_cli("featurize", *QUICK, "--augment", 1)[0] == 0
    assert json.loads(Path("features/train.json").read_text())["execution"]["runtime"] == OPENVINO
    with FeatureCache(Path("features/train.h5")) as cache:
        assert (cache.load()[:, :1] == features).all() and cache.n_views == 2

    monkeypatch.setitem(sys.modules, "openvino", None)  # what is complete does without it
    code, _, err = run_cli("featurize", *QUICK, "--augment", 1)
    assert code == 0 and "complete, nothing to compute" in err
    code, _, err = run_cli("featurize", *QUICK, "--augment", 2)
    assert code == 2 and "features/train.h5: openvino runs its networks; to go on needs openvino" in err


def test_a_run_begun_by_torch_stays_with_torch_and_an_unfinished_one_refuses_another(
    project: Path, run_cli: Run
) -> None:
    assert run_cli("featurize", *QUICK_BY_TORCH, "--shard", "1/2", "--batch-size", 1)[0] == 0
    plan = plan_in(parts_folder(Path("features/train.h5")))
    assert plan is not None and plan.execution.runtime == TORCH
    code, _, err = run_cli("featurize", *QUICK, "--shard", "2/2", "--batch-size", 1, "--runtime", "openvino")
    assert code == 2 and "the unfinished run began with --runtime torch; this one would go on with openvino" in err
    assert run_cli("featurize", *QUICK, "--shard", "2/2", "--batch-size", 1)[0] == 0
    assert "runtime" not in json.loads(Path("features/train.json").read_text())["execution"]


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(project: Path, run_cli: Run) -> None:
    words = ("featurize", *QUICK, "--runtime", "openvino", "--augment", "30", "--batch-size", "1")
    assert run_cli(*words, "--out", "undisturbed")[0] == 0
    places = os.pathsep.join(place for place in sys.path if place)
    typed = [sys.executable, str(Path(featurize.__file__).parent.parent / "cli.py"), *words]
    process = subprocess.Popen(typed, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": places})
    until = time.monotonic() + 60
    while len(list(Path("features/train.parts").glob("*-*.h5"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not Path("features/train.h5").exists()
    assert run_cli(*words)[0] == 0
    for split in ("train", "test"):
        assert Path(f"features/{split}.h5").read_bytes() == Path(f"undisturbed/{split}.h5").read_bytes()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_a_run_that_torch_compiles_gives_the_features_of_one_that_it_does_not(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK_BY_TORCH, "--out", "plain")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--runtime", "compile", "--precision", "float32")
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as ours, FeatureCache(Path("plain/train.h5")) as plain:
        assert off(torch.from_numpy(ours.load()).float(), torch.from_numpy(plain.load()).float()) < 0.03
    assert "networks run by compile on cpu" in run_cli("inspect", "features/train.h5")[1]
    code, _, err = run_cli("featurize", *QUICK_BY_TORCH, "--precision", "float32")
    assert code == 0
    assert "features/train.h5: is complete, its networks run by compile and not by torch, and stays" in err


def test_caches_of_two_runtimes_are_told_of(project: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *QUICK_BY_TORCH)
    assert code == 0 and "networks were run" not in err
    for name in ("train.h5", "train.json"):
        (Path("features") / name).unlink()
    code, _, err = run_cli("featurize", *QUICK, "--runtime", "openvino")
    assert code == 0
    assert (
        "networks were run features/train.h5 by openvino, features/test.h5 by torch: features of the same image" in err
    )
    code, _, err = run_cli("featurize", *QUICK, "--augment", 1)  # each goes on with its own
    assert code == 0, err
    ran = [json.loads(Path(f"features/{split}.json").read_text())["execution"] for split in ("train", "test")]
    assert [execution.get("runtime", TORCH) for execution in ran] == [OPENVINO, TORCH]


def test_an_extension_of_a_cache_whose_record_is_lost_says_so(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    Path("features/train.json").unlink()
    code, _, err = run_cli("featurize", *QUICK, "--augment", 1)
    assert code == 0
    assert "6 images: train.json was lost: nobody knows what runtime and threads computed what was there" in err
    assert "test.json was lost" not in err
    with pytest.raises(ValueError, match="runtime 'onnx'; expected one of torch, compile, openvino"):
        Execution(device="cpu", micro_batch=16, n_threads=2, runtime="onnx")


def test_plans_of_torch_are_what_they_were_before_there_was_a_choice() -> None:
    fields = {"device": "cpu", "micro_batch": 16, "n_threads": 2}
    assert Execution(**fields).to_json() == fields
    assert Execution(**fields, runtime=OPENVINO).to_json() == fields | {"runtime": OPENVINO}


def test_nothing_reports_that_it_is_used(tmp_path: Path) -> None:
    code = """
import sys
from featurize.device import choose_runtime
assert choose_runtime("openvino", "cpu") == "openvino"
assert "openvino" in sys.modules and sys.modules["openvino_telemetry"] is None
"""
    home = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert list(tmp_path.iterdir()) == []


def test_it_is_for_processors_and_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (choose_runtime("auto", "cpu"), choose_runtime("auto", "cuda")) == (OPENVINO, TORCH)
    with pytest.raises(OptionError, match="--runtime openvino with --device cuda"):
        choose_runtime(OPENVINO, "cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"--runtime openvino needs openvino, .* pip install 'permafeat\[openvino\]'"):
        choose_runtime(OPENVINO, "cpu")
