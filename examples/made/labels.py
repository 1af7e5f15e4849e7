"""Who is of which classes: drawn from a challenge's proportions, or the real labels of one."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# images a class at both ends of HPA 2018, of 31,072
_COMMONEST, _RAREST = 12_885, 11
_LEAST = 2  # training images a class, in however small a challenge


class Image(NamedTuple):
    """One image to make: its id, and its classes by number."""

    id: str
    classes: tuple[int, ...]


def number_of(*words: object) -> int:
    """Make a number that belongs to some words, such as a seed and an image's id."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest(), "big")


def rng_of(*words: object) -> np.random.Generator:
    """Make the random generator that belongs to some words."""
    return np.random.default_rng(number_of(*words))


def draw_labels(split: str, n_images: int, n_classes: int, seed: int) -> list[Image]:
    """Draw images of one to four classes, from common to rare; of training images at least two of each.

    Parameters
    ----------
    split : str
        ``train``, or another; each has ids of its own.
    n_images : int
        Of training images at least twice as many as classes.
    n_classes : int
    seed : int

    Returns
    -------
    list of Image, sorted by id

    Raises
    ------
    ValueError
        If there are too few.
    """
    n_each = _LEAST if split == "train" else 0
    if n_images < n_each * n_classes:
        msg = f"{n_images} training images of {n_classes} classes; expected at least {n_each * n_classes}"
        raise ValueError(msg)
    shares = np.geomspace(_COMMONEST, _RAREST, n_classes)
    shares /= shares.sum()
    images = []
    for place in range(n_images):
        rng = rng_of(seed, split, place)
        name = f"{rng.integers(2**32):08x}-{rng.integers(2**16):04x}-{split}-{place:05d}"
        first = place % n_classes if place < n_each * n_classes else int(rng.choice(n_classes, p=shares))
        more = rng.choice(n_classes, int(rng.choice(4, p=(0.5, 0.35, 0.12, 0.03))), replace=False, p=shares)
        images.append(Image(name, tuple(dict.fromkeys([first, *map(int, more)]))))
    return sorted(images)


def real_labels(path: Path, n_images: int | None) -> list[Image]:
    """Read labels such as HPA 2018's ``train.csv``, or some of them: of each class a few, then as they come.

    Parameters
    ----------
    path : Path
        CSV with the columns Id and Target, which holds numbers of classes between blanks.
    n_images : int, optional
        Of how many; all unless given.

    Returns
    -------
    list of Image
        In the file's order.
    """
    with path.open(encoding="utf-8", newline="") as file:
        every = [Image(row["Id"], tuple(map(int, row["Target"].split()))) for row in csv.DictReader(file)]
    if n_images is None or n_images >= len(every):
        return every
    by_lot = sorted(every, key=lambda image: number_of(image.id))
    lacking = dict.fromkeys((name for image in every for name in image.classes), 2 * _LEAST)
    chosen: set[str] = set()
    for image in by_lot:
        if any(lacking[name] > 0 for name in image.classes):
            chosen.add(image.id)
            for name in image.classes:
                lacking[name] -= 1
    chosen.update([image.id for image in by_lot if image.id not in chosen][: max(0, n_images - len(chosen))])
    return [image for image in every if image.id in chosen]


def real_test_images(path: Path, n_images: int | None, like: Sequence[Image], seed: int) -> list[Image]:
    """Read ids of test images, whose labels nobody told; each is given those of one of the training images, by lot.

    Parameters
    ----------
    path : Path
        Sample submission; ids in its first column.
    n_images : int, optional
        Only the first; all unless given.
    like : sequence of Image
        The training images.
    seed : int

    Returns
    -------
    list of Image
        In the file's order.
    """
    with path.open(encoding="utf-8", newline="") as file:
        ids = [row[0] for row in csv.reader(file)][1:][:n_images]
    return [Image(name, like[number_of(seed, name) % len(like)].classes) for name in ids]
