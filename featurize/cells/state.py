"""What stands in the folder of crops already, and whether a run may go on with it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from features_cache.errors import OutputExists, RecipeMismatch
from features_cache.extras import installed_version
from features_cache.files import DISK, failures_told, make_folders, publish
from features_cache.folders import discard_folder
from featurize.crop_folder import STATE, outputs
from featurize.images.settings import SPLITS

_FORMAT = "permafeat-cells"
_MAKING = ".making"
_LIBRARIES = ("permafeat", "numpy", "scipy", "scikit-image", "pillow")
WAYS_OUT = "Type --overwrite to begin anew, or choose another --out"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What ``cells.json`` says.

    Parameters
    ----------
    rules : dict
        What moves a byte of crops and tables: the settings, and the version of the rules.
    sources : dict of str to str
        A digest of names, sizes and times of each split's files: where it is the same, no file has to be read.
    finished : bool
        Whether every split had its tables; an ``--overwrite`` that was stopped is taken up where it is not.
    """

    rules: Mapping[str, Any]
    sources: Mapping[str, str]
    finished: bool


def read_state(out: Path) -> State | None:
    """Read ``cells.json``; None where there is none.

    Raises
    ------
    OutputExists
        If it is not one of ours.
    """
    path = out / STATE
    try:
        found = json.loads(path.read_bytes())
        state = State(rules=dict(found["rules"]), sources=dict(found["sources"]), finished=bool(found["finished"]))
        is_ours = found["format"] == _FORMAT
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        msg = f"{path}: not what `cli cells` wrote; remove it with the crops beside it, or choose another --out"
        raise OutputExists(msg)
    return state


def write_state(out: Path, state: State) -> None:
    """Write ``cells.json``, with the versions of the libraries that the crops were made with."""
    record = {
        "format": _FORMAT,
        **dataclasses.asdict(state),
        "made_with": {name: installed_version(name) for name in _LIBRARIES},
    }
    publish(out / STATE, [(json.dumps(record, indent=1) + "\n").encode()], replace=True)


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[Path]:
    """Hold the folder of crops for this process, and clear away what a killed one left in the making.

    Yields
    ------
    Path
        The folder in which others are made; gone at the end.

    Raises
    ------
    OutputExists
        If another process is at work there.
    """
    making = out / _MAKING
    with failures_told(making):
        make_folders(making, DISK)
        descriptor = os.open(making, os.O_RDONLY)
    try:
        if not _lock(descriptor, making, out):
            yield making  # a file system without locks: whoever else is at work there keeps what is in the making
            return
        _clear(making)
        try:
            yield making
        finally:
            _clear(making)
            with contextlib.suppress(OSError):
                making.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, making: Path, out: Path) -> bool:
    """Lock a folder for this process; False where the file system has no locks."""
    taken = f"{out}: another `cli cells` is at work there; wait for it, or choose another --out"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputExists(taken) from error
    except OSError:
        return False
    # Between opening and locking, whoever held it may have ended and removed it: the lock of a folder without a name guards nothing.
    try:
        is_there = os.path.samestat(os.fstat(descriptor), making.stat())
    except FileNotFoundError:
        is_there = False
    if not is_there:
        raise OutputExists(taken)
    return True


def _clear(making: Path) -> None:
    for path in making.iterdir():
        if path.is_dir():
            DISK.remove_tree(path)
        else:
            DISK.unlink(path)


def require_ours(out: Path, known: Container[str]) -> None:
    """Check that nothing of other origin has a name that will be used, or removed.

    Parameters
    ----------
    out : Path
    known : container of str
        The splits that ``cells.json`` speaks of; of the others nothing may stand.

    Raises
    ------
    OutputExists
        If something does; ``--overwrite`` does not help, as it might be the images themselves.
    """
    for split in SPLITS:
        for path in () if split in known else outputs(out, split):
            if path.exists() or path.is_symlink():
                msg = f"{path}: exists, and no {out / STATE} says that `cli cells` made it; choose another --out"
                raise OutputExists(msg)


def require_same_rules(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that crops were made by the rules asked for.

    Raises
    ------
    RecipeMismatch
        If not; the message names what differs.
    """
    differing: Sequence[str] = [
        f"{name}: {_shown(wanted.get(name))} asked for, {_shown(found.get(name))} found"
        for name in sorted({*found, *wanted})
        if wanted.get(name) != found.get(name)
    ]
    if differing:
        msg = f"{out / STATE}: made by other settings ({'; '.join(differing)}). {WAYS_OUT}"
        raise RecipeMismatch(msg)


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a setting holds
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def discard_all(out: Path, making: Path) -> None:
    """Remove what ``cli cells`` made: the tables first, so that none of them ever speaks of crops that are gone."""
    for split in SPLITS:
        *tables, crops = outputs(out, split)
        for path in tables:
            path.unlink(missing_ok=True)
        discard_folder(crops, making=making)
