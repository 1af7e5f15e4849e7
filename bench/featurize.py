"""Featurize beside what it could be: the plain script, the pure forward pass, and the machine's own limit, in the same run.

Run as ``python -m bench.featurize``; ``--precision float32`` with bfloat16 switched off, ``--device cuda`` on a card. Each measure is a
process of its own, in turns, and the best turn counts. Weights are seeded and saved first: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOUSE = Path(__file__).parent.parent
sys.path.insert(0, str(HOUSE))  # before this folder, which holds a featurize.py too
NETWORKS = ("vgg19", "resnet18", "efficientnet_b0", "vit_b_16")
PLAIN_BATCH = 32


def draw(folder: Path, n_images: int, side_px: int) -> None:
    """Draw noisy RGB pictures, which PNG cannot shrink away."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for index in range(n_images):
        pixels = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index:05d}.png")


def save_weights(folder: Path, networks: list[str]) -> None:
    """Save seeded weights, for the plain script and for us."""
    import torch
    from torchvision import models

    (folder / "weights").mkdir()
    for name in networks:
        torch.manual_seed(0)
        network = models.get_model(name, weights=None)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            network(torch.rand(8, 3, 224, 224))  # without statistics of its own, an efficientnet's features vanish
        torch.save(network.state_dict(), folder / "weights" / f"{name}.pth")


def limit(options: argparse.Namespace) -> dict[str, float]:
    """Measure products of 4,096-square matrices, in TFLOP/s; in float32 by whichever of BLAS and oneDNN is quicker."""
    import torch

    from heads.dense import product

    found = {}
    for kind in ("float32", "bfloat16"):
        a, b = (torch.randn(4096, 4096, device=options.device).to(getattr(torch, kind)) for _ in range(2))
        took = []
        for attempt in range(8):
            by_onednn = kind == "float32" and options.device == "cpu" and attempt % 2
            multiply = product if by_onednn else torch.matmul
            _wait(options.device)
            began = time.perf_counter()
            multiply(a, b)
            _wait(options.device)
            took.append(time.perf_counter() - began)
        found[kind] = 2 * 4096**3 / min(took) / 1e12
    return found


def flops(options: argparse.Namespace) -> dict[str, float]:
    """Count what one view costs in each network, in GFLOP (a multiplication and an addition are two)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision import models

    torch.backends.mha.set_fastpath_enabled(False)  # which the counter does not know
    found = {}
    for name in options.networks:
        network = models.get_model(name, weights=None).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 224, 224))
        found[name] = counter.get_total_flops() / 1e9
    return found


def plain(options: argparse.Namespace) -> dict[str, float]:
    """Do what a script does: for each network and each view a DataLoader and an eager float32 forward, and arrays saved."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import models, transforms

    class Pictures(Dataset):  # type: ignore[type-arg]
        def __init__(self, *, augmented: bool) -> None:
            self.paths = sorted((options.folder / "images").iterdir())[: options.plain_images]
            flips = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), transforms.RandomRotation(180)]
            to_tensor = [transforms.Resize((224, 224)), transforms.ToTensor()]
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            steps = [*(flips if augmented else []), *to_tensor, transforms.Normalize(mean, std)]
            self.transform = transforms.Compose(steps)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - a tensor
            return self.transform(Image.open(self.paths[index]).convert("RGB"))

    began, n_views = time.perf_counter(), 0
    for name in options.networks:
        network = models.get_model(name, weights=None)
        network.load_state_dict(torch.load(options.folder / "weights" / f"{name}.pth", weights_only=True))
        network.eval().to(options.device)
        for view in range(1 + options.augment):
            loader = DataLoader(Pictures(augmented=view > 0), batch_size=PLAIN_BATCH, num_workers=0)
            with torch.no_grad():
                vectors = [network(batch.to(options.device)).cpu().numpy() for batch in loader]
            np.save(options.folder / f"{name}-{view}.npy", np.concatenate(vectors))
            n_views += len(loader.dataset)  # type: ignore[arg-type]
    return {"views_s": n_views / len(options.networks) / (time.perf_counter() - began)}


