"""How well near-duplicates are found, and how far test images are from training images, on a real cache.

    python -m bench.near_duplicates --features features/train.h5 --test features/test.h5 --labels train.csv --group-column well

Views stand in for copies: the even views of each image are one image, the odd ones another, so that every image has one copy.
Copies made of augmented views are a little less alike than copies with all views, and so are these.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from features_cache.reader import FeatureCache
from heads.arrays import Float32, Indices
from heads.leaks.alike_pairs import AlikePairs
from heads.leaks.near_duplicates import NearDuplicates, find_near_duplicates
from heads.leaks.shift import train_test_shift


def tell(name: str, found: NearDuplicates, seconds: float) -> None:
    """Print what was found."""
    share = found.threshold.found_share
    promised = "" if share is None else f", {share:.3f} of copies promised"
    print(f"{name}: {seconds:.1f} s; threshold {found.threshold.value:.3f}{promised}; within {found.threshold.within}")
    print(
        f"  {len(found.train)} pairs, {found.n_differing} of different labels; {len(found.test)} pairs with test images"
    )


def timed(X: Float32, labels: Indices, others: Float32 | None = None) -> tuple[NearDuplicates, float]:
    """Find near-duplicates, and how long it takes."""
    began = time.perf_counter()
    found = find_near_duplicates(X, labels, others)
    return found, time.perf_counter() - began


def planted(pairs: AlikePairs, n_images: int) -> int:
    """Count the pairs of an image with its copy."""
    return int((pairs.places[:, 1] == pairs.places[:, 0] + n_images).sum())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="the cache of the labelled images")
    parser.add_argument("--test", type=Path, required=True, help="the cache of the test images")
    parser.add_argument("--labels", type=Path, required=True, help="CSV with columns id and label")
    parser.add_argument("--group-column", required=True, help="column of the CSV")
    options = parser.parse_args()
    with FeatureCache(options.features) as train, FeatureCache(options.test) as test:
        X, others = train.load(), test.load()
        table = pd.read_csv(options.labels, dtype=str).set_index("id").loc[list(train.ids)]
    labels = pd.factorize(table["label"])[0].astype(np.int64)
    groups = pd.factorize(table[options.group_column])[0].astype(np.int64)
    n_images, n_views = X.shape[:2]

    found, seconds = timed(X, labels, others)
    tell("as it is", found, seconds)
    first, second = found.train.places.T
    print(f"  {(groups[first] == groups[second]).sum()} of the pairs within a group")

    half = n_views // 2
    found, seconds = timed(
        np.concatenate([X[:, 0 : 2 * half : 2], X[:, 1 : 2 * half : 2]]), np.concatenate([labels, labels])
    )
    tell(f"each image twice, {half} views each", found, seconds)
    print(f"  {planted(found.train, n_images)} of {n_images} copies found")

    print(train_test_shift(X[:, 0], others[:, 0]))
    began = time.perf_counter()
    print(train_test_shift(X[:, 0], others[:, 0], groups), f"{time.perf_counter() - began:.1f} s")
    held = np.isin(groups, np.random.default_rng(0).permutation(groups.max() + 1)[: (groups.max() + 1) // 4])
    print("a quarter of the groups as the test set:", train_test_shift(X[~held, 0], X[held, 0], groups[~held]))


if __name__ == "__main__":
    main()
