"""What cells add to their images where the truth of each cell is known: fields composed of real nuclei, labelled as a whole.

    PERMAFEAT_DATA=... python -m bench.fusion build/fusion [--one-label] [--seed 0] [--repeats 3]

Nuclei of MitoCheck (examples/mitocheck) are laid out three by three, none twice; a field is labelled by the classes of its nuclei, or
by its commonest one. Nuclei of some wells make training fields, of others test fields. Heads see labels of fields alone; how well
fused confidences rank cells is measured against the labels of nuclei, which no head has seen.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from features_cache.reader import FeatureCache
from heads.fitted_run import FittedRun
from heads.fused_run import cell_probabilities, find_cells
from heads.fusion import WEIGHTS, fused
from heads.run_folder import read_checked

SIDE_PX, SLOTS = 64, 3
TEST_SHARE = 0.35
COLUMNS = ("id", "parent", "x", "y", "width", "height", "image_width", "image_height", "touches_border", "mask")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def draw_field(nuclei: dict[str, list[str]], rng: np.random.Generator, *, many: bool) -> tuple[list[str], list[str]]:
    """Take the nuclei of one field: of one to three classes, or half of one class and half of any."""
    names = sorted(name for name, left in nuclei.items() if left)
    chances = np.sqrt([len(nuclei[name]) for name in names])
    chances /= chances.sum()
    n_chosen = min(int(rng.integers(1, 4)), len(names)) if many else 1
    chosen = rng.choice(len(names), n_chosen, replace=False, p=chances)
    drawn: list[str] = []
    for place in range(int(rng.integers(3, SLOTS**2 + 1))):
        own = names[chosen[place % n_chosen]]
        name = own if many or rng.random() < 0.5 else names[rng.choice(len(names), p=chances)]
        drawn += [name] if drawn.count(name) < len(nuclei[name]) else []
    labels = sorted(set(drawn)) if many else [names[chosen[0]]]
    return labels, drawn


def draw_split(data: Path, folder: Path, split: str, rows: list[dict[str, str]], seed: int, *, many: bool) -> None:
    """Write the fields of a split, their cells, tables and labels, and the truth of each cell."""
    rng = np.random.default_rng(seed)
    nuclei: dict[str, list[str]] = {}
    for place in rng.permutation(len(rows)).tolist():
        nuclei.setdefault(rows[place]["label"], []).append(rows[place]["id"])
    (folder / "data" / split).mkdir(parents=True)
    labels, cells, images, truth = (list[tuple[object, ...]]() for _ in range(4))
    side_px = SIDE_PX * SLOTS
    while sum(map(bool, nuclei.values())) > 2:
        wanted, drawn = draw_field(nuclei, rng, many=many)
        if not drawn:
            continue
        field = f"{split}{len(images):04d}"
        (folder / "cells" / split / field).mkdir(parents=True)
        canvas = np.zeros((side_px, side_px), np.uint8)
        for number, (name, slot) in enumerate(zip(drawn, rng.permutation(SLOTS**2).tolist(), strict=False)):
            nucleus = np.asarray(Image.open(data / "train" / f"{nuclei[name].pop()}.png"))
            y, x = (SIDE_PX * part for part in divmod(slot, SLOTS))
            canvas[y : y + SIDE_PX, x : x + SIDE_PX] = nucleus
            cell = f"{field}/{number:03d}"
            Image.fromarray(nucleus).save(folder / "cells" / split / f"{cell}.png")
            cells.append((cell, field, x, y, SIDE_PX, SIDE_PX, side_px, side_px, 0, "none"))
            truth.append((cell, name))
        Image.fromarray(canvas).save(folder / "data" / split / f"{field}.png")
        labels.append((field, "|".join(wanted)))
        images.append((field, side_px, side_px, len(drawn), ""))
    write_csv(folder / "cells" / f"{split}.csv", COLUMNS, cells)
    write_csv(folder / "cells" / f"{split}_images.csv", ("id", "width", "height", "n_cells", "reason"), images)
    write_csv(folder / "data" / f"{split}.csv", ("id", "label"), labels)
    write_csv(folder / f"truth_{split}.csv", ("id", "label"), truth)


def draw_project(data: Path, folder: Path, seed: int, *, many: bool) -> None:
    """Divide nuclei by well, and draw fields of both parts."""
    with (data / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wells = sorted({row["well"] for row in rows})
    np.random.default_rng(seed).shuffle(wells)
    tested = set(wells[: int(TEST_SHARE * len(wells))])
    for split in ("train", "test"):
        own = [row for row in rows if (row["well"] in tested) == (split == "test")]
        draw_split(data, folder, split, own, seed, many=many)


def run_cli(folder: Path, *words: str) -> None:
    """Type a command in a project folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-m", "cli", "--quiet", *words], cwd=folder, env=environment, check=True)


