"""Folders that appear whole or not at all, as published files do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from pathlib import Path

from features_cache.files import DISK, Disk, failures_told, make_folders, require_folder, temporary_name, write_all

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def publish_folder(path: Path, files: Iterable[tuple[str, bytes]], *, making: Path, disk: Disk = DISK) -> bool:
    """Write a folder of files so that it appears whole or not at all, and survives a power cut once this returns.

    Parameters
    ----------
    path : Path
        Where the folder appears.
    files : iterable of (str, bytes)
        Names within the folder, no two equal, and contents. Consumed once.
    making : Path
        Folder on the same file system in which it is made: what a killed writer leaves there must not be taken for the result.
        Who holds it clears it.
    disk : Disk
        The system calls.

    Returns
    -------
    bool
        False if another writer had published a folder of that name first; that one stays.

    Raises
    ------
    DiskFull
        No space or quota left. Nothing appears under the name.
    InputError
        The folder cannot be written to.
    """
    require_folder(path.parent)
    temporary = temporary_name(making / path.name)
    with failures_told(path):
        make_folders(temporary, disk)
        try:
            for name, content in files:
                _write(temporary / name, content, disk)
            disk.fsync_folder(temporary)
            make_folders(path.parent, disk)
            try:
                # A folder that is there and holds something is never replaced: the system refuses.
                disk.replace(temporary, path)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                return False
            disk.fsync_folder(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                disk.remove_tree(temporary)
    return True


def discard_folder(path: Path, *, making: Path, disk: Disk = DISK) -> None:
    """Remove a folder so that it is gone whole: half of one would be taken for all of it.

    Parameters
    ----------
    path : Path
        The folder; nothing happens where there is none.
    making : Path
        As of :func:`publish_folder`.
    disk : Disk
        The system calls.

    Raises
    ------
    InputError
        If it cannot be removed.
    """
    if not path.is_dir():
        return
    temporary = temporary_name(making / path.name)
    with failures_told(path):
        make_folders(making, disk)
        disk.replace(path, temporary)
        disk.fsync_folder(path.parent)
        disk.remove_tree(temporary)


def _write(path: Path, content: bytes, disk: Disk) -> None:
    descriptor = disk.create(path)
    try:
        write_all(disk, descriptor, memoryview(content))
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)
