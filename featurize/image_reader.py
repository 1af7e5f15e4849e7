"""Images read and decoded in threads, a unit ahead of the networks, and fitted into the squares that views are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from features_cache.extend import Unit
from features_cache.plan import Plan
from featurize.images.bad_image import BadImage
from featurize.images.channels import Loaded, load_image
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.travel import Travel, travelled
from featurize.views.geometry import Square, to_square

_POLL_S = 0.2


class ImageReader:
    """Reads and decodes images in threads, one unit ahead, and fits them into squares on the device of the networks.

    Parameters
    ----------
    root : Place
        Folder of the images.
    plan : Plan
        Which images.
    reading : Reading
        How they are read.
    squares : collection of Square
        Into which each is fitted.
    device : torch.device
        Where.
    n_workers : int
        Threads.
    """

    def __init__(
        self,
        root: Place,
        plan: Plan,
        reading: Reading,
        squares: Collection[Square],
        *,
        device: torch.device,
        n_workers: int,
    ) -> None:
        self._root = root
        self._plan = plan
        self._reading = reading
        self._squares = squares
        self._travel = Travel(device)
        self._n_workers = n_workers

    def units(
        self, wanted: Iterable[Unit], check_stop: Callable[[], None]
    ) -> Iterator[tuple[Unit, list[ResizedImage | BadImage | None]]]:
        """Yield each unit with its images in row order; None where nothing of an image has to be computed.

        ``check_stop`` raises when the run has to stop; it is asked while an image is waited for, as a store may take minutes.
        """
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
                        yield self._ready(*ahead.pop(0), check_stop)
                for waiting in ahead:
                    yield self._ready(*waiting, check_stop)
            finally:
                # A stop must not wait for images that nobody will look at.
                pool.shutdown(wait=False, cancel_futures=True)

    def _ready(
        self, unit: Unit, futures: list[Future[ResizedImage | BadImage] | None], check_stop: Callable[[], None]
    ) -> tuple[Unit, list[ResizedImage | BadImage | None]]:
        for future in futures:
            while future is not None and not wait([future], _POLL_S).done:
                check_stop()
        images = [None if future is None else future.result() for future in futures]
        self._travel.arrive(
            pixels for image in images if isinstance(image, ResizedImage) for pixels in image.pixels.values()
        )
        return unit, images

    def _one(self, row: int) -> ResizedImage | BadImage:
        try:
            loaded = load_image(self._root, self._plan.sources[row], self._reading)
        except BadImage as error:
            return error
        with self._travel.on_the_way():
            return ResizedImage(loaded, self._squares, self._travel.device)


class ResizedImage:
    """An image in the squares that networks' views are made of.

    Parameters
    ----------
    loaded : Loaded
        Pixels of any size.
    squares : collection of Square
    device : torch.device

    Attributes
    ----------
    pixels : dict of Square to float32 tensor on the device, shape (n_planes, side_px, side_px)
        In [0, 1].
    content_hash : uint8 array, shape (16,)
    notes : tuple of str
    """

    def __init__(self, loaded: Loaded, squares: Collection[Square], device: torch.device) -> None:
        image = travelled(loaded.pixels, device)
        self.pixels = {square: to_square(image, square) for square in squares}
        self.content_hash = loaded.content_hash
        self.notes = loaded.notes
