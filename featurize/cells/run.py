"""The story of `cli cells`: every image once, its cells found and cut out, and a table that says where they were."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from features_cache.errors import ImageChanged, TooManyBadImages, listed
from features_cache.extras import load_extra
from features_cache.files import publish, require_folder
from features_cache.interrupt import StopFlag, stop_on_signals
from features_cache.progress import Progress, silent
from featurize.cells.cutting import CellJob, cut_image, find_jobs
from featurize.cells.records import list_folders, publish_parent, read_parent
from featurize.cells.settings import CellsSettings
from featurize.cells.state import (
    WAYS_OUT,
    State,
    alone_in,
    discard_all,
    read_state,
    require_ours,
    require_same_rules,
    write_state,
)
from featurize.cells.summary import CellsSplit, CellsSummary
from featurize.cells.tables import Size, images_csv, publish_cells, size_of
from featurize.crop_folder import outputs
from featurize.images.bad_image import BadImage


def cut_cells(settings: CellsSettings, *, progress: Progress = silent) -> CellsSummary:
    """Find the cells of training and test images, and publish a crop of each and the tables.

    Killed at any moment and called again, it goes on and ends in the same bytes; where all is there, nothing is done; images that
    have come are added. Images that could not be used are tried again each time.

    Parameters
    ----------
    settings : CellsSettings
        What to do.
    progress : callable
        Told, after every image, the split, how many of its images are done, and how many it has.

    Returns
    -------
    CellsSummary

    Raises
    ------
    PermafeatError
        As drawn in ``features_cache/errors.py``; whatever was published stays.
    """
    if settings.masks is None:
        load_extra("skimage", "cells")
    require_folder(settings.out)
    with stop_on_signals() as flag:
        jobs = find_jobs(settings)
        with alone_in(settings.out) as making:
            found = _settle(settings, jobs, making)
            splits = tuple(
                _cut_split(job, sizes, settings, making, flag, progress) for job, sizes in zip(jobs, found, strict=True)
            )
            _remember(settings, jobs, finished=True)
    return CellsSummary(splits=splits, warnings=tuple(text for job in jobs for text in job.warnings))


Sizes = dict[int, Size]
"""What is there already, by row of the split."""


def _settle(settings: CellsSettings, jobs: Sequence[CellJob], making: Path) -> list[Sizes]:
    """Look at what stands in the folder, make way where ``--overwrite`` asks for it, and say what stays."""
    out, rules = settings.out, _rules(settings, jobs)
    state = read_state(out)
    require_ours(out, state.sources if state else ())
    if state and settings.overwrite and (state.finished or dict(state.rules) != rules):
        discard_all(out, making)
        state = None
    elif state:
        require_same_rules(out, state.rules, rules)
    try:
        found = [_found(job, out, state) for job in jobs]
    except ImageChanged:
        if not settings.overwrite:
            raise
        discard_all(out, making)
        found = [{} for _ in jobs]
    complete = all(len(sizes) == len(job.ids) for job, sizes in zip(jobs, found, strict=True))
    _remember(settings, jobs, finished=complete and state is not None and state.finished)
    return found


def _rules(settings: CellsSettings, jobs: Sequence[CellJob]) -> dict[str, Any]:
    return settings.rules(jobs[0].reading.planes, by_file=bool(jobs[0].crop_channels))


def _remember(settings: CellsSettings, jobs: Sequence[CellJob], *, finished: bool) -> None:
    """Bring ``cells.json`` up to date, where it is not."""
    there = read_state(settings.out)
    sources = dict(there.sources if there else {}) | {job.split: job.digest() for job in jobs}
    state = State(rules=_rules(settings, jobs), sources=sources, finished=finished)
    if there != state:
        write_state(settings.out, state)


def _found(job: CellJob, out: Path, state: State | None) -> Sizes:
    """Read what an earlier run cut out, and check that it was cut out of these very images.

    Raises
    ------
    ImageChanged
        If an image is another one than then, or gone.
    CacheDamaged
        If crops are missing.
    """
    crops = out / job.split
    is_known = state is not None and state.sources.get(job.split) == job.digest()
    sizes: Sizes = {}
    changed = []
    for row, folder in enumerate(job.folders):
        parent = read_parent(crops / folder)
        if parent is None:
            continue
        sizes[row] = size_of(parent)
        if not is_known and job.content_hash(row) != parent.content_hash:
            changed.append(job.ids[row])
    gone = [] if is_known else sorted(set(list_folders(crops)) - set(job.folders))
    if changed or gone:
        told = (
            [f"{len(changed)} images are not those that their cells were cut out of ({listed(changed, 5)})"]
            if changed
            else []
        )
        told += [f"the images of {len(gone)} folders of crops are gone ({listed(gone, 5)})"] if gone else []
        msg = f"{crops}: {'; '.join(told)}. Put them back as they were. {WAYS_OUT}"
        raise ImageChanged(msg)
    return sizes


def _cut_split(
    job: CellJob, sizes: Sizes, settings: CellsSettings, making: Path, flag: StopFlag, progress: Progress
) -> CellsSplit:
    began = time.monotonic()
    n_images, missing = len(job.ids), [row for row in range(len(job.ids)) if row not in sizes]
    reasons: dict[int, str] = {}
    notes: Counter[str] = Counter()
    progress(job.split, n_images - len(missing), n_images)
    n_cut = 0
    with contextlib.closing(_in_threads(job, missing, settings, making, settings.n_threads, flag)) as cuts:
        for n_tried, (row, cut) in enumerate(cuts, 1):
            if isinstance(cut, BadImage):
                reasons[row] = cut.reason
                _require_few(job, reasons, settings)
            else:
                sizes[row], n_cut = cut.size, n_cut + 1
                notes.update(set(cut.notes))
            progress(job.split, n_images - len(missing) + n_tried, n_images)
    path = _publish_tables(job, settings.out, sizes, reasons, anew=n_cut > 0)
    return CellsSplit(
        split=job.split,
        path=path,
        n_images=n_images,
        n_cells=sum(size.n_cells for size in sizes.values()),
        n_empty=sum(size.n_cells == 0 for size in sizes.values()),
        n_quarantined=len(reasons),
        n_cut=n_cut,
        wall_s=time.monotonic() - began,
        notes=dict(notes),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Cut:
    """What became of an image."""

    size: Size
    notes: tuple[str, ...]


def _in_threads(
    job: CellJob, rows: Sequence[int], settings: CellsSettings, making: Path, n_workers: int, flag: StopFlag
) -> Generator[tuple[int, _Cut | BadImage]]:
    """Cut out the cells of images, an image a thread; yield in order what became of each."""
    crops = settings.out / job.split

    def one(row: int) -> _Cut | BadImage:
        try:
            parent, files, notes = cut_image(job, row, settings)
        except BadImage as error:
            return error
        publish_parent(crops / job.folders[row], parent, files, making=making)
        return _Cut(size_of(parent), notes)

    with ThreadPoolExecutor(n_workers) as pool:
        waiting: list[tuple[int, Future[_Cut | BadImage]]] = []
        try:
            for row in rows:
                waiting.append((row, pool.submit(one, row)))
                if len(waiting) > 2 * n_workers:
                    first, future = waiting.pop(0)
                    yield first, future.result()
                flag.check()
            for first, future in waiting:
                flag.check()
                yield first, future.result()
        finally:
            # A stop waits for the images that are being cut, and for no others: whole ones are published.
            pool.shutdown(wait=True, cancel_futures=True)


def _require_few(job: CellJob, reasons: dict[int, str], settings: CellsSettings) -> None:
    if not settings.allows(len(reasons), len(job.ids)):
        shown = "\n".join(f"  {job.ids[row]}: {reason}" for row, reason in list(reasons.items())[:20])
        msg = (
            f"{job.root}: {len(reasons)} of the images read so far cannot be used, above --max-bad {settings.max_bad:g} "
            f"of {len(job.ids)}:\n{shown}\nMend or remove them, or raise --max-bad, and type the same command again to go on"
        )
        raise TooManyBadImages(msg)


def _publish_tables(job: CellJob, out: Path, sizes: Sizes, reasons: dict[int, str], *, anew: bool) -> Path:
    """Publish the table of cells, then that of images: where the second is as it should be, so is the first."""
    cells_path, images_path, _ = outputs(out, job.split)
    images = images_csv(job.ids, sizes, reasons)
    is_there = cells_path.is_file() and images_path.is_file() and images_path.read_bytes() == images
    if anew or not is_there:
        publish_cells(cells_path, job.ids, job.folders, sorted(sizes))
        publish(images_path, [images], replace=True)
    return cells_path
