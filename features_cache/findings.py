"""What checks find, gathered instead of raised one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from features_cache.errors import PermafeatError, Refused

Kind = Literal["refused", "error", "warning", "note"]
_ORDER: tuple[Kind, ...] = ("refused", "error", "warning", "note")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    kind : {"refused", "error", "warning", "note"}
        Refused for safety; what stops a command; what does not; what is good to know.
    text : str
    """

    kind: Kind
    text: str

    @property
    def line(self) -> str:
        """Say it, for people."""
        return f"{self.kind}: {self.text}"


class Findings:
    """A list of findings that grows as checks are made."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def add(self, kind: Kind, texts: Iterable[str]) -> None:
        """Add findings of one kind."""
        self._found += [Finding(kind=kind, text=text) for text in texts]

    def join(self, others: Findings) -> None:
        """Add what other checks found."""
        self._found += others._found

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Gather the error that a check raises, and go on."""
        try:
            yield
        except PermafeatError as error:
            self.add("refused" if isinstance(error, Refused) else "error", [str(error)])

    @property
    def sorted(self) -> list[Finding]:
        """The gravest first, in the order found; each once."""
        return sorted(dict.fromkeys(self._found), key=lambda found: _ORDER.index(found.kind))

    @property
    def exit_code(self) -> int:
        """3 where something was refused, 2 where a command would stop, else 0."""
        kinds = {found.kind for found in self._found}
        return Refused.exit_code if "refused" in kinds else PermafeatError.exit_code if "error" in kinds else 0

    @property
    def lines(self) -> list[str]:
        """Say them, for people."""
        found = [each.line for each in self.sorted]
        n_bad = sum(each.kind in {"refused", "error"} for each in self.sorted)
        return [*found, f"{n_bad} errors" if n_bad else "nothing stands in the way"]

    def to_json(self) -> list[dict[str, Any]]:
        """Return them, for programs."""
        return [dataclasses.asdict(found) for found in self.sorted]
