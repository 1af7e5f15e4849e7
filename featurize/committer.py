"""Units committed in a thread of their own: while one is on its way to the disk, the networks are at the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from features_cache.errors import WeightsMismatch
from features_cache.layout import Rows
from features_cache.parts import Parts
from featurize.units import StartedUnit, first_unit_fault


class Committer:
    """Waits for units and commits them, one at a time, in the order in which they are put.

    Parameters
    ----------
    parts : Parts
        Where they go.
    is_first : callable
        Whether what comes next is the first unit of all, whose features are looked at before anything is kept.
    """

    def __init__(self, parts: Parts, is_first: Callable[[], bool]) -> None:
        self._parts, self._is_first = parts, is_first
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._waiting: Future[tuple[StartedUnit, Rows]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A stop waits for the unit that is being committed: it was computed already.
        self._pool.shutdown(wait=True)

    def put(self, started: StartedUnit) -> Iterator[tuple[StartedUnit, Rows]]:
        """Take a unit, once the one before it is committed; yield that one, as what it is from now on.

        Raises
        ------
        PermafeatError
            What stopped the commit of the one before.
        """
        yield from self.rest()
        self._waiting = self._pool.submit(self._commit, started)

    def rest(self) -> Iterator[tuple[StartedUnit, Rows]]:
        """Yield the unit that is on its way, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            yield waiting.result()

    def _commit(self, started: StartedUnit) -> tuple[StartedUnit, Rows]:
        rows = started.rows()
        plan = self._parts.plan
        fault = first_unit_fault(rows, is_begun=bool(plan.base)) if self._is_first() else None
        if fault:
            raise WeightsMismatch(fault)
        if not self._parts.commit(started.unit.number, rows):
            # Another writer came first, perhaps with other last bits: its rows are what will be published.
            rows = self._parts.read(started.unit.number)
        return started, rows
