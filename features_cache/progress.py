"""How far a long command is: what it tells, and the bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are (0: not known)."""


def silent(_what: str, _n_done: int, _n_total: int) -> None:
    """Show nothing."""


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Show progress on stderr, with rate and time left; nothing without a terminal, or where quiet is wanted."""
    # Imported here: `cli --help` does without.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, n_done: int, n_total: int) -> None:
            if what not in tasks:
                # Work done by an earlier run is where the bar starts, and no speed of this one.
                tasks[what] = bar.add_task(what, total=n_total or None, completed=n_done, rate="")
            task = next(task for task in bar.tasks if task.id == tasks[what])
            bar.update(task.id, completed=n_done, rate=f"{task.speed:.1f}/s" if task.speed else "")

        yield show
