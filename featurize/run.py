"""The story of `cli featurize`: every image once through every network, and the vectors kept."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections import Counter
from pathlib import Path

from features_cache.errors import (
    CacheError,
    ImageChanged,
    OutputExists,
    PermafeatError,
    Refused,
    TooManyBadImages,
    WeightsMismatch,
    listed,
)
from features_cache.files import remove_leftovers
from features_cache.layout import Rows
from features_cache.parts import Parts
from features_cache.plan import Plan, plan_in, require_same_recipes, require_same_work, settle_plan
from features_cache.progress import Progress, silent
from features_cache.reader import FeatureCache
from features_cache.status import Status
from features_cache.writer import parts_folder, publish_cache
from featurize.backbones import Backbone
from featurize.engine import Engine
from featurize.interrupt import StopFlag, stop_on_signals
from featurize.pipeline import Reader, compute_unit, first_unit_fault
from featurize.provenance import changed_images, same_bytes, write_provenance, write_quarantine
from featurize.settings import FeaturizeSettings
from featurize.summary import SplitSummary, Summary
from featurize.work import Work, plan_work, require_space


def featurize(settings: FeaturizeSettings, *, progress: Progress = silent) -> Summary:
    """Compute and publish the features of the training and test images.

    Killed at any moment and called again, it goes on; a complete cache has nothing to compute.

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
    with stop_on_signals() as flag:
        work = plan_work(settings)
        jobs = [
            _Job(split, settings.out / f"{split}.h5", manifest.root, work.plans[split], settings, flag, progress)
            for split, manifest in work.manifests.items()
        ]
        to_do = _jobs_to_do(jobs)
        splits = tuple(_featurize_split(job, work, missing=job in to_do) for job in jobs)
    warnings = [text for manifest in work.manifests.values() for text in manifest.warnings]
    warnings += same_bytes([job.path for job in jobs])
    return Summary(splits=splits, warnings=tuple(warnings), random_weights=work.random_weights)


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """One split to be featurized: where from, where to, what, how, and who is told."""

    split: str
    path: Path
    root: Path
    wanted: Plan
    settings: FeaturizeSettings
    flag: StopFlag
    progress: Progress


def _jobs_to_do(jobs: list[_Job]) -> list[_Job]:
    """Find the splits that have to be computed, wholly or in part.

    ``--overwrite`` means all of them, unless an earlier ``--overwrite`` was stopped on the way: what that one finished
    stays, what it left is taken up. Its mark is a plan for every split that it still owes.
    """
    if not any(job.settings.overwrite for job in jobs):
        return [job for job in jobs if not job.path.exists()]
    if any(_is_owed(job) for job in jobs):
        return [job for job in jobs if _is_owed(job) or not _is_complete(job)]
    for job in jobs:
        shutil.rmtree(parts_folder(job.path), ignore_errors=True)
        settle_plan(parts_folder(job.path), job.wanted)
    return jobs


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
        _require_complete(job)
    except PermafeatError:
        return False
    return True


def _featurize_split(job: _Job, work: Work, *, missing: bool) -> SplitSummary:
    began = time.monotonic()
    job.flag.check()
    if not missing:
        _require_complete(job)
        if _is_owed(job) and not job.settings.overwrite:
            # Killed between publishing and tidying up.
            parts = Parts(parts_folder(job.path), plan_in(parts_folder(job.path)) or job.wanted)
            write_quarantine(job.path, parts)
            parts.remove()
        job.progress(job.split, len(job.wanted.ids), len(job.wanted.ids))
        return _summary(job, n_computed=0, began=began, notes=Counter())
    require_space(job.settings.out, job.wanted, parts_folder(job.path))
    backbones = work.build()
    plan = settle_plan(parts_folder(job.path), job.wanted)
    remove_leftovers(parts_folder(job.path))
    parts = Parts(parts_folder(job.path), plan)
    n_computed, notes = _compute_missing(job, parts, backbones)
    publish_cache(job.path, parts, replace=job.settings.overwrite)
    write_quarantine(job.path, parts)
    wall_s = time.monotonic() - began
    write_provenance(job.path, plan, work.networks, n_computed=n_computed, wall_s=wall_s, notes=notes)
    parts.remove()
    return _summary(job, n_computed=n_computed, began=began, notes=notes)


