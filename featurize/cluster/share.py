"""What a driver and its actors have to know of a split, and what they tell of its units."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

from features_cache import errors
from features_cache.errors import PermafeatError
from features_cache.extras import versions_here
from features_cache.parts import Parts
from features_cache.urls import Url
from featurize.images.reading import Reading
from featurize.settings import FeaturizeSettings

# Where weights are looked for: a cluster's nodes were not started from the shell that this process was.
_WEIGHTS_ENVIRONMENT = ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")


def _weights_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _WEIGHTS_ENVIRONMENT if name in os.environ}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A split whose units are to be computed, as every actor is told of it.

    Parameters
    ----------
    path : Path
        The cache; its plan and parts lie beside it.
    where : Path or Url
        Folder of the images.
    mark : str
        Of the plan, which each actor reads from the disk.
    device : str
        Where networks run.
    n_threads : int
        Threads of a network on a processor.
    reading : Reading
        How images are read.
    settings : FeaturizeSettings
    folder : Path
        Where relative paths begin.
    weights_environment : dict of str to str
        Variables of the environment that say where weights are.
    import_path : tuple of str
        Where Python looks for modules: networks of the user's own are found as they are here.
    versions : dict of str to str
        Of what decides the last bits.
    hardware : str
        What computes on the command's machine; units that other hardware computes get a note.
    """

    path: Path
    where: Path | Url
    mark: str
    device: str
    n_threads: int
    reading: Reading
    settings: FeaturizeSettings
    folder: Path = dataclasses.field(default_factory=Path.cwd)
    weights_environment: dict[str, str] = dataclasses.field(default_factory=_weights_environment)
    import_path: tuple[str, ...] = dataclasses.field(default_factory=lambda: tuple(sys.path))
    versions: dict[str, str] = dataclasses.field(default_factory=versions_here)
    hardware: str

    @classmethod
    def of(cls, parts: Parts, **fields: Any) -> Self:  # noqa: ANN401 - the fields above
        """Make a share of the work that leads to these parts."""
        from features_cache.hardware import hardware_name  # with torch, which the driver does without

        execution = parts.plan.execution
        hardware = hardware_name(execution.device)
        return cls(mark=parts.mark, device=execution.device, n_threads=execution.n_threads, hardware=hardware, **fields)


OWN_FAULT = "fault"


class Told(NamedTuple):
    """What an actor tells of a unit, or of what stopped it.

    Parameters
    ----------
    unit : int
        A unit whose part is there; -1 where there was an error.
    error : str
        Name of the class of an error; empty where there was none.
    message : str
        Its message.
    """

    unit: int
    error: str = ""
    message: str = ""

    @classmethod
    def of_own_fault(cls, trace: str) -> Self:
        """Tell of an error that is none of ours to name: no other try will mend it."""
        return cls(-1, error=OWN_FAULT, message=trace)

    @classmethod
    def of(cls, error: PermafeatError) -> Self:
        """Tell of an error, by words alone."""
        return cls(-1, error=type(error).__name__, message=str(error).encode("utf-8", "backslashreplace").decode())

    def check(self) -> None:
        """Raise the error, if it is one.

        Raises
        ------
        PermafeatError
            Of the class that the actor raised.
        RuntimeError
            If it was a fault of the program.
        """
        if self.error == OWN_FAULT:
            raise RuntimeError(self.message)
        if self.error:
            raised: type[PermafeatError] = getattr(errors, self.error)
            raise raised(self.message)
