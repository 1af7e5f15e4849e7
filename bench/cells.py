"""How many cells `cli cells` finds on drawn images whose masks are known, and how many images a second it cuts.

    python -m bench.cells                       # the rates, on seeds that no rule was chosen by
    python -m bench.cells --speed               # images/s of `cli cells`, and of `cli featurize` on the crops

Cells are drawn by ``tests/cells_data.py``. Found is a cell that one found cell covers with an intersection over union of 0.7 or more.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from cells_data import draw, empty, n_found

from featurize.cells.segment import find_cells, find_nuclei

HOUSE = Path(__file__).parent.parent
NUCLEI_PX = (10, 20, 40)
CHANNELS = ("nucleus", "microtubules", "er", "protein")


def rates(first_seed: int, n_seeds: int) -> None:
    """Print, of each kind of picture, the share of cells found, the false ones, and the time."""
    print("| cells | bodies | nucleus, px | drawn | found | false | s a picture |")
    print("|---|---|---|---|---|---|---|")
    for touching in (False, True):
        for bodies in (True, False):
            for nucleus_px in NUCLEI_PX:
                n_drawn = n_right = n_all = 0
                spent = 0.0
                for seed in range(first_seed, first_seed + n_seeds):
                    n_cells = 5 + seed * 7 % 36
                    drawn = draw(seed, n_cells=n_cells, nucleus_px=nucleus_px, touching=touching, bodies=bodies)
                    nuclei, *others = (np.ascontiguousarray(plane) for plane in np.moveaxis(drawn.planes, 2, 0))
                    began = time.perf_counter()
                    found = find_cells(find_nuclei(nuclei), others)
                    spent += time.perf_counter() - began
                    n_drawn += int(drawn.cells.max())
                    n_all += int(found.max())
                    n_right += n_found(found, drawn.cells)
                false = (n_all - n_right) / n_all
                name = "touching" if touching else "apart"
                print(
                    f"| {name} | {'yes' if bodies else 'no'} | {nucleus_px} | {n_drawn} | {n_right / n_drawn:.1%} | "
                    f"{false:.1%} | {spent / n_seeds:.2f} |"
                )
    n_false = sum(int(find_nuclei(empty(seed)[..., 0]).max() > 0) for seed in range(first_seed, first_seed + n_seeds))
    print(f"\n{n_false} of {n_seeds} pictures of nothing are said to hold cells")


def speed(side_px: int, n_images: int) -> None:
    """Print how fast four-channel images of a size are cut, and how fast networks take the crops."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_cells = 20 if side_px < 1000 else 40
        for number in range(n_images):
            # Twice a nucleus is a cell; cells cover about a quarter.
            nucleus_px = side_px / np.sqrt(n_cells * np.pi / 0.22) * 0.8
            drawn = draw(number, n_cells=n_cells, nucleus_px=nucleus_px, side_px=side_px)
            planes = [*np.moveaxis(drawn.planes, 2, 0), drawn.planes[..., 1]]
            for channel, plane in zip(CHANNELS, planes, strict=True):
                path = folder / "data" / "train" / f"{number:03d}_{channel}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((plane * 255).astype(np.uint8)).save(path)
        cells = ["cells", "--pattern", "{id}_{channel}.png", "--cell", "microtubules,er"]
        for n_workers in (1, 2):
            spent, busy = _typed(folder, *cells, "--out", f"cells{n_workers}", "--workers", str(n_workers))
            print(
                f"{side_px} px, {n_workers} workers: {n_images / spent:.2f} images/s; {busy / n_images:.2f} s of processor an image"
            )
        with (folder / "cells2" / "train.csv").open(newline="") as file:
            n_crops = len(list(csv.DictReader(file)))
        network = ["--backbone", "resnet18", "--weights", "random", "--channels", "nucleus,er,protein"]
        spent, busy = _typed(folder, "featurize", "--cells", "cells2", *network)
        print(
            f"{side_px} px, featurize --cells: {n_crops / spent:.1f} crops/s; {busy / n_crops:.3f} s of processor a crop"
        )


def _typed(folder: Path, *words: str) -> tuple[float, float]:
    """Type a command; return the seconds that it took, and those of all processors. Both hold the start of the program."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    print("\n".join(line for line in done.stderr.splitlines() if " images" in line))
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, busy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=90_000, help="the first one")
    parser.add_argument("--seeds", type=int, default=30, help="pictures of each kind")
    parser.add_argument("--speed", action="store_true", help="images/s instead of rates")
    given = parser.parse_args()
    if given.speed:
        speed(512, 20)
        speed(2048, 4)
    else:
        rates(given.seed, given.seeds)
