"""Open a cache's file, or say why not."""

from __future__ import annotations

import stat
from io import FileIO
from pathlib import Path

from features_cache.errors import CacheIncomplete, CacheMissing, ForeignCache
from features_cache.plan import parts_folder


def _absent(path: Path) -> Exception:
    if parts_folder(path).is_dir():
        msg = f"{path}: not finished ({parts_folder(path)} holds its parts); run `cli featurize` again to resume"
        return CacheIncomplete(msg)
    msg = f"{path}: no such cache; run `cli featurize` first, or name one with --features"
    return CacheMissing(msg)


def opened(path: Path) -> FileIO:
    """Open a file for reading, unbuffered.

    Raises
    ------
    CacheMissing
        If there is none, or it may not be read.
    CacheIncomplete
        If featurize has not finished it.
    ForeignCache
        If it is a pipe or a device.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            # To open a pipe would wait for its writer, for ever.
            msg = f"{path}: not a regular file (a pipe or device); refused. Expected a cache (*.h5)"
            raise ForeignCache(msg)
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except IsADirectoryError as error:
        msg = f"{path}: a folder; expected a cache (*.h5)"
        raise CacheMissing(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be opened ({error.strerror}); expected a cache (*.h5) that you may read"
        raise CacheMissing(msg) from error
