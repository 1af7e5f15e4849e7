"""Whether cost grows linearly: seconds and memory of featurize for more and more images, with one worker and with two.

    python -m bench.scale [--images 1000,10000,100000] [--ray 1000,10000] [--only local,shards,ray] [--keep FOLDER]

The network is a stub of one small convolution, so what is measured is all the rest: listing, planning, reading, committing and
publishing. A worker is a process on one thread; two are `--shard 1/2` and `--shard 2/2` at once, or two of Ray's actors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

HOUSE = Path(__file__).parent.parent
SIDE_PX = 16
STUB = """
import torch
from torch import nn

class Stub(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 512, 5, 5)
        with torch.no_grad():
            self.conv.weight.copy_(torch.rand(512, 3, 5, 5, generator=torch.Generator().manual_seed(0)) - 0.25)
            self.conv.bias.zero_()

    def forward(self, images):
        return self.conv(images).relu().mean((2, 3))

def build(size_px):
    return Stub()
"""
WORDS = (
    "--backbone",
    "stub",
    "--weights",
    "random",
    "--size",
    str(SIDE_PX),
    "--device",
    "cpu",
    "--precision",
    "float32",
)
KINDS = {
    "local": (1, ()),
    "shards": (2, ()),
    "ray 1": (1, ("--engine", "ray", "--actors", "1")),
    "ray 2": (2, ("--engine", "ray", "--actors", "2")),
}


def draw(folder: Path, n_images: int) -> None:
    """Draw noisy pictures, a thousand to a folder, as far as they are not there."""
    rng = np.random.default_rng(0)
    for first in range(0, n_images, 1000):
        place = folder / f"{first // 1000:04d}"
        if place.exists():
            continue
        place.mkdir(parents=True)
        pixels = rng.integers(0, 256, (min(1000, n_images - first), SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        for index, picture in enumerate(pixels):
            Image.fromarray(picture).save(place / f"{index:03d}.png", compress_level=1)


def install_stub(folder: Path) -> None:
    """Put the network's distribution where PYTHONPATH will point."""
    facts = folder / "stub-1.0.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    (folder / "stub_module.py").write_text(STUB)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[permafeat.backbones]\nstub = stub_module:build\n")


def measured(folder: Path, kind: str, n_images: int) -> tuple[float, float]:
    """Featurize once; return seconds, and the largest peak of resident memory of any process, in MB."""
    _, more = KINDS[kind]
    images, out = folder / f"images-{n_images}", folder / "features"
    shutil.rmtree(out, ignore_errors=True)
    words = [
        sys.executable,
        str(HOUSE / "cli.py"),
        "--quiet",
        "featurize",
        *WORDS,
        "--train-images",
        str(images),
        "--out",
        str(out),
    ]
    each = [[*words, "--shard", f"{i + 1}/2"] for i in range(2)] if kind == "shards" else [[*words, *more]]
    places = os.pathsep.join([str(HOUSE), str(folder / "site")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    began = time.perf_counter()
    processes = [subprocess.Popen(command, cwd=folder, env=environment) for command in each]
    actors = 0.0
    while any(process.poll() is None for process in processes):
        actors = max(actors, peak_of_actors())
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    if any(process.returncode for process in processes):
        msg = f"{kind}, {n_images} images: featurize failed"
        raise RuntimeError(msg)
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, max(actors, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6)


def peak_of_actors() -> float:
    """Look at the peaks of Ray's actors, in MB: they are nobody's children who would count them (Linux only)."""
    peaks = [0.0]
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended in between
            if (place / "cmdline").read_bytes().startswith(b"ray::"):
                peaks += [float(kb) / 1000 for kb in re.findall(r"VmHWM:\s+(\d+)", (place / "status").read_text())]
    return max(peaks)


def in_a_process(folder: Path, kind: str, n_images: int) -> tuple[float, float]:
    """Measure in a process of its own: the peak of its children is of this one measure then."""
    words = [sys.executable, str(Path(__file__)), "--measure", kind, "--images", str(n_images), "--keep", str(folder)]
    told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return float(told[0]), float(told[1])


def rows(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, ...]]:
    """Measure all that is asked for."""
    install_stub(folder / "site")
    sizes = {"local": options.images, "shards": options.images, "ray": options.ray}
    for kind, (n_workers, _) in KINDS.items():
        family = kind.split()[0]
        if family not in options.only:
            continue
        for n_images in sizes[family]:
            draw(folder / f"images-{n_images}", n_images)
            seconds, peak = in_a_process(folder, kind, n_images)
            size = (folder / "features" / "train.h5").stat().st_size
            yield (
                f"{family}, {n_workers}",
                f"{n_images:,}",
                f"{seconds:.1f}",
                f"{1000 * seconds / n_images:.2f}",
                f"{peak:.0f}",
                f"{size / 1e6:.1f}",
            )


def numbers(text: str) -> list[int]:
    """Read a list of numbers."""
    return [int(number) for number in text.split(",") if number]


def main() -> None:
    """Print the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=numbers, default=[1000, 10_000, 100_000], help="how many, locally and by shards"
    )
    parser.add_argument("--ray", type=numbers, default=[1000, 10_000], help="how many, by Ray's actors")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["local", "shards", "ray"])
    parser.add_argument("--keep", type=Path, help="folder of the images, drawn where they are not there, and kept")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(*measured(options.keep, options.measure, options.images[0]))
        return
    table = Table(title="featurize with a stub network")
    for column in (
        "engine, workers",
        "images",
        "seconds",
        "seconds / 1,000 images",
        "peak RSS of a process, MB",
        "cache, MB",
    ):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="permafeat-scale-", dir=os.environ.get("TMPDIR")) as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows(options, folder):
            table.add_row(*row)
            print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