def _require_complete(job: _Job) -> None:
    """Check that what stands at the output's place is a cache of these very images that holds all that is asked for."""
    path, wanted = job.path, job.wanted
    ways_out = "Type --overwrite to compute it anew, or choose another --out"
    try:
        cache = FeatureCache(path)
    except (CacheError, Refused) as error:
        msg = f"{error}. {ways_out}"
        raise OutputExists(msg) from error
    with cache:
        require_same_recipes(cache.blocks, wanted.blocks, f"{path}. {ways_out}")
        if cache.ids != wanted.ids:
            n_new, n_gone = len(set(wanted.ids) - set(cache.ids)), len(set(cache.ids) - set(wanted.ids))
            msg = f"{path}: holds other images ({n_new} are new, {n_gone} are gone). {ways_out}"
            raise OutputExists(msg)
        if cache.n_views < wanted.n_views:
            msg = f"{path}: holds {cache.n_views} views an image; {wanted.n_views} are asked for. {ways_out}"
            raise OutputExists(msg)
        changed = changed_images(cache, job.root, wanted, job.settings.max_pixels)
    if changed:
        msg = f"{path}: {len(changed)} images are not those that it was made from ({listed(changed)}). {ways_out}"
        raise ImageChanged(msg)


def _compute_missing(job: _Job, parts: Parts, backbones: list[Backbone]) -> tuple[int, Counter[str]]:
    """Compute and commit the units that are not there yet; return how many images that were, and their conversions."""
    plan = parts.plan
    bad: list[str] = []
    missing: list[int] = []
    notes: Counter[str] = Counter()
    for unit, rows in parts.check():
        if rows is None:
            missing.append(unit)
        else:
            bad += _bad_images(plan, unit, rows)
            notes += Counter(rows.conversions)
    _require_few(bad, job.settings.max_bad, plan, job.root)
    n_found = len(plan.ids) - sum(len(plan.rows_of(unit)) for unit in missing)
    n_computed = 0
    job.progress(job.split, n_found, len(plan.ids))
    n_workers = job.settings.n_workers or min(4, os.cpu_count() or 1)
    reader = Reader(job.root, plan, max_pixels=job.settings.max_pixels, n_workers=n_workers)
    engine = Engine(backbones, plan)
    for unit, images in reader.units(missing):
        rows = compute_unit(plan, unit, images, engine, job.flag.check)
        fault = first_unit_fault(plan, rows) if n_found + n_computed == 0 else None
        if fault:
            raise WeightsMismatch(fault)
        parts.commit(unit, rows)
        n_computed += len(rows.status)
        notes += Counter(rows.conversions)
        bad += _bad_images(plan, unit, rows)
        job.progress(job.split, n_found + n_computed, len(plan.ids))
        _require_few(bad, job.settings.max_bad, plan, job.root)
    return n_computed, notes


def _bad_images(plan: Plan, unit: int, rows: Rows) -> list[str]:
    return [
        f"{plan.ids[row]}: {reason}"
        for row, code, reason in zip(plan.rows_of(unit), rows.status, rows.reasons, strict=True)
        if code != Status.GOOD
    ]


def _require_few(bad: list[str], max_bad: float, plan: Plan, root: Path) -> None:
    if len(bad) > max(1, max_bad * len(plan.ids)):
        shown = "\n".join(f"  {line}" for line in bad[:20])
        msg = (
            f"{root}: {len(bad)} of the images read so far cannot be used, above --max-bad {max_bad:g} "
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
