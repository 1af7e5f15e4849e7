"""URLs in the place of paths: told from them, kept whole, and shown without what they keep secret."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from features_cache.errors import OptionError

_URL = re.compile(r"(?:[a-z][\w+.-]*::)*[a-z][\w+.-]+://", re.IGNORECASE)
_ONCE_A_URL = re.compile(r"(?:[a-z][\w+.-]*::)*([a-z][\w+.-]+):/(?!/)", re.IGNORECASE)
_HERE = ("file://", "local://")


@dataclasses.dataclass(frozen=True, slots=True)
class Url:
    """A place that is no folder of this machine.

    Parameters
    ----------
    full : str
        As it was typed, credentials included: for whoever opens it, and never to be shown.
    """

    full: str

    def __str__(self) -> str:
        return without_secrets(self.full)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"


def is_url(text: str) -> bool:
    """Tell a URL from a path.

    Examples
    --------
    >>> is_url("s3://bucket/train"), is_url("simplecache::gs://bucket/train"), is_url("data/train")
    (True, True, False)
    """
    return _URL.match(text) is not None


def path_or_url(text: str) -> Path | Url:
    """Read the place of images as it was typed; a ``file://`` URL is the folder that it names.

    Examples
    --------
    >>> path_or_url("s3://bucket//train")
    Url('s3://bucket//train')
    >>> path_or_url("file:///data/train").as_posix(), path_or_url("file://localhost/data/train").as_posix()
    ('/data/train', '/data/train')
    """
    for here in _HERE:
        if text.lower().startswith(here):
            rest = text[len(here) :]
            return Path(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    return Url(text) if is_url(text) else Path(text)


def require_local(flag: str, path: Path) -> None:
    """Check that a path is none: as a path, a URL loses a slash, and would become a folder of an odd name.

    Raises
    ------
    OptionError
        If it was typed as a URL.
    """
    typed = str(path)
    if scheme := _ONCE_A_URL.match(typed):
        url = without_secrets(typed[: scheme.end()] + "/" + typed[scheme.end() :])
        msg = f"{flag} {url}: a URL; expected a path on this machine. Only --train-images and --test-images may be URLs"
        raise OptionError(msg)


def without_secrets(text: str) -> str:
    """Take user names, passwords and signed queries out of the URLs in a text.

    Examples
    --------
    >>> without_secrets("403: https://me:pw@host/train/a.png?sig=0f1e2d")
    '403: https://host/train/a.png?...'
    >>> without_secrets("ftp://me:p/w@host/a, http://host:80/a@2x.png")
    'ftp://host/a, http://host:80/a@2x.png'
    """
    # A password may hold a slash that nobody escaped; a number between a colon and a slash is a port.
    anonymous = re.sub(r"://(?:[^/\s@:]*:(?!\d+/)[^\s@]*|[^/\s]*)@", "://", text)
    return re.sub(r"(://[^\s?'\"]*\?)[^\s'\"]*?(?=::|[\s'\"]|$)", r"\1...", anonymous)
