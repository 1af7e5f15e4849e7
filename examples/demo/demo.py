"""The main job on drawn cells, from nothing to a scored submission: what `make demo` runs.

The challenge has the form of S0: nine cell lines, three grey channel files a sample, rare and common classes, other plates in
the test set. How many samples, and how large the networks see them, is measured: a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from draw import draw_challenge

from features_cache.errors import WeightsMissing
from featurize.backbones.build import build_backbone
from featurize.backbones.precision import fold_batch_norm, lowered
from featurize.backbones.weights import find_weights, parse_weights
from featurize.device import choose_device, choose_precision, micro_batch
from featurize.settings import DEFAULT_BACKBONES
from heads.metrics.one_label import bootstrap_intervals, headline

N_VIEWS = 7
SIZES_PX = (224, 160, 128, 96, 64)
BUDGET_S = 110.0
SMALLEST = (120, 60)
USUAL = (400, 200)
COMMANDS = (("cli", "featurize", "--augment", "6"), ("cli", "fit-heads"), ("cli", "submit"))


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How large the demo is: training and test samples, and the side of the networks' input in px."""

    n_train: int
    n_test: int
    size_px: int


def seconds_per_view(size_px: int) -> float:
    """Time one view through the four networks, random weights, on this machine."""
    device = choose_device("auto")
    networks = [
        lowered(
            fold_batch_norm(build_backbone(name, size_px, None)), getattr(torch, choose_precision("auto", device))
        ).to(device)
        for name in DEFAULT_BACKBONES
    ]
    pictures = torch.rand(micro_batch(device), 3, size_px, size_px, device=device)
    took = []
    for _ in range(3):
        began = time.monotonic()
        with torch.inference_mode():
            _ = [network(pictures).cpu() for network in networks]
        took.append(time.monotonic() - began)
    return min(took) / len(pictures)


def fitting_scale(view_s: float) -> Scale:
    """Choose the largest demo that the time allows; fewer samples only where the smallest input is still too slow.

    Parameters
    ----------
    view_s : float
        Seconds a view of the smallest side; cost grows with the area.
    """
    n_train, n_test = USUAL
    for size_px in SIZES_PX:
        cost_s = view_s * (size_px / SIZES_PX[-1]) ** 2 * (n_train + n_test) * N_VIEWS
        if cost_s <= BUDGET_S:
            return Scale(n_train, n_test, size_px)
    share = max(BUDGET_S / (view_s * sum(USUAL) * N_VIEWS), SMALLEST[0] / n_train)
    return Scale(math.ceil(n_train * share), math.ceil(n_test * share), SIZES_PX[-1])


def pretrained_weights_are_here() -> bool:
    """Find, or download, the four networks' ImageNet weights; say so in plain sight where neither works."""
    try:
        for name in DEFAULT_BACKBONES:
            find_weights(name, parse_weights(["imagenet"]))
    except WeightsMissing as error:
        stars = "*" * 100
        print(f"{stars}\nNO IMAGENET WEIGHTS: the demo goes on with --weights random. It shows that the program works, and not\n"
              f"how good it is; every output below is marked.\n({error})\n{stars}")  # fmt: skip
        return False
    return True


def prepare(folder: Path, scale: Scale | None) -> None:
    """Draw the challenge and write its permafeat.toml, unless an earlier demo did."""
    record = folder / "scale.json"
    found = Scale(**json.loads(record.read_text())) if record.is_file() else None
    if found and scale and found != scale:
        print(f"{folder}: holds a demo of another size ({found}); remove it, or name another folder")
        sys.exit(2)
    if found:
        print(f"{folder}: reusing the challenge that is there ({found.n_train} training, {found.n_test} test samples)")
        draw_challenge(folder, n_train=found.n_train, n_test=found.n_test)
        return
    if scale is None:
        view_s = seconds_per_view(SIZES_PX[-1])
        print(f"this machine: {1 / view_s:.1f} views/s of {SIZES_PX[-1]} px through the four networks")
        scale = fitting_scale(view_s)
    print(f"drawing {scale.n_train} training and {scale.n_test} test samples; the networks see {scale.size_px} px")
    draw_challenge(folder, n_train=scale.n_train, n_test=scale.n_test)
    lines = [
        "# Sized to this machine by examples/demo/demo.py.",
        "[featurize]",
        'pattern = "{id}_{channel}.png"',
        'channels = ["nucleus", "microtubules", "er"]',
        f"size = {scale.size_px}",
        *([] if pretrained_weights_are_here() else ['weights = "random"']),
        "",
        "[fit-heads]",
        'group-column = "plate"',
    ]
    (folder / "permafeat.toml").write_text("\n".join(lines) + "\n")
    record.write_text(json.dumps(dataclasses.asdict(scale)))


def score(folder: Path) -> list[str]:
    """Compare the submission with the solution that was kept aside."""
    submission = pd.read_csv(folder / "submission.csv", dtype=str).set_index("id")["label"]
    answers = pd.read_csv(folder / "solution.csv", dtype=str).set_index("id")
    solution, plates = answers["label"], np.unique(answers["plate"], return_inverse=True)[1]
    classes = sorted({*solution, *submission})
    true, called = (
        np.array([classes.index(label) for label in column[solution.index]]) for column in (solution, submission)
    )
    certain = np.eye(len(classes))[called]
    value = headline(true, certain)["balanced_accuracy"]
    low, high = bootstrap_intervals(true, [certain], plates)["balanced_accuracy"]
    run = (folder / "runs" / "latest").resolve()
    metrics = json.loads((run / "metrics.json").read_text())
    marked = "RANDOM WEIGHTS, networks that were never trained: " if metrics["random_weights"] else ""
    expected = metrics["heads"]["ensemble"]["balanced_accuracy"]
    pictures = ", ".join(path.name for path in sorted(run.glob("*.png")))
    return [
        f"{marked}score of submission.csv on {len(solution)} test samples of other plates:",
        f"  balanced accuracy {value:.3f} [95 % interval over plates, {low:.3f} to {high:.3f}] (chance {1 / solution.nunique():.3f})",
        f"  out-of-fold estimate {expected['value']:.3f} [{expected['low']:.3f} to {expected['high']:.3f}]",
        f"report: {run / 'metrics.json'}",
        f"pictures in {run}: {pictures}",
    ]


def main() -> int:
    """Draw, run the three commands bare, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the demo goes")
    parser.add_argument("--smallest", action="store_true", help="as small as makes sense")
    parser.add_argument("--train", type=int, help="training samples, up to S0's 9,632")
    parser.add_argument("--test", type=int, help="test samples, up to S0's 6,869")
    parser.add_argument("--size", type=int, default=SIZES_PX[-1], help="side of the networks' input, px")
    options = parser.parse_args()
    scale = Scale(*SMALLEST, SIZES_PX[-1]) if options.smallest else None
    if options.train:
        scale = Scale(options.train, options.test or options.train // 2, options.size)
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.folder, scale)
    for command in COMMANDS:
        print(f"\n$ {' '.join(command)}", flush=True)
        program = Path(sys.executable).parent / command[0]
        code = subprocess.run([str(program), *command[1:]], cwd=options.folder, check=False).returncode
        if code:
            return code
    print("\n" + "\n".join(score(options.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
