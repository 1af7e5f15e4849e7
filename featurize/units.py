"""The features of a unit of images: networks are set to work, and what they give is checked and stored."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

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
from featurize.engine import Engine
from featurize.image_reader import ResizedImage
from featurize.images.bad_image import BadImage
from featurize.views.geometry import Square, square_of

_FLOAT16_MAX = 65504.0


class StartedUnit:
    """A unit whose missing cells the networks are at work on.

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
    notes : sequence of str
        What else is not as planned where these images are computed.

    Raises
    ------
    ImageChanged
        If an image of which some cells were held is not the one that they came from.
    """

    def __init__(
        self,
        plan: Plan,
        unit: Unit,
        images: Sequence[ResizedImage | BadImage | None],
        engine: Engine,
        check_stop: Callable[[], None],
        notes: Sequence[str] = (),
    ) -> None:
        self.unit = unit
        self._plan, self._engine = plan, engine
        ids = [plan.ids[row] for row in plan.rows_of(unit.number)]
        start = unit.start()
        self._start, self._notes = start, Counter[str]()
        self._status, self._hashes, self._reasons = start.status.copy(), start.content_hash.copy(), list(start.reasons)
        self._note(images, ids)
        self._pending: list[tuple[list[tuple[int, int]], NDArray[np.intp], Tensor]] = []
        for square, blocks, cells in _by_blocks(
            plan, unit.missing & np.equal(self._status, Status.GOOD)[:, None, None]
        ):
            columns = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
            names = [block.name for block in blocks]
            for first in range(0, len(cells), engine.micro_batch):
                check_stop()
                here = cells[first : first + engine.micro_batch]
                pixels = torch.stack([_pixels(images[index], square) for index, _ in here])
                vectors = engine.features(pixels, [ids[index] for index, _ in here], [view for _, view in here], names)
                self._pending.append((here, columns, vectors))
        self._notes.update(dict.fromkeys((*engine.notes, *notes), unit.n_images))

    def _note(self, images: Sequence[ResizedImage | BadImage | None], ids: Sequence[str]) -> None:
        """Remember what is known of each image before a network has seen it."""
        for index, image in enumerate(images):
            if image is None:
                continue
            if self.unit.is_held[index] and _is_another(image, self._hashes[index]):
                msg = f"image {ids[index]!r} is not the one that its features were made from; add --repair to compute them anew"
                raise ImageChanged(msg)
            if isinstance(image, BadImage):
                self._status[index], self._reasons[index] = image.status, image.reason
            else:
                self._hashes[index] = image.content_hash
                self._notes.update(set(image.notes))

    def rows(self) -> Rows:
        """Wait for the networks, and return the unit, whole.

        Raises
        ------
        DeviceLost
            If the device failed on the way.
        """
        features = self._start.features.astype(np.float32)
        for cells, columns, vectors in self._pending:
            for (index, view), vector in zip(cells, self._engine.collect(vectors), strict=True):
                features[index, view, columns] = vector
        self._pending.clear()
        stored = _quarantine_unstorable(self._plan, features, self._status, self._reasons)
        return Rows(
            features=stored,
            status=self._status,
            content_hash=self._hashes,
            reasons=tuple(self._reasons),
            conversions=dict(self._notes),
        )


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
