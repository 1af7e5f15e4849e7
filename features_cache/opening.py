"""Open a cache's file, or say why not."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

from features_cache.errors import CacheIncomplete, CacheMissing, ForeignCache, UnsafeFile
from features_cache.files import open_regular
from features_cache.plan import parts_folder


def _absent(path: Path) -> Exception:
    if parts_folder(path).is_dir():
        msg = f"{path}: not finished ({parts_folder(path)} holds its parts); run `cli featurize` again to resume"
        return CacheIncomplete(msg)
    msg = f"{path}: no such cache; run `cli featurize` first, or name one with --features"
    return CacheMissing(msg)


def opened(path: Path) -> BufferedReader:
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
        if path.is_dir():
            msg = f"{path}: a folder; expected a cache (*.h5)"
            raise CacheMissing(msg)
        return open_regular(path)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except UnsafeFile as error:
        raise ForeignCache(str(error)) from error
    except OSError as error:
        msg = f"{path}: cannot be opened ({error.strerror}); expected a cache (*.h5) that you may read"
        raise CacheMissing(msg) from error
