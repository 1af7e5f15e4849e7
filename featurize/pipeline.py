"""Overlap reading and computing: while the networks work on one unit, the next is read and decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features_cache.layout import HASH_BYTES, Rows
from features_cache.plan import Plan
from features_cache.status import Status
from featurize.channels import Loaded, load_image
from featurize.decode import BadImage
from featurize.engine import Engine

_FLOAT16_MAX = 65504.0


class Reader:
    """Reads, decodes and resizes images in threads, one unit ahead.

    Parameters
    ----------
    root : Path
        Folder of the images.
    plan : Plan
        Which images.
    max_pixels : int
        Largest image that is decoded.
    n_workers : int
        Threads.
    """

    def __init__(self, root: Path, plan: Plan, *, max_pixels: int, n_workers: int) -> None:
        self._root = root
        self._plan = plan
        self._recipe = plan.blocks[0].recipe
        self._max_pixels = max_pixels
        self._n_workers = n_workers

    def units(self, wanted: Sequence[int]) -> Iterator[tuple[int, list[ResizedImage | BadImage]]]:
        """Yield each unit's images in row order."""
        with ThreadPoolExecutor(self._n_workers) as pool:
            ahead: list[tuple[int, list[Future[ResizedImage | BadImage]]]] = []
            try:
                for unit in wanted:
                    ahead.append((unit, [pool.submit(self._one, row) for row in self._plan.rows_of(unit)]))
                    if len(ahead) > 1:
                        yield self._ready(*ahead.pop(0))
                for waiting in ahead:
                    yield self._ready(*waiting)
            finally:
                # A stop must not wait for images that nobody will look at.
                pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _ready(unit: int, futures: list[Future[ResizedImage | BadImage]]) -> tuple[int, list[ResizedImage | BadImage]]:
        return unit, [future.result() for future in futures]

    def _one(self, row: int) -> ResizedImage | BadImage:
        try:
            loaded = load_image(
                self._root,
                self._plan.sources[row],
                self._recipe.channels,
                scale=self._recipe.scale,
                max_pixels=self._max_pixels,
            )
        except BadImage as error:
            return error
        return ResizedImage(loaded, self._recipe.size_px)


class ResizedImage:
    """An image at the networks' size.

    Parameters
    ----------
    loaded : Loaded
        Pixels of any size.
    size_px : int
        Side of the result.

    Attributes
    ----------
    pixels : float32 tensor, shape (3, size_px, size_px)
        In [0, 1].
    content_hash : uint8 array, shape (16,)
    notes : tuple of str
    """

    def __init__(self, loaded: Loaded, size_px: int) -> None:
        self.pixels = resize(loaded.pixels, size_px)
        self.content_hash = loaded.content_hash
        self.notes = loaded.notes


def resize(pixels: NDArray[np.float32], size_px: int) -> Tensor:
    """Resize to a square, bilinear with antialiasing; the aspect is not kept.

    Parameters
    ----------
    pixels : float32 array, shape (height, width, 3)
    size_px : int

    Returns
    -------
    float32 tensor, shape (3, size_px, size_px)
    """
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return torch.nn.functional.interpolate(
        image[None], size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False
    )[0]


def compute_unit(
    plan: Plan,
    unit: int,
    images: Sequence[ResizedImage | BadImage],
    engine: Engine,
    check_stop: Callable[[], None],
) -> Rows:
    """Turn a unit's images into its rows.

    Parameters
    ----------
    plan : Plan
        What to compute.
    unit : int
        Which unit.
    images : sequence of ResizedImage or BadImage
        Its images in row order.
    engine : Engine
        The networks.
    check_stop : callable
        Raises when the run has to stop; asked before every forward pass.

    Returns
    -------
    Rows
    """
    ids = [plan.ids[row] for row in plan.rows_of(unit)]
    notes: Counter[str] = Counter()
    status = np.zeros(len(images), np.uint8)
    hashes = np.zeros((len(images), HASH_BYTES), np.uint8)
    reasons = [""] * len(images)
    features = np.zeros((len(images), plan.n_views, plan.n_columns), np.float32)
    work: list[tuple[int, int]] = []
    for index, image in enumerate(images):
        if isinstance(image, BadImage):
            status[index], reasons[index] = image.status, image.reason
        else:
            hashes[index] = image.content_hash
            notes.update(set(image.notes))
            work.extend((index, view) for view in range(plan.n_views))
    step = engine.micro_batch
    for first in range(0, len(work), step):
        check_stop()
        here = work[first : first + step]
        pixels = torch.stack([_pixels(images[index]) for index, _ in here])
        vectors = engine.features(pixels, [ids[index] for index, _ in here], [view for _, view in here])
        for (index, view), vector in zip(here, vectors.numpy(), strict=True):
            features[index, view] = vector
    stored = _quarantine_unstorable(plan, features, status, reasons)
    return Rows(features=stored, status=status, content_hash=hashes, reasons=tuple(reasons), conversions=dict(notes))


def _pixels(image: ResizedImage | BadImage) -> Tensor:
    if isinstance(image, BadImage):
        raise TypeError(image.reason)
    return image.pixels


def _quarantine_unstorable(
    plan: Plan, features: NDArray[np.float32], status: NDArray[np.uint8], reasons: list[str]
) -> NDArray[np.floating]:
    """Convert to the storage type; an image with a value outside its range becomes zeros with a reason."""
    limit = _FLOAT16_MAX if plan.storage == "float16" else float(np.finfo(np.float32).max)
    for index in np.flatnonzero(~(np.abs(features) <= limit).all(axis=(1, 2))):
        columns = np.flatnonzero(~(np.abs(features[index]) <= limit).all(axis=0))
        block = next(block for block in plan.blocks if block.start <= columns[0] < block.stop)
        status[index] = Status.FEATURES
        reasons[index] = f"features of {block.name} overflow {plan.storage} or are not finite ({len(columns)} columns)"
        features[index] = 0
    return features.astype(plan.storage)


def first_unit_fault(plan: Plan, rows: Rows) -> str | None:
    """Say what is wrong with the first unit, if its features cannot be those of a working network.

    A block that is zero everywhere, or that leaves the range of the storage type, is a mistake of weights or precision and
    not of an image; the run had better end before it cost hours.

    Returns
    -------
    str or None
        What is wrong, and what to type.
    """
    overflown = np.flatnonzero(rows.status == Status.FEATURES)
    if len(overflown):
        return f"{rows.reasons[overflown[0]]}, in {len(overflown)} of the first {len(rows.status)} images; try --dtype float32"
    good = rows.features[rows.status == Status.GOOD]
    for block in plan.blocks if len(good) else ():
        if not good[:, :, block.start : block.stop].any():
            return f"block {block.name!r} is zero in all of the first {len(good)} images; its weights cannot be right"
    return None
