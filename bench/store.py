"""The store's trials and costs, in one table.

    python -m bench.store [--quick]

Trials are those of the tests (tests/store_trials.py and its neighbours), all of them; costs are measured here, as ratios in one
process, since machines are noisy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

HOUSE = Path(__file__).parent.parent
sys.path[:0] = [str(HOUSE), str(HOUSE / "tests")]

import hostile  # noqa: E402 - the tests' own trials
import store_trials  # noqa: E402
from cache_data import QUICK, blocks, picture  # noqa: E402
from damage_data import damage_caches, damage_parts  # noqa: E402
from shards_data import concurrent_reads  # noqa: E402

from features_cache.errors import Refused  # noqa: E402
from features_cache.extend import Held  # noqa: E402
from features_cache.layout import Rows  # noqa: E402
from features_cache.ledger import Ledger  # noqa: E402
from features_cache.parts import Parts  # noqa: E402
from features_cache.plan import Execution, Plan  # noqa: E402
from features_cache.reader import FeatureCache  # noqa: E402
from features_cache.settle import settle_plan  # noqa: E402
from features_cache.sources import SourceFile, Sources  # noqa: E402
from features_cache.texts import Texts  # noqa: E402
from features_cache.writer import publish_cache, write_cache  # noqa: E402

Row = tuple[str, str, str]
VIEWS, COLUMNS, UNIT = 7, 3072, 32


def trials(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Run what must never fail."""
    points = [
        point
        for fault in store_trials.FAULTS
        for extend in (False, True)
        if not quick or not extend
        for point in store_trials.fault_points(folder, fault, extend=extend)
    ]
    yield (
        "faults at the N-th operation survived, reruns byte-identical",
        f"{sum(points)} of {len(points)}",
        ">= 500, all",
    )
    n_cuts, n_well = store_trials.power_cuts(folder, 40 if quick else 300)
    yield "power cuts without a loss (model)", f"{n_well} of {n_cuts}", ">= 200, all"
    n_kills, n_lost, is_same = store_trials.sigkill_chain(folder / "kills", 20 if quick else 120, QUICK)
    yield "SIGKILLs of the real command; committed parts lost", f"{n_kills}; {n_lost}", ">= 50; 0"
    yield "its cache is that of an undisturbed run", "yes" if is_same else "NO", "yes"
    n_trials = 100 if quick else 1000
    (folder / "damage").mkdir()
    found = damage_caches(folder / "damage", n_trials // 2)
    found += damage_parts(folder / "damage" / "parts", n_trials // 2)
    yield "damage found", f"{found} of {n_trials}", "1,000 of 1,000"
    refused = sum(
        _is_refused(folder / f"hostile-{number}.h5", make) for number, make in enumerate(hostile.KINDS.values())
    )
    yield "kinds of hostile files refused", f"{refused} of {len(hostile.KINDS)}", ">= 25, all"
    (folder / "shards").mkdir()
    n_reads, n_torn = concurrent_reads(
        folder / "shards", n_generations=4 if quick else 24, least=500 if quick else 5000
    )
    yield "reads beside four writers; torn", f"{n_reads:,}; {n_torn}", ">= 10,000; 0"


def _is_refused(path: Path, make: Callable[[Path], None]) -> bool:
    make(path)
    try:
        FeatureCache(path).close()
    except Refused:
        return True
    return False


def reading(folder: Path) -> Iterator[Row]:
    """Load a cache into float32, beside numpy.fromfile and a conversion of the same bytes."""
    features = np.random.default_rng(0).normal(size=(3000, VIEWS, COLUMNS)).astype(np.float16)
    path = folder / "read.h5"
    write_cache(path, ids=[f"{row:06d}" for row in range(len(features))], features=features, blocks=blocks(1024, 2048))
    with FeatureCache(path) as cache:
        at, count = cache.seal.features_at, features.size

        def plain() -> None:
            np.fromfile(path, np.float16, count=count, offset=at).astype(np.float32)

        def ours() -> None:
            cache.load()

        def piecewise() -> None:
            for _ in cache.chunks():
                pass

        base, load, pieces = (_best(work) for work in (plain, ours, piecewise))
        view_0 = _best(lambda: cache.load(views=slice(0, 1)))
    rate = features.nbytes / 1e9
    yield (
        "sequential load to float32, share of fromfile + astype",
        f"{base / load:.2f} ({rate / load:.2f} GB/s)",
        ">= 0.8",
    )
    yield "the same, piece by piece", f"{base / pieces:.2f}", ""
    yield "view 0 alone, share of the time of all 7 views", f"{view_0 / load:.2f}", ""
    began = time.perf_counter()
    FeatureCache(path).close()
    yield "opening it", f"{1000 * (time.perf_counter() - began):.1f} ms", ""


def _best(work: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def writing(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Commit and publish with a network that costs nothing: seconds an image, and the peak of memory by number of images."""
    peaks = {}
    for n_images in (1000, 10_000 if quick else 100_000):
        # Few columns, so that what grows would be seen beside what does not.
        peaks[n_images], seconds = _in_a_process(folder / f"rows-{n_images}", n_images, 64)
        yield f"memory while writing {n_images:,} images (64 columns), MB", f"{peaks[n_images]:.0f}", "flat"
    _, seconds = _in_a_process(folder / "demo-size", 400, COLUMNS)
    yield "commit, publish and check 400 images x 7 views x 3,072 columns", f"{seconds:.2f} s", ""
    share = _share_of_featurize(folder / "real", 60 if quick else 240)
    yield "store's share of featurize (resnet18 at 224 px, 7 views: a quick network)", f"{100 * share:.1f} %", "<= 3 %"


def _share_of_featurize(folder: Path, n_images: int) -> float:
    """Featurize drawn pictures, and time what the store does on the way."""
    from featurize import finish, run
    from featurize.settings import FeaturizeSettings

    images = folder / "images"
    images.mkdir(parents=True)
    os.chdir(folder)  # where there is no data/test
    for index in range(n_images):
        picture(index, 64).save(images / f"{index:04d}.png")
    spent = 0.0

    def timed(work: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*given: object, **named: object) -> object:
            nonlocal spent
            began = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                spent += time.perf_counter() - began

        return wrapped

    whole = [(Parts, "commit", Parts.commit), (finish, "publish_cache", vars(finish)["publish_cache"])]
    for place, name, work in whole:
        setattr(place, name, timed(work))
    try:
        summary = run.featurize(
            FeaturizeSettings(
                train_images=images,
                out=folder / "features",
                backbones=("resnet18",),
                weights=("random",),
                augment=VIEWS - 1,
            )
        )
    finally:
        for place, name, work in whole:
            setattr(place, name, work)
    return spent / summary.splits[0].wall_s


def _in_a_process(folder: Path, n_images: int, n_columns: int) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_write, args=(folder, n_images, n_columns, answer))
    process.start()
    result: tuple[float, float] = answer.get()
    process.join()
    return result


def _write(folder: Path, n_images: int, n_columns: int, answer: multiprocessing.Queue[tuple[float, float]]) -> None:
    ids = Texts(f"image-{row:08d}" for row in range(n_images))
    plan = Plan(
        ids=ids,
        sources=Sources([SourceFile(path=f"{name}.png", n_bytes=1, sign=1)] for name in ids),
        n_views=VIEWS,
        blocks=blocks(n_columns),
        unit_images=UNIT,
        execution=Execution(device="cpu", micro_batch=16, n_threads=2),
    )
    place = folder / "c.parts"
    plan = settle_plan(place, plan)
    parts, ledger, held = Parts(place, plan), Ledger(plan), Held(plan)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(UNIT, VIEWS, n_columns)).astype(np.float16)
    began = time.perf_counter()
    for unit in range(plan.n_units):
        n_rows = len(plan.rows_of(unit))
        rows = Rows(
            features=values[:n_rows],
            status=np.zeros(n_rows, np.uint8),
            content_hash=np.zeros((n_rows, 16), np.uint8),
            reasons=("",) * n_rows,
        )
        parts.commit(unit, rows)
        ledger.enter(unit, rows)
    publish_cache(folder / "c.h5", parts, ledger, held)
    parts.remove()
    seconds = time.perf_counter() - began
    peak_mb = float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    answer.put((peak_mb, seconds))


def main() -> None:
    """Print the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a share of it, in a minute")
    parser.add_argument("--only", choices=("trials", "reading", "writing"), help="one chapter")
    options = parser.parse_args()
    table = Table(title="the store")
    for column in ("what", "measured", "aim"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(prefix="permafeat-store-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        chapters: dict[str, Callable[[], Iterator[Row]]] = {
            "trials": lambda: trials(folder, quick=options.quick),
            "reading": lambda: reading(folder),
            "writing": lambda: writing(folder, quick=options.quick),
        }
        for chapter, rows in chapters.items():
            if options.only in {None, chapter}:
                for row in rows():
                    table.add_row(*row)
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
