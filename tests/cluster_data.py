"""A Ray cluster of this machine, and a network that does what a test wants while an actor runs it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cache_data import picture

N_IMAGES = 12
# A unit an image and a view: a forward pass is a unit.
WORDS = (
    "featurize",
    "--backbone",
    "watched",
    "--weights",
    "random",
    "--size",
    "16",
    "--device",
    "cpu",
    "--precision",
    "float32",
)
WORDS = (*WORDS, "--batch-size", "1")
NETWORK = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

HERE = Path({here!r})

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-1, 1, 600).reshape(8, 3, 5, 5))
            self.conv.bias.zero_()

    def forward(self, images):
        vectors = self.conv(images).relu().mean((2, 3))
        if not images.any():
            return vectors  # asked for its shape
        self._log(f"{{float(images[0].double().sum()):.9f}}")
        if (HERE / "zero").exists():
            return vectors * 0
        if (HERE / "slow").exists():
            time.sleep(0.3)
        if (HERE / "poison").exists() and len(list((HERE / "features/train.parts").glob("*-*.h5"))) >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / "change").exists():
            (HERE / "data/train/train11.png").write_bytes(b"another image")
        parts = sorted((HERE / "features/train.parts").glob("*-*.h5"))
        if len(parts) >= 4 and (HERE / "kill").exists():
            (HERE / "kill").unlink()
            self._log("killed after " + " ".join(path.name for path in parts))
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors

    def _log(self, text):
        with open(HERE / "passes", "a") as file:
            file.write(f"{{os.getpid()}} {{text}}\\n")

def build(size_px):
    return Net()
"""


def make_project(folder: Path) -> Path:
    """Draw twelve training images, and install the watched network; return the folder of its distribution."""
    (folder / "data/train").mkdir(parents=True)
    for index in range(N_IMAGES):
        picture(index).save(folder / f"data/train/train{index:02d}.png")
    site = folder / "site"
    facts = site / "watched-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "watched_module.py").write_text(NETWORK.format(here=str(folder)))
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: watched\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[permafeat.backbones]\nwatched = watched_module:build\n")
    return site


def passes(folder: Path) -> list[tuple[str, str]]:
    """Read what the network wrote down, and forget it: the process, and the sum of the pixels that it saw."""
    lines = (folder / "passes").read_text().splitlines()
    (folder / "passes").unlink()
    return [(pid, text) for pid, _, text in (line.partition(" ") for line in lines)]


@contextlib.contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Let a process of Ray's run, and end it with all that it began."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--object-store-memory", str(80 * 2**20), "--block"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def head(n_cpus: int) -> Iterator[str]:
    """Start a cluster of one node; yield its address once it answers."""
    port, before = free_port(), dict(os.environ)
    # Of this test alone: without one Ray takes, or leaves, a secret in the home folder.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        with started("--head", "--port", str(port), "--num-cpus", str(n_cpus), "--include-dashboard", "false"):
            deadline = time.monotonic() + 60
            while not _answers(port):
                assert time.monotonic() < deadline, "Ray did not start"
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
    finally:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(name)
        os.environ |= before


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
