"""The one place that makes bytes durable: build, write, fsync, publish.

A published file is whole or absent, at every moment and after a power cut, because its name appears only once its bytes are
on the disk. Nothing published is ever opened for writing again. Measurements behind this protocol: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from features_cache.errors import DiskFull, InputError, PermafeatError, UnsafeFile

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
_LEFT_FOR_DEAD_S = 3600.0
_FULL_FSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_TEMPORARY_PREFIX = ".permafeat-"


class Disk:
    """The system calls that the store makes, and no others; a test puts faults in by overriding one."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; fail if the name exists."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of the data; return how many bytes went."""
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write at an offset, leaving the position where it is."""
        return os.pwrite(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        """Return once the file's bytes are on the disk."""
        if _FULL_FSYNC is None:
            os.fsync(descriptor)
        else:  # macOS: fsync leaves the bytes in the drive's own memory
            fcntl.fcntl(descriptor, _FULL_FSYNC)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; fail if that name exists."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over whatever stands at the target."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent exists; nothing if it is there."""
        path.mkdir(exist_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all that is in it."""
        shutil.rmtree(path)

    def fsync_folder(self, path: Path) -> None:
        """Return once the folder's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK = Disk()


def publish(
    path: Path,
    chunks: Iterable[bytes | memoryview],
    *,
    head: Callable[[], bytes] | None = None,
    replace: bool = False,
    make_folder: bool = True,
    check: Callable[[Path], None] | None = None,
    disk: Disk = DISK,
) -> bool:
    """Write a file so that it appears whole or not at all, and survives a power cut once this returns.

    Parameters
    ----------
    path : Path
        Where the file appears.
    chunks : iterable of bytes
        The content, in order. Consumed once; may be larger than memory.
    head : callable, optional
        Asked after all chunks went for what to write over the first bytes: a checksum that is known only then.
    replace : bool
        Whether a file that already has the name gives way. Where it may not, the file that is there stays.
    make_folder : bool
        Whether the folder is made if need be; otherwise ``FileNotFoundError`` where there is none.
    check : callable, optional
        Given the written file before its name appears; what it raises keeps the name from appearing.
    disk : Disk
        The system calls.

    Returns
    -------
    bool
        False if another writer had published the name first (only without ``replace``).

    Raises
    ------
    DiskFull
        No space or quota left. Nothing appears under the name.
    InputError
        The folder cannot be written to.
    """
    with _named_when_done(path, replace=replace, disk=disk, make_folder=make_folder) as made:
        descriptor = disk.create(made.temporary)
        try:
            for chunk in chunks:
                write_all(disk, descriptor, memoryview(chunk))
            if head is not None:
                disk.write_at(descriptor, head(), 0)
            # A name published before this returned could show a torn file after a power cut.
            disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
        if check is not None:
            check(made.temporary)
    return made.published


def publish_written(path: Path, write: Callable[[Path], None], *, replace: bool = False, disk: Disk = DISK) -> bool:
    """Publish what another library writes, as :func:`publish` does.

    Parameters
    ----------
    path : Path
        Where the file appears.
    write : callable
        Given a temporary name in the same folder; leaves a file there.
    replace : bool
    disk : Disk
        As of :func:`publish`.

    Returns
    -------
    bool
        False if another file had the name already (only without ``replace``).

    Raises
    ------
    DiskFull, InputError
        As :func:`publish`.
    """
    with _named_when_done(path, replace=replace, disk=disk) as made:
        try:
            write(made.temporary)
        except OSError as error:
            if error.errno in _FULL:
                raise
            msg = f"{path}: cannot be written ({error.strerror or error}); choose another file with --out"
            raise InputError(msg) from error
        descriptor = os.open(made.temporary, os.O_RDWR)
        try:
            disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
    return made.published


def temporary_name(path: Path) -> Path:
    """Return a name beside a path that nobody else has, and that :func:`remove_leftovers` knows."""
    return path.with_name(f"{_TEMPORARY_PREFIX}{path.name[:100]}.{secrets.token_hex(8)}")


class _Made:
    """A file in the making."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.published = False


@contextlib.contextmanager
def _named_when_done(path: Path, *, replace: bool, disk: Disk, make_folder: bool = True) -> Iterator[_Made]:
    """Let a file be written under a temporary name, and give it its own when the block is through."""
    require_folder(path.parent)
    made = _Made(temporary_name(path))
    with failures_told(path):
        if make_folder:
            make_folders(path.parent, disk)
        try:
            yield made
            made.published = _give_name(disk, made.temporary, path, replace=replace)
        finally:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(made.temporary)


@contextlib.contextmanager
def failures_told(path: Path) -> Iterator[None]:
    """Turn what the disk refuses while something is written into a message that says what to type.

    Raises
    ------
    DiskFull
        No space or quota left.
    InputError
        The place cannot be written to.
    """
    try:
        yield
    except PermafeatError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            msg = f"{path}: {error.strerror}; free some space and type the same command again"
            raise DiskFull(msg) from error
        if error.errno in _FORBIDDEN:
            msg = f"{path}: cannot be written ({error.strerror}); choose another folder with --out"
            raise InputError(msg) from error
        raise


def require_folder(folder: Path) -> None:
    """Check that a folder is there, or can be made, and can be written to.

    Raises
    ------
    InputError
        If a file stands in its way, or it may not be written to.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        msg = f"{folder}: {nearest} is a file; expected a folder, or nothing. Choose another place with --out"
        raise InputError(msg)
    if not os.access(nearest, os.W_OK | os.X_OK):
        msg = f"{folder}: {nearest} may not be written to; choose another place with --out"
        raise InputError(msg)


def make_folders(folder: Path, disk: Disk) -> None:
    """Make a folder and those above it, each entry durable: a part in a folder that a power cut took is lost."""
    if not folder.is_dir():
        make_folders(folder.parent, disk)
        disk.make_folder(folder)
        disk.fsync_folder(folder.parent)


def write_all(disk: Disk, descriptor: int, data: memoryview) -> None:
    """Write data to its end, however little goes at a time."""
    data = data.cast("B")
    while data:
        n_written = disk.write(descriptor, data)
        if n_written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[n_written:]


def _give_name(disk: Disk, temporary: Path, path: Path, *, replace: bool) -> bool:
    published = True
    if replace:
        disk.replace(temporary, path)
    else:
        try:
            disk.link(temporary, path)
        except FileExistsError:
            published = False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # Without hard links put-if-absent cannot be atomic. Two writers of one part write the same bytes, so a rename
            # in between changes nothing; what stands there for longer is not replaced.
            published = not path.exists()
            if published:
                disk.replace(temporary, path)
    disk.fsync_folder(path.parent)
    return published


def remove_leftovers(folder: Path, *, disk: Disk = DISK) -> int:
    """Remove the temporary files and folders that killed writers left in a folder; return how many.

    Younger ones than an hour stay: another writer may be at work on them.
    """
    n_removed = 0
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_FOR_DEAD_S:
                if path.is_dir():
                    disk.remove_tree(path)
                else:
                    disk.unlink(path)
                n_removed += 1
    return n_removed


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, unless it is a pipe or a device: to open a pipe would wait for its writer, for ever.

    Raises
    ------
    UnsafeFile
        If it is no regular file.
    OSError
        As ``open``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    msg = f"{path}: not a regular file (a pipe or device); refused"
    raise UnsafeFile(msg)
