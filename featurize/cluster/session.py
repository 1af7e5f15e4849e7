"""The process that speaks with Ray, from outside: begun when it is first needed, and ended with the run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from features_cache.errors import CacheIncomplete, ClusterLost
from features_cache.extras import require_extra
from features_cache.layout import Rows
from features_cache.parts import Parts
from featurize.cluster.driver import LOCAL, Round
from featurize.cluster.share import Share, Told

_POLL_S = 0.2
_GOODBYE_S = 20.0
# A network file system may show a part to another machine only after so long.
_APPEARS_WITHIN_S = 60.0


class Session:
    """A connection to Ray for the length of a run.

    Parameters
    ----------
    address : str or None
        Of a cluster; that in ``RAY_ADDRESS`` unless given, and without one Ray is started on this machine.
    n_actors : int or None
        As many as there is room for, unless given.
    check_stop : callable
        Raises when the run has to stop.

    Raises
    ------
    OptionError
        If Ray is not installed.
    """

    def __init__(self, address: str | None, n_actors: int | None, check_stop: Callable[[], None]) -> None:
        require_extra("ray", "ray", "--engine ray")
        self._address, self._named = _address(address)
        self._n_actors = n_actors
        self._check_stop = check_stop
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let actors and, if it was started here, Ray end; parts stay."""
        self._end()

    def _end(self) -> None:
        if self._process is None or self._connection is None or self._log is None:
            return
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._process = self._connection = self._log = None

    def connect(self) -> Connection[Any, Any]:
        """Reach the cluster, or start Ray here, unless that is done.

        Returns
        -------
        Connection
            To the process that speaks with Ray.

        Raises
        ------
        PermafeatError
            If there is no such cluster, or it refuses.
        """
        if self._connection is not None:
            return self._connection
        connection = self._begun()
        with self._ended_where_it_fails():
            for told in self._received(connection) or ():
                told.check()
        return connection

    def units(
        self, share: Share, parts: Parts, wanted: Sequence[int], *, look_at_first: bool
    ) -> Iterator[tuple[int, Rows]]:
        """Let units be computed, and read their parts as they come in.

        Parameters
        ----------
        share : Share
            Their split.
        parts : Parts
            Where they go.
        wanted : sequence of int
            Their numbers.
        look_at_first : bool
            Whether a single actor computes the first unit, and its features are looked at, before the others begin.

        Yields
        ------
        number : int
        rows : Rows

        Raises
        ------
        PermafeatError
            What an actor raised; or that a part cannot be read here.
        """
        late = []
        for round_units, look in ((wanted[:1], True), (wanted[1:], False)) if look_at_first else ((wanted, False),):
            for told in self._round(Round(share, round_units, self._n_actors, look)):
                told.check()
                rows = _rows_of(parts, told.unit)
                if rows is None:
                    late.append(told)
                else:
                    yield told.unit, rows
        for told in late:
            yield told.unit, self._appeared(parts, told.unit)

    def _round(self, wanted: Round) -> Iterator[Told]:
        if not wanted.units:
            return
        connection = self.connect()
        with self._ended_where_it_fails():  # the next round must not read what is still told of this one
            connection.send(wanted)
            while (told := self._received(connection)) is not None:
                yield from told

    @contextlib.contextmanager
    def _ended_where_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            msg = f"the connection to Ray was lost ({self._last_words()}); what was committed is safe. Type the same command again to go on"
            self._end()
            raise ClusterLost(msg) from error
        except BaseException:
            self._end()
            raise

    def _received(self, connection: Connection[Any, Any]) -> list[Told] | None:
        self._check_stop()
        while not connection.poll(_POLL_S):
            self._check_stop()
        told: list[Told] | str | None = connection.recv()
        if isinstance(told, str):
            msg = f"Ray failed; what was committed is safe. Type the same command again to go on. It said:\n{told}"
            raise ClusterLost(msg)
        return told

    def _begun(self) -> Connection[Any, Any]:
        ours, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        words = f"{theirs.fileno()}, {self._address!r}, {self._named!r}"
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", f"from featurize.cluster.driver import main; main({words})"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
            # Ctrl-C is for this process: it tells the other to end.
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path)},
        )
        theirs.close()
        self._connection = ours
        return ours

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return next(reversed(self._log.read().decode(errors="replace").splitlines()), "it said nothing")

    def _appeared(self, parts: Parts, unit: int) -> Rows:
        deadline = time.monotonic() + _APPEARS_WITHIN_S
        while (rows := _rows_of(parts, unit)) is None:
            self._check_stop()
            if time.monotonic() > deadline:
                msg = (
                    f"{parts.path_of(unit)}: an actor committed it, and it is not there after {_APPEARS_WITHIN_S:.0f} s; "
                    f"expected --out on a file system that all nodes share. Type the same command again to go on"
                )
                raise CacheIncomplete(msg)
            time.sleep(_POLL_S)
        return rows


def _address(given: str | None) -> tuple[str, str]:
    """Return the address of the cluster, and what names it in messages."""
    if given:
        return given, f"--address {given}"
    if found := os.environ.get("RAY_ADDRESS"):
        return found, f"RAY_ADDRESS={found}"
    return LOCAL, "--engine ray"


def _rows_of(parts: Parts, unit: int) -> Rows | None:
    return next(rows for _, rows in parts.check([unit]))
