"""Heads on caches larger than memory: peak resident memory of `cli fit-heads --memory-limit`, and whether the heads are the same.

    python -m bench.memory [--gigabytes 8] [--limit 2GB] [--heads ridge,logistic,mlp] [--folds 5] [--short] [--only same|large]

`same` fits a cache of 0.3 GB with and without a limit that it does not fit, `large` the large one within the limit. Both are
drawn (42 views x 3,072 columns in float16, 9 classes, images sorted by class) and removed again. `--short` tries two candidates and two
epochs instead of all: passes over the rows are fewer, and what is in memory is the same.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

HOUSE = Path(__file__).parent.parent
sys.path[:0] = [str(HOUSE), str(HOUSE / "tests")]

from cache_data import blocks  # noqa: E402 - the tests' own recipes

from features_cache.reader import FeatureCache  # noqa: E402
from features_cache.writer import write_cache  # noqa: E402
from heads.memory import parse_size  # noqa: E402

VIEWS, COLUMNS, CLASSES, HIDDEN = 42, 3072, 9, 64
SMALL_GB, SMALL_LIMIT = 0.3, "1500MB"
NETWORKS = {"mlp", "linear"}  # they see rows in another order within a limit, and so become other networks
FEW_CANDIDATES = """
[heads]
ridge = { alpha = [1000.0, 100.0] }
logistic = { C = [0.01, 0.1] }
mlp = { epochs = [1, 2] }
"""
_BLOCK_IMAGES = 64
Row = tuple[str, str, str]


def draw_cache(path: Path, n_images: int) -> None:
    """Write a cache whose ids begin with their class."""
    # In a process of its own: Linux counts the peak of the process that starts another as the other's.
    process = multiprocessing.get_context("spawn").Process(target=_draw, args=(path, n_images))
    process.start()
    process.join()
    if process.exitcode:
        msg = f"{path}: the process that draws the cache ended with {process.exitcode}"
        raise RuntimeError(msg)


def _draw(path: Path, n_images: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, CLASSES, n_images))
    mixing = rng.normal(size=(HIDDEN, COLUMNS)).astype(np.float32) / 8
    centres = 0.25 * rng.normal(size=(CLASSES, 1, HIDDEN)).astype(np.float32)
    noise = 0.5 * rng.normal(size=(4096, COLUMNS)).astype(np.float32)
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        features = np.memmap(file, np.float16, "w+", shape=(n_images, VIEWS, COLUMNS))
        for first in range(0, n_images, _BLOCK_IMAGES):
            here = labels[first : first + _BLOCK_IMAGES]
            hidden = centres[here] + rng.normal(size=(len(here), 1, HIDDEN)).astype(np.float32)
            hidden = hidden + 0.4 * rng.normal(size=(len(here), VIEWS, HIDDEN)).astype(np.float32)
            rows = hidden.reshape(-1, HIDDEN) @ mixing + noise[rng.integers(0, len(noise), len(here) * VIEWS)]
            features[first : first + len(here)] = np.square(np.maximum(rows, 0)).reshape(len(here), VIEWS, COLUMNS)
        ids = [f"{'abcdefghi'[label]}/{place:06d}.png" for place, label in enumerate(labels)]
        write_cache(path, ids=ids, features=features, blocks=blocks(512, 512, 1280, 768))


def fit(cache: Path, out: Path, options: argparse.Namespace, limit: str | None) -> tuple[float, float]:
    """Type `cli fit-heads`; return its peak of resident memory in MB, and seconds."""
    words = [HOUSE / "cli.py", "--quiet", "fit-heads", "--features", cache, "--out", out, "--heads", options.heads]
    words += ["--folds", options.folds]
    if options.short:
        config = out.with_suffix(".toml")
        config.write_text(FEW_CANDIDATES)
        words += ["--config", config]
    words += [] if limit is None else ["--memory-limit", limit]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        msg = f"cli fit-heads ended with {process.returncode}"
        raise RuntimeError(msg)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, time.perf_counter() - began


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _figure(run: Path, head: str) -> str:
    figure = _json(run / "metrics.json")["heads"][head]["balanced_accuracy"]
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def same(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Fit a small cache with and without a limit."""
    cache = folder / "small.h5"
    n_images = int(SMALL_GB * 1e9 / (2 * VIEWS * COLUMNS))
    draw_cache(cache, n_images)
    peaks = {
        name: fit(cache, folder / name, options, limit) for name, limit in (("free", None), ("limited", SMALL_LIMIT))
    }
    told = _json(folder / "limited" / "run.json")["memory"]
    yield (
        f"{n_images:,} images ({cache.stat().st_size / 1e6:.0f} MB), within {SMALL_LIMIT}",
        json.dumps(told),
        "streamed",
    )
    for name, (peak, seconds) in peaks.items():
        yield f"{name}: peak resident memory; seconds", f"{peak:,.0f} MB; {seconds:.0f} s", ""
    oof = {name: pd.read_csv(folder / name / "oof.csv", keep_default_na=False) for name in peaks}
    for head in options.heads.split(","):
        chosen = [_json(folder / name / "run.json")["chosen"][head]["settings"] for name in peaks]
        own = [table[table["head"] == head].iloc[:, 6:].to_numpy() for table in oof.values()]
        yield (
            f"{head}: out-of-fold probabilities, largest difference",
            f"{np.abs(own[0] - own[1]).max():.1e}",
            "other networks" if head in NETWORKS else "rounding",
        )
        if head not in NETWORKS:
            free, limited = (load_file(folder / name / "heads" / f"{head}.safetensors") for name in peaks)
            if "coef_" in free:
                off = np.linalg.norm(free["coef_"] - limited["coef_"]) / np.linalg.norm(free["coef_"])
                yield f"{head}: coefficients, relative difference", f"{off:.1e}", "rounding"
            is_same = all(chosen[0][key] == chosen[1][key] for key in ("alpha", "C", "k") if key in chosen[0])
            yield f"{head}: the same choice", "yes" if is_same else "NO", "yes"
        figures = ", ".join(_figure(folder / name, head) for name in peaks)
        yield f"{head}: balanced accuracy, free and limited", figures, "within noise"


