"""The immutable part files of a run in progress: each unit of rows is committed once, whole, and survives any death."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py

from features_cache.errors import CacheDamaged, CacheIncomplete, ForeignCache
from features_cache.files import DISK, Disk, open_regular, publish, temporary_name
from features_cache.layout import Rows, part_image, rows_of_part
from features_cache.plan import QUARANTINE, Plan, mark_of
from features_cache.seal import PART_MAGIC, Sealing, check_whole, read_seal


class Parts:
    """The parts of one plan, in one folder.

    Any number of writers may commit at once: a part's name says its unit, and the first to publish it stays.

    Parameters
    ----------
    folder : Path
        Where plan and parts lie.
    plan : Plan
        The plan that they follow.
    disk : Disk
        The system calls.
    """

    def __init__(self, folder: Path, plan: Plan, disk: Disk = DISK) -> None:
        self.folder = folder
        self.plan = plan
        self._digest = plan.digest
        self._mark = mark_of(self._digest)
        self._disk = disk

    def path_of(self, unit: int) -> Path:
        """Return the file name of a unit's part."""
        return self.folder / f"{unit:08d}-{self._mark}.h5"

    def commit(self, unit: int, rows: Rows) -> bool:
        """Make a unit's rows durable; on return they survive a power cut.

        Parameters
        ----------
        unit : int
            0 to ``plan.n_units - 1``.
        rows : Rows
            All rows of the unit.

        Returns
        -------
        bool
            False if another writer had committed the unit first; its part stays.

        Raises
        ------
        DiskFull
            Nothing of this unit is kept; earlier ones are.
        CacheIncomplete
            If the folder is gone: another writer published, and tidied up.
        """
        expected = (len(self.plan.rows_of(unit)), self.plan.n_views, self.plan.n_columns)
        if rows.features.shape != expected or rows.features.dtype.name != self.plan.storage:
            msg = f"unit {unit} has features {rows.features.shape} {rows.features.dtype}; the plan says {expected} {self.plan.storage}"
            raise ValueError(msg)
        image = part_image(rows, plan_digest=self._digest, unit=unit)
        sealing = Sealing(PART_MAGIC)
        try:
            return publish(
                self.path_of(unit), sealing.pass_through([image]), head=sealing.seal, make_folder=False, disk=self._disk
            )
        except FileNotFoundError as error:
            msg = (
                f"{self.folder}: is gone; another process published the cache, or removed it. Run `cli featurize` again"
            )
            raise CacheIncomplete(msg) from error

    def read(self, unit: int) -> Rows:
        """Read a part back, every byte checked.

        Raises
        ------
        CacheIncomplete
            If it is not there.
        CacheDamaged
            If it is not what was written, or belongs to another plan or unit.
        """
        path = self.path_of(unit)
        try:
            handle = open_regular(path)
        except FileNotFoundError as error:
            msg = f"{path}: part {unit} of {self.plan.n_units} is missing; run `cli featurize` again to resume"
            raise CacheIncomplete(msg) from error
        # One descriptor: another writer may set the part aside, or remove it after publishing, at any moment.
        with handle:
            try:
                check_whole(handle, path, read_seal(handle, path, PART_MAGIC))
            except (CacheDamaged, ForeignCache) as error:
                msg = f"{path}: part {unit} is damaged; type the command that made it again: it is set aside and computed anew"
                raise CacheDamaged(msg) from error
            with h5py.File(handle, "r") as file:
                if file.attrs["plan"].decode() != self._digest or int(file.attrs["unit"]) != unit:
                    msg = f"{path}: a part of another plan or unit; run `cli featurize` again, it is done anew"
                    raise CacheDamaged(msg)
                return rows_of_part(file)

    @property
    def mark(self) -> str:
        """What their names end in; the plan's."""
        return self._mark

    def has(self, unit: int) -> bool:
        """Whether a unit was committed; its bytes are not looked at."""
        return self.path_of(unit).exists()

    def check(self, units: Iterable[int] | None = None) -> Iterator[tuple[int, Rows | None]]:
        """Go through some units, or all; a part that does not check out is moved to ``quarantine/``.

        Yields
        ------
        unit : int
        rows : Rows or None
            None where the unit has to be computed.
        """
        for unit in range(self.plan.n_units) if units is None else units:
            try:
                yield unit, self.read(unit)
            except CacheIncomplete:
                yield unit, None
            except CacheDamaged:
                self._set_aside(unit)
                yield unit, None

    def _set_aside(self, unit: int) -> None:
        folder = self.folder / QUARANTINE
        self._disk.make_folder(folder)
        # Another writer may have set it aside first.
        with contextlib.suppress(FileNotFoundError):
            self._disk.replace(self.path_of(unit), folder / self.path_of(unit).name)
            self._disk.fsync_folder(self.folder)

    def remove(self) -> None:
        """Remove the folder: only once the finished cache is published and checked.

        Its name goes first, so that no kill leaves a folder with some parts, which would look like a run to be finished.
        """
        going = temporary_name(self.folder)
        with contextlib.suppress(FileNotFoundError):
            self._disk.replace(self.folder, going)
            self._disk.remove_tree(going)