def forward(options: argparse.Namespace) -> dict[str, float]:
    """Run the engine on the same tensors again and again: networks alone."""
    import torch

    from features_cache.allocator import keep_freed_memory
    from featurize import work
    from featurize.engine import Engine
    from featurize.networks import build_networks
    from featurize.settings import FeaturizeSettings
    from featurize.views.augmentation import FLIPS_AND_TURNS

    settings = FeaturizeSettings.from_options(**_asked(options))
    planned = work.plan_work(settings)
    plan = planned.plans["train"]
    engine = Engine(build_networks(planned.networks), plan, FLIPS_AND_TURNS)
    images = torch.rand(engine.micro_batch, 3, 224, 224).to(options.device)
    names = [block.name for block in plan.blocks]
    keep_freed_memory()  # as the command does
    took: list[float] = []
    until = time.perf_counter() + options.seconds
    while len(took) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        engine.forward(images, names)
        _wait(options.device)
        took.append(time.perf_counter() - began)
    # Half of the passes: a busy machine slows some of them, and the first are slow on any.
    steady = sorted(took)[: max(1, len(took) // 2)]
    return {"views_s": len(images) * len(steady) / sum(steady), "micro_batch": engine.micro_batch}


def ours(options: argparse.Namespace) -> dict[str, float]:
    """Type the command: from files to a published cache; then for one view, which is the start and one batch."""
    start_s, _ = _command(options, "--limit", "1", "--augment", "0")
    wall_s, split = _command(options)
    n_views = split["n_computed"] * split["n_views"]
    # Two wall times are subtracted: where the start is most of both, their noise is all that is left.
    steady = {"steady_views_s": (n_views - 1) / (wall_s - start_s)} if wall_s > 2 * start_s else {}
    return {
        "views_s": n_views / wall_s,
        **steady,
        "start_s": start_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e6,
    }


def _command(options: argparse.Namespace, *more: str) -> tuple[float, dict[str, Any]]:
    """Type the command, of which the last word counts; return its seconds, and what it says of the training images."""
    shutil.rmtree(options.folder / "features", ignore_errors=True)
    words = [sys.executable, "-m", "cli", "--quiet", "featurize", "--json"]
    words += [f"--{name}={value}" for name, value in _typed(options).items()]
    began = time.perf_counter()
    done = subprocess.run(
        [*words, *more], cwd=options.folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began, json.loads(done.stdout)["splits"][0]


def _typed(options: argparse.Namespace) -> dict[str, str]:
    return {
        "train-images": str(options.folder / "images"),
        "out": str(options.folder / "features"),
        "backbone": ",".join(options.networks),
        "weights": str(options.folder / "weights"),
        "augment": str(options.augment),
        "device": options.device,
        "precision": options.precision,
        "runtime": options.runtime,
    }


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "train_images": options.folder / "images",
        "out": options.folder / "none",
        "backbones": tuple(options.networks),
        "weights": (str(options.folder / "weights"),),
        "augment": options.augment,
        "device": options.device,
        "precision": options.precision,
        "runtime": options.runtime,
    }


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(HOUSE)}


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "limit": limit,
    "flops": flops,
    "plain": plain,
    "forward": forward,
    "ours": ours,
}


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Take one measure in a process of its own."""
    words = [sys.executable, __file__, "--measure", name, "--folder", str(options.folder)]
    for flag in ("device", "precision", "runtime", "augment", "plain-images", "seconds"):
        words += [f"--{flag}", str(getattr(options, flag.replace("-", "_")))]
    words += ["--networks", *options.networks]
    done = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(options: argparse.Namespace) -> None:
    """Take all measures in turns, and print them side by side."""
    with tempfile.TemporaryDirectory() as place:
        options.folder = Path(place)
        draw(options.folder, options.images, options.side)
        save_weights(options.folder, options.networks)
        cost = sum(measure("flops", options).values())
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in ("limit", "plain", "forward", "ours")}
        for turn in range(options.times):
            for name, found in turns.items():
                if name != "plain" or turn < options.plain_times:
                    found.append(measure(name, options))
    best = {name: max(found, key=lambda each: each.get("views_s", 0)) for name, found in turns.items() if found}
    if "steady_views_s" in best["ours"]:
        best["steady"] = {"views_s": best["ours"]["steady_views_s"]}
    top = {kind: max(each[kind] for each in turns["limit"]) for kind in turns["limit"][0]}
    print(
        f"{options.images} images of {options.side} px x {1 + options.augment} views; {options.device}, {options.precision}, {options.runtime}"
    )
    print(f"{', '.join(options.networks)}: {cost:.1f} GFLOP a view")
    print(f"products of matrices: float32 {top['float32']:.2f}, bfloat16 {top['bfloat16']:.2f} TFLOP/s")
    print(f"{'':<34}{'views/s':>9}{'of plain':>10}{'of forward':>12}{'of float32 limit':>18}")
    for name, told in (
        ("plain", "plain script, float32"),
        ("forward", "pure forward of our engine"),
        ("ours", "ours, the whole command"),
        ("steady", "ours, once it has begun"),
    ):
        if name in best:
            rate = best[name]["views_s"]
            beside_plain = f"{rate / best['plain']['views_s']:.2f}" if "plain" in best else "-"
            share = rate * cost / 1e3 / top["float32"]
            print(f"{told:<34}{rate:>9.2f}{beside_plain:>10}{rate / best['forward']['views_s']:>12.3f}{share:>18.2f}")
    if "steady" not in best:
        print("ours, once it has begun: too few images to tell it from the start; more --images")
    print(f"the command for one view {best['ours']['start_s']:.1f} s; peak {best['ours']['peak_mb']:,.0f} MB")


def main() -> None:
    """Print the table, or take one measure for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--augment", type=int, default=6)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--plain-times", type=int, default=1, help="the slowest of all")
    parser.add_argument("--plain-images", type=int, default=96, help="at most: its rate is the same for more")
    parser.add_argument("--seconds", type=float, default=20, help="of pure forward passes")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
    else:
        table(options)


if __name__ == "__main__":
    main()
