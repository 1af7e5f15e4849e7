"""The story of `cli featurize`: every image once through every network, and the vectors kept."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from features_cache.errors import CacheIncomplete, OutputExists, PermafeatError, TooManyBadImages
from features_cache.extend import Held, Unit
from features_cache.files import remove_leftovers
from features_cache.interrupt import StopFlag, stop_on_signals
from features_cache.layout import Rows
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import PLAN_NAME, Plan, parts_folder, plan_in
from features_cache.progress import Progress, silent
from features_cache.reader import FeatureCache
from features_cache.settle import require_same_work, settle_plan
from features_cache.writer import enter_all
from featurize.backbones.build import Backbone
from featurize.backbones.origin import licence_warnings
from featurize.cluster.session import Session
from featurize.cluster.share import Share
from featurize.computation import Computation
from featurize.finish import finish, tidy_up
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.networks import build_networks
from featurize.provenance import known_execution, other_runtimes, same_bytes
from featurize.settings import FeaturizeSettings
from featurize.standing import Standing, look
from featurize.summary import SplitSummary, Summary
from featurize.work import Work, plan_work, require_runtime, require_space


def featurize(settings: FeaturizeSettings, *, progress: Progress = silent) -> Summary:
    """Compute and publish the features of the training and test images.

    Killed at any moment and called again, it goes on; a complete cache has nothing to compute; one that holds less than is
    asked for is extended.

    Parameters
    ----------
    settings : FeaturizeSettings
        What to do.
    progress : callable
        Told, after every committed unit, the split, how many of its images are there, and how many it has.

    Returns
    -------
    Summary

    Raises
    ------
    PermafeatError
        As drawn in ``features_cache/errors.py``; whatever was committed stays.
    """
    with stop_on_signals() as flag, _session(settings, flag) as session:
        work = plan_work(settings, _stoppable(flag, progress))
        jobs = [
            _Job(
                split,
                settings.out / f"{split}.h5",
                manifest.root,
                work.plans[split],
                work.reading,
                settings,
                flag,
                progress,
                session,
            )
            for split, manifest in work.manifests.items()
        ]
        if session is not None and settings.overwrite:
            session.connect()  # before anything gives way
        for job in jobs:
            tidy_up(job.path)
        to_do = _jobs_to_do(jobs)
        for job in to_do:  # what speaks against the test images is said before the training images cost hours
            with look(job.path, job.root, job.wanted, job.reading, job.settings):
                pass
        splits = tuple(_featurize_split(job, work) for job in to_do)
    warnings = [text for manifest in work.manifests.values() for text in manifest.warnings]
    warnings += _not_as_asked(work, splits, settings.splits)
    warnings += licence_warnings(network.origin for network in work.networks)
    there = [split.path for split in splits if not split.n_waiting]
    warnings += [*same_bytes(there), *other_runtimes(there)]
    return Summary(splits=splits, warnings=tuple(warnings), random_weights=work.random_weights)


def _not_as_asked(work: Work, splits: Sequence[SplitSummary], names: Sequence[str]) -> list[str]:
    """Say what a user may not expect: a split without images, and views that were there already."""
    lacking = [split for split in names if split not in work.plans]
    told = [f"there is no {_lacks(split)}, so no {split}.h5" for split in lacking]
    for split in splits:
        asked = work.plans[split.split]
        if split.n_views > asked.n_views:
            told.append(
                f"{split.path}: holds {split.n_views} views an image, {asked.n_views} asked for: all stay, and are averaged"
            )
        ran, to_run = known_execution(split.path), asked.execution
        if ran is not None and ran.device == to_run.device and ran.runtime != to_run.runtime:
            told.append(
                f"{split.path}: is complete, its networks run by {ran.runtime} and not by {to_run.runtime}, and stays; --overwrite computes it anew"
            )
    return told


def _lacks(split: str) -> str:
    images, _, cells = split.partition("_")
    return f"cell of {images} images" if cells else f"folder of {images} images"


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """One split to be featurized: where from, where to, what, how, and who is told."""

    split: str
    path: Path
    root: Place
    wanted: Plan
    reading: Reading
    settings: FeaturizeSettings
    flag: StopFlag
    progress: Progress
    session: Session | None = None


def _session(settings: FeaturizeSettings, flag: StopFlag) -> contextlib.AbstractContextManager[Session | None]:
    """Make ready to speak with a cluster, if one is to compute."""
    if settings.engine == "local":
        return contextlib.nullcontext()
    return Session(settings.address, settings.n_actors, flag.check)


def _stoppable(flag: StopFlag, progress: Progress) -> Progress:
    def tell(what: str, n_done: int, n_all: int) -> None:
        flag.check()
        progress(what, n_done, n_all)

    return tell


def _jobs_to_do(jobs: list[_Job]) -> list[_Job]:
    """Mark what ``--overwrite`` replaces, and find the splits that are begun anew or gone on with.

    An earlier ``--overwrite`` that was stopped on the way is taken up: what it finished stays. Its mark is a plan for every
    split that it still owes.
    """
    if not jobs[0].settings.overwrite:
        return jobs
    if any(_is_owed(job) for job in jobs):
        return [job if _is_owed(job) or not _is_complete(job) else _kept(job) for job in jobs]
    for job in jobs:
        Parts(parts_folder(job.path), job.wanted).remove()
        settle_plan(parts_folder(job.path), job.wanted)
    return jobs


def _kept(job: _Job) -> _Job:
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, overwrite=False))


def _is_owed(job: _Job) -> bool:
    """Whether an unfinished run has a plan for this very work."""
    folder = parts_folder(job.path)
    try:
        found = plan_in(folder)
        if found is not None:
            require_same_work(found, job.wanted, folder)
    except PermafeatError:
        return False
    return found is not None


def _is_complete(job: _Job) -> bool:
    try:
        with look(job.path, job.root, job.wanted, job.reading, _kept(job).settings) as standing:
            return standing.is_complete
    except PermafeatError:
        return False


def _featurize_split(job: _Job, work: Work) -> SplitSummary:
    began = time.monotonic()
    job.flag.check()
    with look(job.path, job.root, job.wanted, job.reading, job.settings) as standing:
        if standing.is_complete:
            job.progress(job.split, len(standing.plan.ids), len(standing.plan.ids))
            return _summary(job, n_computed=0, began=began, notes=Counter())
        try:
            return _compute_and_publish(job, work, standing, began)
        except (CacheIncomplete, OutputExists, FileNotFoundError):
            if not _is_complete(job):
                raise
    # Another process did the same work, and published it first.
    return _summary(job, n_computed=0, began=began, notes=Counter())


def _compute_and_publish(job: _Job, work: Work, standing: Standing, began: float) -> SplitSummary:
    folder = parts_folder(job.path)
    require_space(job.settings.out, standing.plan, folder)
    require_runtime(standing.plan.execution, job.path)
    backbones = build_networks(work.networks)  # wrong weights are found before anything is written
    if job.session is not None:
        if not (folder / PLAN_NAME).exists():  # a plan that nothing can follow would stand in the way of another
            job.session.connect()
        backbones = {}  # they could be built; actors build their own, and this process need not hold them
    plan = settle_plan(folder, standing.plan, shared=job.settings.shard is not None)
    for place in (folder, job.settings.out):
        remove_leftovers(place)
    parts, ledger, held = Parts(folder, plan), Ledger(plan), Held(plan, standing.cache)
    n_computed = _compute_missing(job, parts, ledger, held, backbones)
    if n_computed and standing.cache is not None and known_execution(job.path) is None:
        record = job.path.with_suffix(".json").name
        ledger.conversions[f"{record} was lost: nobody knows what runtime and threads computed what was there"] += (
            n_computed
        )
    n_waiting = sum(not parts.has(unit) for unit in ledger.missing if not held.is_whole(unit))
    if n_waiting:
        return _unfinished(job, plan, n_computed=n_computed, n_waiting=n_waiting, began=began, notes=ledger.conversions)
    enter_all(ledger, parts, held)
    _require_few(ledger, job.settings, plan, job.root)
    weights = {network.block.name: network.origin.provenance for network in work.networks}
    finish(
        job.path,
        parts,
        ledger,
        held,
        weights=weights,
        n_computed=n_computed,
        began=began,
        replace=job.settings.overwrite,
    )
    return _summary(job, n_computed=n_computed, began=began, notes=ledger.conversions)


def _compute_missing(job: _Job, parts: Parts, ledger: Ledger, held: Held, backbones: Mapping[str, Backbone]) -> int:
    """Compute and commit the units that are not there yet; return how many images that were."""
    plan = parts.plan
    first, step = job.settings.shard or (1, 1)
    ours = [number for number in range(first - 1, plan.n_units, step) if not held.is_whole(number)]
    for number, found in parts.check(ours):
        if found is not None:
            ledger.enter(number, found)
    _require_few(ledger, job.settings, plan, job.root)
    missing = [held.unit(number) for number in ours if number not in ledger.done]
    n_missing = sum(unit.n_images for unit in missing)
    n_computed = 0
    job.progress(job.split, len(plan.ids) - n_missing, len(plan.ids))
    look_at_first = not ledger.done and not plan.anew
    with contextlib.closing(_computed(job, parts, held, backbones, missing, look_at_first=look_at_first)) as done:
        for unit, rows in done:
            ledger.enter(unit.number, rows)
            n_computed += unit.n_images
            job.progress(job.split, len(plan.ids) - n_missing + n_computed, len(plan.ids))
            _require_few(ledger, job.settings, plan, job.root)
    return n_computed


def _computed(
    job: _Job,
    parts: Parts,
    held: Held,
    backbones: Mapping[str, Backbone],
    missing: Sequence[Unit],
    *,
    look_at_first: bool,
) -> Generator[tuple[Unit, Rows]]:
    """Yield units as they are committed, by this process or by a cluster's actors."""
    if job.session is None:
        here = Computation(job.root, parts, held, job.reading, job.settings, backbones)
        yield from here.units(missing, job.flag.check, look_at_first=look_at_first)
        return
    units = {unit.number: unit for unit in missing}
    share = Share.of(parts, path=job.path, where=job.root.where, reading=job.reading, settings=job.settings)
    for number, rows in job.session.units(share, parts, list(units), look_at_first=look_at_first):
        yield units[number], rows


