"""Asking a store again, where that may help."""

from __future__ import annotations

import enum
import random
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from features_cache.errors import PermafeatError
from features_cache.urls import without_secrets
from featurize.images.bad_image import BadImage

_N_TRIES = 6
_FIRST_WAIT_S = 0.5
_MISSING, _DENIED = (404, 410), (401, 403, 407)
# What was decided already, and what is a program's mistake and not a store's.
_NOT_THE_STORES = (PermafeatError, BadImage, AttributeError, NameError, TypeError)
Words = ParamSpec("Words")
Answer = TypeVar("Answer")


class Fault(enum.Enum):
    """Why a store gave no answer."""

    MISSING = "not there"
    DENIED = "not for us"
    REFUSED = "asked what it cannot answer"
    DAMAGED = "an archive that cannot be read"
    PASSING = "may answer the next time"


class NoAnswer(Exception):
    """A store that gave no answer.

    Its own error is not kept, not even as a cause: a traceback would show the credentials in its text.

    Parameters
    ----------
    fault : Fault
    said : str
        What it said, in one line, without the secrets of URLs, and how often it was asked.
    """

    def __init__(self, fault: Fault, said: str) -> None:
        super().__init__(said)
        self.fault = fault


def fault_of(error: Exception) -> Fault:
    """Tell what an error of a file system means. Each library has its own; what is not known to last may pass.

    Examples
    --------
    >>> fault_of(FileNotFoundError()).name, fault_of(PermissionError()).name, fault_of(ConnectionError()).name
    ('MISSING', 'DENIED', 'PASSING')
    """
    statuses = [getattr(error, name, None) for name in ("status", "code", "status_code")]
    is_missing = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
    if is_missing or any(status in _MISSING for status in statuses):
        return Fault.MISSING
    # Libraries without credentials say so before they ask, by errors of their own.
    is_denied = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
    if is_denied or any(status in _DENIED for status in statuses):
        return Fault.DENIED
    if isinstance(error, zipfile.BadZipFile | tarfile.ReadError | zlib.error):
        return Fault.DAMAGED
    return Fault.REFUSED if isinstance(error, ValueError | NotImplementedError | ImportError) else Fault.PASSING


def waits_s() -> Iterator[float]:
    """Yield the seconds between one try and the next: twice as many each time, up to half of them left to chance.

    Threads that failed together had better not come back together.
    """
    for number in range(_N_TRIES - 1):
        yield _FIRST_WAIT_S * 2**number * random.uniform(0.5, 1)  # noqa: S311 - nobody gains by guessing it


def ask(question: Callable[Words, Answer], *args: Words.args, **kwargs: Words.kwargs) -> Answer:
    """Call a function until it answers, six times at most, within 8 to 16 seconds and what the calls take.

    Parameters
    ----------
    question : callable
    args, kwargs
        Its own.

    Returns
    -------
    object
        What it returns.

    Raises
    ------
    NoAnswer
        At once for what will last, after the last try for what might have passed.
    """
    for wait_s in (*waits_s(), None):
        try:
            return question(*args, **kwargs)
        except _NOT_THE_STORES:
            raise
        except Exception as error:  # noqa: BLE001 - every library has errors of its own
            fault, said = fault_of(error), _words(error)
        if fault is not Fault.PASSING:
            raise NoAnswer(fault, said)
        if wait_s is not None:
            time.sleep(wait_s)
    raise NoAnswer(fault, f"{said}, {_N_TRIES} times")


def _words(error: Exception) -> str:
    said = without_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
