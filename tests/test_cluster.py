"""Units computed by actors of a Ray cluster: the bytes of the local run, whoever is killed, and errors that are ours."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster_data import N_IMAGES, WORDS, head, make_project, passes, started

from features_cache.errors import ClusterLost, ImagesMissing, InputError, OptionError, RecipeMismatch
from features_cache.extras import installed_version
from features_cache.parts import Parts
from features_cache.plan import parts_folder, plan_in
from features_cache.settle import settle_plan
from featurize.cluster.actor import Actor
from featurize.cluster.driver import Round, _n_actors  # how many is decided where Ray is, and counted here
from featurize.cluster.node import Node
from featurize.cluster.session import Session
from featurize.cluster.share import Share, Told
from featurize.settings import FeaturizeSettings
from featurize.work import plan_work

Run = Callable[..., tuple[int, str, str]]
HOUSE = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(installed_version("ray") == "not installed", reason="the extra ray is not installed"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node with two processors."""
    with head(n_cpus=2) as address:
        yield address


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of twelve training images, and a network that writes down what it sees."""
    monkeypatch.syspath_prepend(str(make_project(tmp_path)))
    monkeypatch.delitem(sys.modules, "watched_module", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_ray(cluster: str) -> tuple[str, ...]:
    return (*WORDS, "--engine", "ray", "--address", cluster, "--actors", "2")


def test_a_killed_actor_costs_its_part_and_the_file_is_that_of_the_local_run(
    watched: Path, run_cli: Run, on_ray: tuple[str, ...]
) -> None:
    code, _, err = run_cli(*WORDS, "--out", "alone")
    assert code == 0, err
    units = [seen for _, seen in passes(watched)]  # in their order
    assert len(units) == len(set(units)) == N_IMAGES
    (watched / "kill").touch()
    code, out, err = run_cli(*on_ray)
    assert code == 0, err
    assert out == ""
    assert err.startswith("features/train.h5: 12 images x 1 views x 8 columns, 0.0 MB; 12 computed in")
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()
    assert not Path("features/train.parts").exists()
    seen = passes(watched)
    death = next(place for place, (_, text) in enumerate(seen) if text.startswith("killed after"))
    committed = {int(name.split("-")[0]) for name in seen[death][1].split()[2:]}
    assert len(committed) >= 4
    killed, after = seen[death][0], seen[death + 1 :]
    assert not {text for _, text in after} & {units[number] for number in committed}
    assert killed not in {pid for pid, _ in after}
    # One looked at the first unit, two shared the others, one took the dead one's place.
    assert len({pid for pid, _ in seen}) == 4
    assert "nothing to compute" in run_cli(*on_ray)[2]


def test_an_error_in_an_actor_is_the_local_run_s_error(watched: Path, run_cli: Run, on_ray: tuple[str, ...]) -> None:
    (watched / "zero").touch()
    locally = run_cli(*WORDS, "--out", "alone")
    assert locally[0] == 2
    assert "features of watched are zero everywhere" in locally[2]
    assert run_cli(*on_ray) == locally
    assert not list(Path("features/train.parts").glob("*.h5"))
    (watched / "zero").unlink()
    (watched / "change").touch()
    code, _, err = run_cli(*on_ray)
    assert code == 2
    assert err == (
        "error: data/train/train11.png: changed since the run began. Put it back as it was, or begin anew with --overwrite"
    )
    assert list(Path("features/train.parts").glob("*.h5"))


def test_actors_run_openvino_on_images_by_url_as_the_local_run_does_on_those_of_a_folder(
    watched: Path, run_cli: Run, cluster: str
) -> None:
    words = (
        *WORDS[:1],
        "--backbone",
        "squeezenet1_1",
        *WORDS[3:5],
        "--size",
        "64",
        "--device",
        "cpu",
        "--batch-size",
        "4",
    )
    words = (*words, "--runtime", "openvino", "--precision", "bfloat16")
    assert run_cli(*words, "--out", "alone")[0] == 0
    url = f"simplecache::file://{watched}/data/train"
    code, _, err = run_cli(*words, "--train-images", url, "--engine", "ray", "--address", cluster)
    assert code == 0, err
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()
    assert json.loads(Path("features/train.json").read_text())["execution"]["runtime"] == "openvino"


@pytest.mark.slow
def test_an_image_that_no_actor_survives_ends_the_run(watched: Path, run_cli: Run, on_ray: tuple[str, ...]) -> None:
    (watched / "poison").touch()
    code, _, err = run_cli(*on_ray)
    assert code == 75
    assert err.startswith("error: actors died 10 times over the same images (")
    assert "what was committed is safe. Does one of them crash what reads it" in err
    assert len(list(Path("features/train.parts").glob("*-*.h5"))) >= 4


@pytest.mark.slow
def test_a_stopped_run_ends_with_its_actors_and_goes_on(watched: Path, run_cli: Run, on_ray: tuple[str, ...]) -> None:
    assert run_cli(*WORDS, "--out", "alone")[0] == 0
    (watched / "slow").touch()
    places = os.pathsep.join(place for place in sys.path if place)
    process = subprocess.Popen(
        [sys.executable, HOUSE / "cli.py", *on_ray],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not list(Path("features/train.parts").glob("*-*.h5")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopped by SIGTERM; what was committed is safe. Type the same command again to go on" in err
    assert err.count("\n") == 1
    (watched / "slow").unlink()
    there = {path.name: path.stat().st_mtime_ns for path in Path("features/train.parts").glob("*-*.h5")}
    passes(watched)
    code, _, err = run_cli(*on_ray)
    assert code == 0, err
    assert len(passes(watched)) == N_IMAGES - len(there)
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()


@pytest.mark.slow
def test_without_an_address_ray_runs_on_this_machine_for_as_long_as_the_run(
    watched: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    own = Path(tempfile.mkdtemp(dir="/tmp"))  # names of sockets have to be short
    monkeypatch.setenv("RAY_TMPDIR", str(own))
    Path("data/train/train05.png").write_text("no image")
    code, out, err = run_cli(*WORDS, "--engine", "ray", "--max-bad", "0.5")
    assert (code, out) == (4, ""), err
    assert "1 quarantined" in err
    assert run_cli(*WORDS, "--out", "alone", "--max-bad", "0.5")[0] == 4
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()
    own.rmdir()  # nothing of Ray is left
    assert sorted(path.name for path in watched.iterdir() if path.is_dir()) == ["alone", "data", "features", "site"]


@pytest.mark.slow
def test_a_lost_node_s_units_are_computed_by_the_others(watched: Path, run_cli: Run) -> None:
    assert run_cli(*WORDS, "--out", "alone")[0] == 0
    (watched / "slow").touch()
    with head(n_cpus=1) as address, started("--address", address, "--num-cpus", "1") as node:
        time.sleep(5)  # Ray says nowhere that a node has joined
        words = [sys.executable, HOUSE / "cli.py", *WORDS, "--engine", "ray", "--address", address, "--actors", "2"]
        places = os.pathsep.join(place for place in sys.path if place)
        environment = os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
        deadline = time.monotonic() + 120
        while len(list(Path("features/train.parts").glob("*-*.h5"))) < 4:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert len({pid for pid, _ in passes(watched)}) >= 3  # one that looked at the first unit, and one on each node
        os.killpg(node.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()


@pytest.fixture
def share(watched: Path) -> Share:
    """A split whose plan is on the disk."""
    settings = FeaturizeSettings(
        backbones=("watched",), weights=("random",), size_px=16, device="cpu", precision="float32", unit_images=1
    )
    work = plan_work(settings)
    path = settings.out / "train.h5"
    parts = Parts(parts_folder(path), settle_plan(parts_folder(path), work.plans["train"]))
    where = work.manifests["train"].root.where
    return Share.of(parts, path=path, where=where, reading=work.reading, settings=settings)


def test_a_node_that_lacks_what_the_others_have_says_so_by_its_name(share: Share, watched: Path) -> None:
    assert [told.unit for told in Node(share).compute([3, 4], look_at_first=False)] == [3, 4]
    shared = "must be on a file system that all nodes share"
    lacking = {
        "folder": (Path("/nowhere"), InputError, f"/nowhere: no such folder .*{shared}"),
        "where": (Path("nowhere"), ImagesMissing, f"nowhere: no such folder of images.*{shared}"),
        "path": (Path("elsewhere/train.h5"), InputError, f"elsewhere/train.parts: holds no plan.*{shared}"),
        "mark": ("0" * 12, InputError, "holds another plan"),
        "device": ("cuda", OptionError, "cuda"),
        "versions": (
            share.versions | {"torch": "1.0"},
            OptionError,
            "torch .* instead of 1.0, which may move features",
        ),
    }
    for name, (value, error, text) in lacking.items():
        with pytest.raises(error, match=f"^node .*{text}"):
            Node(dataclasses.replace(share, **{name: value}))
    module = watched / "site/watched_module.py"
    module.write_text(module.read_text().replace("linspace(-1, 1", "linspace(-1, 2"))
    sys.modules.pop("watched_module")
    with pytest.raises(RecipeMismatch, match=r"(?s)^node .*weights_sha256"):
        Node(share)


@pytest.mark.slow
def test_a_round_left_unfinished_tells_the_next_nothing_and_a_lost_driver_ends_the_run_resumably(
    share: Share, cluster: str
) -> None:
    parts = Parts(parts_folder(share.path), plan_in(parts_folder(share.path)))
    with Session(cluster, 1, lambda: None) as session:
        left = session.units(share, parts, range(N_IMAGES), look_at_first=True)
        assert next(left)[0] == 0
        left.close()
        found = session.units(share, parts, range(6, N_IMAGES), look_at_first=False)
        assert sorted(number for number, _ in found) == list(range(6, N_IMAGES))
        found = session.units(share, parts, range(N_IMAGES), look_at_first=True)
        next(found)
        session._process.kill()
        with pytest.raises(ClusterLost, match="Type the same command again to go on"):
            list(found)
        # Between two rounds nobody listens: the next one finds out as it asks.
        session.connect()
        session._process.kill()
        session._process.wait()
        with pytest.raises(ClusterLost, match="Type the same command again to go on"):
            list(session.units(share, parts, range(N_IMAGES), look_at_first=True))
    assert ClusterLost.exit_code == 75


def test_a_fault_of_the_program_is_no_reason_to_try_again(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "a mistake of ours"
        raise KeyError(msg)

    monkeypatch.setattr(Node, "compute", broken)
    told = Actor(share, look_at_first=False)({"unit": np.array([0])})
    told = [Told(*values) for values in zip(*(told[name].tolist() for name in Told._fields), strict=True)]
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        told[-1].check()


def test_other_hardware_is_counted_beside_the_cache(share: Share) -> None:
    node = Node(dataclasses.replace(share, hardware="another processor"))
    assert [told.unit for told in node.compute([3], look_at_first=False)] == [3]
    parts = Parts(parts_folder(share.path), plan_in(parts_folder(share.path)))
    (note,) = parts.read(3).conversions
    assert "and not by another processor: the last bits may differ" in note


def test_there_are_as_many_actors_as_there_is_room_for(share: Share) -> None:
    def counted(
        there: dict[str, float], need: dict[str, int], asked: int | None, n_units: int = 100, *, look: bool = False
    ) -> int:
        return _n_actors([there, {"memory": 1.0}], need, Round(share, range(n_units), asked, look_at_first=look))

    assert counted({"CPU": 8.0}, {"num_cpus": 2}, None) == 4
    assert counted({"CPU": 8.0}, {"num_cpus": 2}, None, n_units=3) == 3
    assert counted({"CPU": 8.0, "GPU": 2.0}, {"num_gpus": 1}, None) == 2
    with pytest.raises(
        OptionError, match="--actors 5 of 2 threads: the cluster has 8 CPUs, room for 4; type --actors 4"
    ):
        counted({"CPU": 8.0}, {"num_cpus": 2}, 5)
    # No node holds an actor of four threads, whatever all of them hold together; the first round waits for no room either.
    four = [{"CPU": 2.0}] * 4
    for look in (False, True):
        with pytest.raises(OptionError, match="the cluster has 8 CPUs, room for none"):
            _n_actors(four, {"num_cpus": 4}, Round(share, range(9), None, look_at_first=look))
    assert counted({"CPU": 8.0}, {"num_cpus": 2}, None, look=True) == 1
    with pytest.raises(
        OptionError, match="--actors 5 of 2 threads"
    ):  # and the first round begins nothing that the second refuses
        counted({"CPU": 8.0}, {"num_cpus": 2}, 5, look=True)
    with pytest.raises(OptionError, match="the cluster has 0 GPUs, room for none"):
        counted({"CPU": 8.0}, {"num_gpus": 1}, None)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--engine", "spark"), "--engine is 'spark'; expected one of local, ray"),
        (("--address", "a:1"), "--address is of a Ray cluster, and --engine is local"),
        (("--actors", "2"), "--actors is of a Ray cluster, and --engine is local"),
        (("--engine", "ray", "--actors", "0"), "--actors is 0; expected 1 or more"),
        (("--engine", "ray", "--actors", "many"), "--actors is 'many'; expected auto or a number"),
        (("--engine", "ray", "--shard", "1/2"), "--shard with --engine ray: actors share all units among them"),
    ],
)
def test_nonsense_is_told(watched: Path, run_cli: Run, words: tuple[str, ...], complaint: str) -> None:
    code, _, err = run_cli(*WORDS, *words)
    assert code == 2
    assert complaint in err


def test_without_the_extra_a_line_says_what_to_install(
    watched: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run_cli(*WORDS, "--engine", "ray", "--out", "elsewhere")
    assert code == 2
    assert err == "error: --engine ray needs ray, which is not installed; type pip install 'permafeat[ray]'"


def test_a_cluster_that_does_not_answer_is_told(watched: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run_cli(*WORDS, "--engine", "ray", "--address", "127.0.0.1:1")
    assert code == 2
    assert "--address 127.0.0.1:1: no Ray cluster answers" in err
    assert not Path("features").exists()  # no plan is left that would stand in the way
    assert run_cli(*WORDS)[0] == 0
    there = sorted(Path("features").rglob("*"))
    assert run_cli(*WORDS, "--engine", "ray", "--address", "127.0.0.1:1", "--overwrite")[0] == 2
    assert sorted(Path("features").rglob("*")) == there
    code, _, err = run_cli(*WORDS, "--engine", "ray", "--address", "nonsense", "--out", "elsewhere")
    assert code == 2
    assert "--address nonsense: no address of a cluster; expected HOST:PORT of a head node" in err
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    code, _, err = run_cli(*WORDS, "--engine", "ray", "--out", "elsewhere")
    assert code == 2
    assert "RAY_ADDRESS=ray://127.0.0.1:1: a URL; expected HOST:PORT of a head node" in err