def mean_average_precision(labels: Sequence[str], classes: Sequence[str], said: NDArray[np.float64]) -> float:
    """Average over classes that occur, of how well their probabilities rank cells."""
    found = np.array(labels)
    ranked = [
        average_precision_score(found == name, said[:, place]) for place, name in enumerate(classes) if name in found
    ]
    return float(np.mean(ranked))


def tell(folder: Path, *, many: bool) -> None:
    """Print, for each weight, the estimate of the run and what the cells of test fields really are ranked like."""
    run = FittedRun.load(folder / "runs" / "latest")
    metrics = read_checked(run.folder, run.run, "metrics.json")
    figure = "macro_f1" if many else "balanced_accuracy"
    with (folder / "truth_test.csv").open(newline="") as file:
        truth = {row["id"]: row["label"] for row in csv.DictReader(file)}
    with FeatureCache(folder / "features/test.h5") as images, FeatureCache(folder / "features/test_cells.h5") as cache:
        *_, said = run.predict_rows(images, np.arange(images.n_images)).values()
        cells = find_cells(cache, images.ids, [run])
        own, of_image = cell_probabilities(run, cells), said[cells.parents]
        labels = [truth[cell] for cell in cells.ids]
    print(
        f"{folder}: {metrics['n_images']} fields, {metrics['cells']['n_cells']} cells, {metrics['cells']['pool']} of cells by default"
    )
    print(f"weight | {figure}, mean | maximum | calibrated log-loss, mean | maximum | mAP of test cells")
    for row in metrics["cells"]["table"]:
        weight = row["weight"]
        pools = [row[pool][key] for key in (figure, "calibrated_log_loss") for pool in ("mean", "maximum")]
        truly = mean_average_precision(labels, run.run["classes"], fused(of_image, own, weight))
        mark = " chosen" if weight == metrics["cells"]["weight"] else ""
        print(" | ".join([f"{weight:.1f}", *(f"{value:.3f}" for value in pools), f"{truly:.3f}{mark}"]))
    weights = ", ".join(f"{weight:g}" for weight in metrics["cells"]["weights_in_folds"])
    print(f"in the folds: {weights} of {', '.join(f'{weight:g}' for weight in WEIGHTS)}\n", flush=True)


def main() -> None:
    """Draw, featurize, fit and tell, for some seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one-label", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    data = Path(os.environ["PERMAFEAT_DATA"]).absolute()
    many = not options.one_label
    for seed in range(options.seed, options.seed + options.repeats):
        folder = options.folder / f"{'many' if many else 'one'}-{seed}"
        if not folder.exists():
            draw_project(data / "mitocheck", folder, seed, many=many)
        weights = ("--backbone", "mobilenet_v2", "--weights", str(data.parent / "weights"))
        run_cli(folder, "featurize", "--sample", "data/test.csv", *weights)
        run_cli(folder, "featurize", "--cells", "cells", *weights)
        words = ("--separator", "|") if many else ()
        run_cli(folder, "fit-heads", "--heads", "ridge,logistic", "--cells", "features/train_cells.h5", *words)
        tell(folder, many=many)


if __name__ == "__main__":
    main()