def large(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Fit a cache that is larger than the limit."""
    cache = options.cache or folder / "large.h5"
    if not cache.exists():
        draw_cache(cache, int(options.gigabytes * 1e9 / (2 * VIEWS * COLUMNS)))
    with FeatureCache(cache) as there:
        shape = f"{there.n_images:,} images x {there.n_views} views x {there.n_columns:,} columns"
    yield shape, f"{cache.stat().st_size / 1e9:.2f} GB", ""
    peak, seconds = fit(cache, folder / "large", options, options.limit)
    share = peak * 1e6 / parse_size(options.limit)
    told = _json(folder / "large" / "run.json")
    yield f"{options.heads}, {options.folds} folds, within {options.limit}: seconds", f"{seconds:.0f}", ""
    yield "chapters, seconds", json.dumps(told["timings"]), ""
    yield "memory", json.dumps(told["memory"]), "streamed"
    yield "peak resident memory; share of the limit", f"{peak:,.0f} MB; {share:.2f}", "<= 1.25"
    for head in options.heads.split(","):
        yield f"{head}: balanced accuracy", _figure(folder / "large", head), ""


CHAPTERS = {"same": same, "large": large}


def main() -> None:
    """Print the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=8.0, help="of the large cache")
    parser.add_argument("--cache", type=Path, help="the large cache, drawn where it is not there, and kept")
    parser.add_argument("--limit", default="2GB", help="for the large cache")
    parser.add_argument("--heads", default="ridge,logistic,mlp")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="two candidates a head")
    parser.add_argument("--only", choices=CHAPTERS, help="one chapter")
    options = parser.parse_args()
    table = Table(title="heads within a memory limit")
    for column in ("what", "measured", "aim"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(prefix="permafeat-memory-", dir=os.environ.get("TMPDIR")) as name:
        for chapter, rows in CHAPTERS.items():
            if options.only in {None, chapter}:
                for row in rows(Path(name), options):
                    table.add_row(*row)
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
