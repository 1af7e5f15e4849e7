"""Overlap reading and computing: while the networks work on one unit, the next is read and decoded."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features_cache.errors import ImageChanged
from features_cache.extend import Unit
from features_cache.layout import Rows
from features_cache.plan import Plan
from features_cache.recipe import Block
from features_cache.status import Status
from featurize.bad_image import BadImage
from featurize.channels import Loaded, load_image
from featurize.engine import Engine
from featurize.geometry import Square, square_of, to_square
from featurize.reading import Reading

_FLOAT16_MAX = 65504.0


class ImageReader:
    """Reads, decodes and resizes images in threads, one unit ahead.

    Parameters
    ----------
    root : Path
        Folder of the images.
    plan : Plan
        Which images.
    reading : Reading
        How they are read.
    squares : collection of Square
        Into which each is fitted.
    n_workers : int
        Threads.
    """

    def __init__(
        self, root: Path, plan: Plan, reading: Reading, squares: Collection[Square], *, n_workers: int
    ) -> None:
        self._root = root
        self._plan = plan
        self._reading = reading
        self._squares = squares
        self._n_workers = n_workers

    def units(self, wanted: Iterable[Unit]) -> Iterator[tuple[Unit, list[ResizedImage | BadImage | None]]]:
        """Yield each unit with its images in row order; None where nothing of an image has to be computed."""
        with ThreadPoolExecutor(self._n_workers) as pool:
            ahead: list[tuple[Unit, list[Future[ResizedImage | BadImage] | None]]] = []
            try:
                for unit in wanted:
                    rows = self._plan.rows_of(unit.number)
                    needed = [bool(cells.any()) for cells in unit.missing]
                    futures = [
                        pool.submit(self._one, row) if is_needed else None
                        for row, is_needed in zip(rows, needed, strict=True)
                    ]
                    ahead.append((unit, futures))
                    if len(ahead) > 1:
                        yield self._ready(*ahead.pop(0))
                for waiting in ahead:
                    yield self._ready(*waiting)
            finally:
                # A stop must not wait for images that nobody will look at.
                pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _ready(
        unit: Unit, futures: list[Future[ResizedImage | BadImage] | None]
    ) -> tuple[Unit, list[ResizedImage | BadImage | None]]:
        return unit, [None if future is None else future.result() for future in futures]

    def _one(self, row: int) -> ResizedImage | BadImage:
        try:
            loaded = load_image(self._root, self._plan.sources[row], self._reading)
        except BadImage as error:
            return error
        return ResizedImage(loaded, self._squares)


class ResizedImage:
    """An image in the squares that networks' views are made of.

    Parameters
    ----------
    loaded : Loaded
        Pixels of any size.
    squares : collection of Square

    Attributes
    ----------
    pixels : dict of Square to float32 tensor, shape (n_planes, side_px, side_px)
        In [0, 1].
    content_hash : uint8 array, shape (16,)
    notes : tuple of str
    """

    def __init__(self, loaded: Loaded, squares: Collection[Square]) -> None:
        self.pixels = {square: to_square(loaded.pixels, square) for square in squares}
        self.content_hash = loaded.content_hash
        self.notes = loaded.notes


def compute_unit(
    plan: Plan,
    unit: Unit,
    images: Sequence[ResizedImage | BadImage | None],
    engine: Engine,
    check_stop: Callable[[], None],
) -> Rows:
    """Compute a unit's missing cells.

    Parameters
    ----------
    plan : Plan
        What to compute.
    unit : Unit
        What there is of it already.
    images : sequence of ResizedImage, BadImage or None
        Its images in row order; None where no cell is missing.
    engine : Engine
        The networks.
    check_stop : callable
        Raises when the run has to stop; asked before every forward pass.

    Returns
    -------
    Rows
        The unit, whole.

    Raises
    ------
    ImageChanged
        If an image of which some cells were held is not the one that they came from.
    """
    ids = [plan.ids[row] for row in plan.rows_of(unit.number)]
    start = unit.start()
    notes: Counter[str] = Counter()
    status, hashes, reasons = start.status.copy(), start.content_hash.copy(), list(start.reasons)
    features = start.features.astype(np.float32)
    for index, image in enumerate(images):
        if image is None:
            continue
        if unit.is_held[index] and _is_another(image, hashes[index]):
            msg = f"image {ids[index]!r} is not the one that its features were made from; add --repair to compute them anew"
            raise ImageChanged(msg)
        if isinstance(image, BadImage):
            status[index], reasons[index] = image.status, image.reason
        else:
            hashes[index] = image.content_hash
            notes.update(set(image.notes))
    for square, blocks, cells in _by_blocks(plan, unit.missing & np.equal(status, Status.GOOD)[:, None, None]):
        columns = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
        for first in range(0, len(cells), engine.micro_batch):
            check_stop()
            here = cells[first : first + engine.micro_batch]
            pixels = torch.stack([_pixels(images[index], square) for index, _ in here])
            vectors = engine.features(
                pixels, [ids[index] for index, _ in here], [view for _, view in here], [block.name for block in blocks]
            )
            for (index, view), vector in zip(here, vectors.numpy(), strict=True):
                features[index, view, columns] = vector
    stored = _quarantine_unstorable(plan, features, status, reasons)
    return Rows(features=stored, status=status, content_hash=hashes, reasons=tuple(reasons), conversions=dict(notes))


def _is_another(image: ResizedImage | BadImage, content_hash: NDArray[np.uint8]) -> bool:
    return isinstance(image, BadImage) or not np.array_equal(image.content_hash, content_hash)


def _by_blocks(plan: Plan, missing: NDArray[np.bool_]) -> Iterator[tuple[Square, list[Block], list[tuple[int, int]]]]:
    """Group the missing cells (image, view, block) by the blocks that an (image, view) lacks, and these by their square."""
    groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
    for index, view in np.argwhere(missing.any(axis=2)).tolist():
        groups.setdefault(tuple(missing[index, view].tolist()), []).append((index, view))
    for lacks, cells in groups.items():
        by_square: dict[Square, list[Block]] = {}
        for block in itertools.compress(plan.blocks, lacks):
            by_square.setdefault(square_of(block.recipe), []).append(block)
        for square, blocks in by_square.items():
            yield square, blocks, cells


def _pixels(image: ResizedImage | BadImage | None, square: Square) -> Tensor:
    if not isinstance(image, ResizedImage):
        raise TypeError(image)
    return image.pixels[square]


def _quarantine_unstorable(
    plan: Plan, features: NDArray[np.float32], status: NDArray[np.uint8], reasons: list[str]
) -> NDArray[np.floating]:
    """Convert to the storage type; an image with a value outside its range, or a view without one, becomes zeros with a reason."""
    limit = _FLOAT16_MAX if plan.storage == "float16" else float(np.finfo(np.float32).max)
    for index in np.flatnonzero(~(np.abs(features) <= limit).all(axis=(1, 2))):
        columns = np.flatnonzero(~(np.abs(features[index]) <= limit).all(axis=0))
        block = next(block for block in plan.blocks if block.start <= columns[0] < block.stop)
        status[index] = Status.FEATURES
        reasons[index] = f"features of {block.name} overflow {plan.storage} or are not finite ({len(columns)} columns)"
        features[index] = 0
    stored = features.astype(plan.storage)
    for block in plan.blocks:
        silent = np.all(stored[:, :, block.start : block.stop] == 0, axis=2)
        for index in np.flatnonzero(silent.any(axis=1) & np.equal(status, Status.GOOD)):
            status[index] = Status.SILENT
            reasons[index] = f"features of {block.name} are zero everywhere, in view {int(silent[index].argmax())}"
            stored[index] = 0
    return stored


def first_unit_fault(rows: Rows, *, is_begun: bool = False) -> str | None:
    """Say what is wrong with the first unit, if its features cannot be those of a working network.

    A block that is zero everywhere, or that leaves the range of the storage type, is a mistake of weights or precision and
    not of an image; the run had better end before it cost hours.

    Parameters
    ----------
    rows : Rows
        Of the unit.
    is_begun : bool
        Whether a cache is extended: images that it holds none of may overflow again, and speak against the network only where
        all do.

    Returns
    -------
    str or None
        What is wrong, and what to type.
    """
    some_good = (rows.status == Status.GOOD).any()
    overflown = np.flatnonzero(rows.status == Status.FEATURES)
    if len(overflown) and not (is_begun and some_good):
        return f"{rows.reasons[overflown[0]]}, in {len(overflown)} of the first {len(rows.status)} images; try --dtype float32"
    silent = np.flatnonzero(rows.status == Status.SILENT)
    if len(silent) and not some_good:
        return f"{rows.reasons[silent[0]]}, as in all of the first {len(silent)} images; its weights cannot be right"
    return None
