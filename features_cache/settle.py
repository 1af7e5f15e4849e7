"""A new plan meets the one that an unfinished run left: taken up where the work is the same, refused where it is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from features_cache.errors import CacheDamaged, ImageChanged, OutputExists, PermafeatError, RecipeMismatch, listed
from features_cache.files import DISK, Disk, publish
from features_cache.plan import PLAN_NAME, QUARANTINE, Plan, plan_in
from features_cache.recipe import Block, recipe_differences, show_differences

_LINES_A_WRITE = 1000


def settle_plan(folder: Path, wanted: Plan, *, shared: bool = False, disk: Disk = DISK) -> Plan:
    """Publish a plan, or take up the one that an unfinished run left.

    A run that goes on keeps the earlier unit size and execution, whatever this process would have chosen.

    Parameters
    ----------
    folder : Path
        Where parts lie.
    wanted : Plan
        What this process would do.
    shared : bool
        Whether other processes work on the same plan: then it binds even before anything was committed.
    disk : Disk
        The system calls.

    Returns
    -------
    Plan
        The plan to follow.

    Raises
    ------
    ImageChanged
        If an image, or its parent, is not what it was when the plan was made.
    RecipeMismatch, OutputExists
        If the unfinished run was asked for other features, images or views.
    """
    found = _sound_plan_in(folder, disk)
    binds = found is not None and (shared or any(folder.glob(f"*-{found.mark}.h5")))
    if (
        found is not None
        and not binds
        and (found.execution != wanted.execution or not _is_same_work(found, wanted, folder))
    ):
        # Nothing was committed under the earlier plan: it binds nobody.
        disk.unlink(folder / PLAN_NAME)
        found = None
    if found is None:
        if publish(folder / PLAN_NAME, _joined(wanted.file_lines()), disk=disk):
            return wanted
        # Another writer came first: both follow the plan that stands.
        found = plan_in(folder) or wanted
    require_same_work(found, wanted, folder)
    return found


def _is_same_work(found: Plan, wanted: Plan, folder: Path) -> bool:
    try:
        require_same_work(found, wanted, folder)
    except PermafeatError:
        return False
    return True


def _sound_plan_in(folder: Path, disk: Disk) -> Plan | None:
    """Read a plan; a damaged one is set aside, as the parts outlive it wherever the same plan is made again."""
    try:
        return plan_in(folder)
    except CacheDamaged:
        aside = folder / QUARANTINE
        disk.make_folder(aside)
        disk.replace(folder / PLAN_NAME, aside / PLAN_NAME)
        disk.fsync_folder(folder)
        return None


def require_same_work(found: Plan, wanted: Plan, folder: Path) -> None:
    """Check that an unfinished run is for the work that is asked for now.

    Raises
    ------
    ImageChanged, RecipeMismatch, OutputExists
        As :func:`settle_plan`.
    """
    ways_out = f"Finish it with its own options, or remove {folder} to give it up, or begin anew with --overwrite, or choose another --out"
    require_same_recipes(found.blocks, wanted.blocks, f"the unfinished run. {ways_out}")
    if found.blocks != wanted.blocks:
        began, now = (",".join(block.name for block in blocks) for blocks in (found.blocks, wanted.blocks))
        msg = f"the unfinished run has the blocks {began}; {now} are asked for. {ways_out}"
        raise OutputExists(msg)
    if found.execution.device != wanted.execution.device:
        began, now = found.execution.device, wanted.execution.device
        msg = f"the unfinished run began with --device {began}; this one would go on with {now}. {ways_out}"
        raise OutputExists(msg)
    if found.execution.runtime != wanted.execution.runtime:
        began, now = found.execution.runtime, wanted.execution.runtime
        msg = f"the unfinished run began with --runtime {began}; this one would go on with {now}. {ways_out}"
        raise OutputExists(msg)
    if found.n_views != wanted.n_views:
        msg = f"the unfinished run makes {found.n_views} views an image; {wanted.n_views} are asked for. {ways_out}"
        raise OutputExists(msg)
    if found.ids != wanted.ids:
        n_new, n_gone = len(set(wanted.ids) - set(found.ids)), len(set(found.ids) - set(wanted.ids))
        msg = f"the unfinished run has other images ({n_new} are new, {n_gone} are gone). {ways_out}"
        raise OutputExists(msg)
    if found.parents != wanted.parents:
        msg = f"the unfinished run knows other parents of the same images. {ways_out}"
        raise ImageChanged(msg)
    if (found.base, found.anew) != (wanted.base, wanted.anew):
        msg = f"the unfinished run extends another file than the one that stands there now, or repairs other rows. {ways_out}"
        raise OutputExists(msg)
    changed = [
        image_id for image_id, old, new in zip(found.ids, found.sources, wanted.sources, strict=True) if old != new
    ]
    if changed:
        msg = (
            f"{len(changed)} images changed since the run began: {listed(changed)}. Put the files back as they were, "
            f"or begin anew with --overwrite"
        )
        raise ImageChanged(msg)


def require_same_recipes(found: tuple[Block, ...], wanted: tuple[Block, ...], where: str) -> None:
    """Check that every wanted block is there with the same recipe.

    Raises
    ------
    RecipeMismatch
        If one is missing or differs; differing fields are shown side by side.
    """
    there = {block.name: block for block in found}
    for block in wanted:
        if block.name not in there:
            msg = f"block {block.name!r} is asked for; found only {', '.join(there)} in {where}"
            raise RecipeMismatch(msg)
        differences = recipe_differences(block.recipe, there[block.name].recipe)
        if differences:
            shown = show_differences(differences, "asked for", "found")
            msg = f"block {block.name!r} has another recipe in {where}:\n{shown}"
            raise RecipeMismatch(msg)


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to pieces that are worth a write."""
    rest = iter(lines)
    while piece := b"".join(itertools.islice(rest, _LINES_A_WRITE)):
        yield piece