def _require_few(ledger: Ledger, settings: FeaturizeSettings, plan: Plan, root: Place) -> None:
    if not settings.allows(len(ledger.reasons), len(plan.ids)):
        shown = "\n".join(f"  {line}" for line in ledger.bad[:20])
        msg = (
            f"{root}: {len(ledger.reasons)} of the images read so far cannot be used, above --max-bad {settings.max_bad:g} "
            f"of {len(plan.ids)}:\n{shown}\nMend or remove them and add --overwrite, or raise --max-bad to go on"
        )
        raise TooManyBadImages(msg)


def _summary(job: _Job, *, n_computed: int, began: float, notes: Counter[str]) -> SplitSummary:
    with FeatureCache(job.path) as cache:
        return SplitSummary(
            split=job.split,
            path=job.path,
            n_images=cache.n_images,
            n_views=cache.n_views,
            n_columns=cache.n_columns,
            n_bytes=cache.seal.n_bytes,
            n_computed=n_computed,
            n_quarantined=int((~cache.good).sum()),
            wall_s=time.monotonic() - began,
            notes=dict(notes),
        )


def _unfinished(
    job: _Job, plan: Plan, *, n_computed: int, n_waiting: int, began: float, notes: Counter[str]
) -> SplitSummary:
    """Sum up what a shard did that leaves parts to others."""
    return SplitSummary(
        split=job.split,
        path=job.path,
        n_images=len(plan.ids),
        n_views=plan.n_views,
        n_columns=plan.n_columns,
        n_bytes=0,
        n_computed=n_computed,
        n_quarantined=0,
        wall_s=time.monotonic() - began,
        notes=dict(notes),
        n_waiting=n_waiting,
    )
