"""What augmented copies cost: milliseconds a view, for each term alone and all together, beside the default four networks' side.

Run as ``python -m bench.views``; ``--threads 1`` gives figures that a busy machine blurs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from featurize.views.augmentation import FLIPS_AND_TURNS, Augmentation, augmentation_of

TERMS = {
    "flip": "both",
    "rotate": 180,
    "zoom": [0.8, 1.25],
    "shift": 0.1,
    "skew": 10,
    "brightness": 0.2,
    "contrast": 0.2,
    "blur": [0.0, 1.5],
    "noise": [0.0, 0.05],
}


def fastest_ms(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the least time and the least processor time of one call, in ms; the first is not counted."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter(), time.process_time()
        work()
        taken.append((1e3 * (time.perf_counter() - began[0]), 1e3 * (time.process_time() - began[1])))
    return min(wall for wall, _ in taken), min(cpu for _, cpu in taken)


def main() -> None:
    """Time views, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--views", type=int, default=32, help="in one batch")
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = torch.rand(options.views, options.planes, options.size, options.size)
    ids = [f"image-{number}" for number in range(options.views)]
    rows: dict[str, Augmentation] = {"default (flips and turns)": FLIPS_AND_TURNS}
    rows |= {name: augmentation_of({name: value}) for name, value in TERMS.items()}
    rows |= {"flips and quarter turns": augmentation_of({"flip": "both", "rotate": "quarter"})}
    rows |= {"all together": augmentation_of(TERMS)}
    print(
        f"ms a view, {options.views} views of {options.planes} x {options.size} x {options.size}, {options.threads} threads"
    )
    for name, terms in rows.items():
        wall, cpu = fastest_ms(lambda terms=terms: terms.views(images, 0, ids, [1] * len(ids)), options.times)  # type: ignore[misc]
        print(f"{name:<26} {wall / options.views:7.2f} wall {cpu / options.views:7.2f} processor")


if __name__ == "__main__":
    main()
