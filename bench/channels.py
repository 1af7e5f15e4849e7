"""What channels cost: images a second for plain pictures, and for one file a channel in one, two and four blends.

Run as ``python -m bench.channels``; ``--against COMMIT`` also times plain pictures with the program as it was then, in turns with
today's, so that a busy machine is busy for both. Random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HOUSE = Path(__file__).parent.parent
CHANNELS = ("red", "green", "blue", "yellow")
FILES = ("--pattern", "{id}_{channel}.png", "--planes", ",".join(CHANNELS))
KINDS = {
    "plain RGB": ("plain",),
    "4 files, 1 blend": ("files", *FILES, "--channels", "red,green,blue"),
    "4 files, 2 blends": ("files", *FILES, "--channels", "red+green+blue,yellow+blue+red"),
    "4 files, each": ("files", *FILES, "--channels", "each"),
}


def draw(folder: Path, n_images: int, side_px: int) -> None:
    """Draw images once as RGB pictures and once as a file a channel, with grain that PNG cannot shrink away."""
    rng = np.random.default_rng(0)
    for kind in ("plain", "files"):
        (folder / kind).mkdir()
    for index in range(n_images):
        planes = rng.integers(0, 64, (side_px, side_px, 4), dtype=np.uint8)
        Image.fromarray(planes[..., :3]).save(folder / "plain" / f"{index:04d}.png")
        for place, channel in enumerate(CHANNELS):
            Image.fromarray(planes[..., place]).save(folder / "files" / f"{index:04d}_{channel}.png")


def featurize(house: Path, folder: Path, kind: tuple[str, ...], backbone: str, *, augment: int) -> tuple[float, float]:
    """Return images a second as the command itself tells them, and the processor's seconds of the whole command."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    images, *options = kind
    words = ["featurize", "--train-images", str(folder / images), "--out", str(out), "--augment", str(augment)]
    words += ["--backbone", backbone, "--weights", "random", "--device", "cpu", *options]
    before = os.times()
    command = [sys.executable, "-m", "cli", *words]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(house)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    after = os.times()
    told = re.search(r"\(([\d.,]+) images/s\)", done.stderr)
    rate = float(told[1].replace(",", "")) if told else float("nan")
    return rate, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Time each kind, and print a table of the best of several turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--augment", type=int, default=0)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--backbone", default="squeezenet1_1", help="a small network: what channels cost shows most")
    parser.add_argument("--against", help="a commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, options.images, options.side)
        git = shutil.which("git") or "git"
        houses = {kind: (HOUSE, words) for kind, words in KINDS.items()}
        if options.against:
            then = folder / "then"
            subprocess.run(
                [git, "worktree", "add", "--detach", str(then), options.against],
                cwd=HOUSE,
                check=True,
                capture_output=True,
            )
            houses = {f"plain RGB, {options.against}": (then, KINDS["plain RGB"])} | houses
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in houses}
        for _ in range(options.times):
            for kind, (house, words) in houses.items():
                found[kind].append(featurize(house, folder, words, options.backbone, augment=options.augment))
        if options.against:
            subprocess.run([git, "worktree", "remove", "--force", str(then)], cwd=HOUSE, check=True)
    print(
        f"{options.images} images of {options.side} px, {options.backbone}, {1 + options.augment} views, best of {options.times}"
    )
    print(f"{'':<28}{'images/s':>10}{'least processor s':>20}")
    for kind, turns in found.items():
        print(f"{kind:<28}{max(rate for rate, _ in turns):>10.1f}{min(cpu for _, cpu in turns):>20.2f}")


if __name__ == "__main__":
    main()
