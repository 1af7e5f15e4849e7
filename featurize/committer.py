"""Units committed in a thread of their own: while one is on its way to the disk, the networks are at the next."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from features_cache.errors import WeightsMismatch
from features_cache.extend import Unit
from features_cache.layout import Rows
from features_cache.parts import Parts
from featurize.units import StartedUnit, first_unit_fault


def committed(parts: Parts, started: Iterable[StartedUnit], *, look_at_first: bool) -> Generator[tuple[Unit, Rows]]:
    """Wait for units and commit them, one at a time and in order.

    Parameters
    ----------
    parts : Parts
        Where they go.
    started : iterable of StartedUnit
        Asked for the next while the one before is being committed.
    look_at_first : bool
        Whether the features of the first are looked at before anything is kept, and the second waits for that.

    Yields
    ------
    unit : Unit
    rows : Rows
        What it is from now on.

    Raises
    ------
    PermafeatError
        What stopped a commit.
    """
    # A stop waits for the unit that is being committed: it was computed already.
    with ThreadPoolExecutor(1, thread_name_prefix="commit") as pool:
        waiting: Future[tuple[Unit, Rows]] | None = None
        for unit in started:
            if waiting is not None:
                yield waiting.result()
            waiting = pool.submit(_commit, parts, unit, look_at=look_at_first)
            if look_at_first:
                yield waiting.result()
                waiting, look_at_first = None, False
        if waiting is not None:
            yield waiting.result()


def _commit(parts: Parts, started: StartedUnit, *, look_at: bool) -> tuple[Unit, Rows]:
    rows = started.rows()
    fault = first_unit_fault(rows, is_begun=bool(parts.plan.base)) if look_at else None
    if fault:
        raise WeightsMismatch(fault)
    if not parts.commit(started.unit.number, rows):
        # Another writer came first, perhaps with other last bits: its rows are what will be published.
        rows = parts.read(started.unit.number)
    return started.unit, rows
