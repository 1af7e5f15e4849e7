"""Ctrl-C and its kin: the first signal ends the run cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from features_cache.errors import StoppedBySignal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED_TWICE = 130


class StopFlag:
    """Remembers the first signal.

    Parameters
    ----------
    consequence : str
        What a stop means, for the message.

    Attributes
    ----------
    name : str
        The signal; empty while there was none.
    """

    def __init__(self, consequence: str = "") -> None:
        self.name = ""
        self._consequence = consequence

    def check(self) -> None:
        """Raise ``StoppedBySignal`` if a signal came; call it where stopping loses least."""
        if self.name:
            msg = f"stopped by {self.name}; {self._consequence}"
            raise StoppedBySignal(msg)

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Remember the first signal, end the process at the second."""
        if self.name:
            os._exit(INTERRUPTED_TWICE)
        self.name = signal.Signals(number).name


@contextmanager
def stop_on_signals(
    consequence: str = "what was committed is safe. Type the same command again to go on",
) -> Iterator[StopFlag]:
    """Turn SIGINT, SIGTERM and SIGHUP into a flag while the block runs (main thread only; elsewhere the flag stays down)."""
    flag = StopFlag(consequence)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    # What nohup or a shell told the process to ignore stays ignored.
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, flag.receive) for number in wanted}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
