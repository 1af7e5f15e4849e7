"""Networks, images and parts of one split put together: units computed and committed, by one process or by many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from features_cache.extend import Held, Unit
from features_cache.layout import Rows
from features_cache.parts import Parts
from featurize.backbones.build import Backbone
from featurize.committer import committed
from featurize.engine import Engine
from featurize.image_reader import ImageReader
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.settings import FeaturizeSettings
from featurize.units import StartedUnit
from featurize.views.geometry import square_of


class Computation:
    """What computes the units of one split in one process.

    Parameters
    ----------
    root : Place
        Folder of the images.
    parts : Parts
        Where units go, and the plan that they follow.
    held : Held
        What need not be computed.
    reading : Reading
        How images are read.
    settings : FeaturizeSettings
        Augmentation, and threads that read.
    backbones : mapping of str to Backbone
        By the name of the block that each computes; those that are needed are moved and converted in place.
    notes : sequence of str
        What is not as planned where this process runs; counted beside the cache.
    """

    def __init__(
        self,
        root: Place,
        parts: Parts,
        held: Held,
        reading: Reading,
        settings: FeaturizeSettings,
        backbones: Mapping[str, Backbone],
        notes: Sequence[str] = (),
    ) -> None:
        plan = parts.plan
        self._notes = notes
        missing = held.missing_blocks()
        squares = {square_of(block.recipe) for block in plan.blocks if block.name in missing}
        networks = {name: backbones[name] for name in missing}
        self._parts = parts
        self._engine = Engine(networks, plan, settings.augmentation, reading.planes)
        self._reader = ImageReader(
            root, plan, reading, squares, device=self._engine.device, n_workers=settings.n_readers
        )

    def units(
        self, wanted: Iterable[Unit], check_stop: Callable[[], None], *, look_at_first: bool
    ) -> Iterator[tuple[Unit, Rows]]:
        """Compute and commit units.

        Parameters
        ----------
        wanted : iterable of Unit
        check_stop : callable
            Raises when the run has to stop.
        look_at_first : bool
            Whether the features of the first are looked at before anything is kept.

        Yields
        ------
        unit : Unit
        rows : Rows
            What it is from now on.
        """
        plan = self._parts.plan
        started = (
            StartedUnit(plan, unit, images, self._engine, check_stop, self._notes)
            for unit, images in self._reader.units(wanted, check_stop)
        )
        with closing(committed(self._parts, started, look_at_first=look_at_first)) as done:
            yield from done
