"""Arrays that memory has no room for, in files without a name: they are gone when nobody needs them, or the process ends."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import CacheDamaged, DiskFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Scratch:
    """Bytes on a disk, written and read where one says.

    Parameters
    ----------
    folder : Path
        On a disk that has room for them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor, name = tempfile.mkstemp(prefix=".permafeat-scratch-", dir=folder)
        # Without a name before anything is in it: whatever ends the process, nothing stays behind.
        Path(name).unlink()
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, array: NDArray[Any], at: int) -> None:
        """Write an array's bytes.

        Raises
        ------
        DiskFull
            If there is no room.
        """
        left = np.ascontiguousarray(array).reshape(-1).data.cast("B")
        while left:
            try:
                n_written = os.pwrite(self._descriptor, left, at)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                msg = f"{self._folder}: no space left for what has no room in memory; make room, and type the command again"
                raise DiskFull(msg) from error
            left, at = left[n_written:], at + n_written

    def read(self, out: NDArray[Any], at: int) -> None:
        """Fill an array, C-ordered, with the bytes that were written.

        Raises
        ------
        CacheDamaged
            If they are not there.
        """
        left = out.reshape(-1).data.cast("B")
        while left:
            n_read = os.preadv(self._descriptor, [left], at)
            if n_read == 0:
                msg = f"{self._folder}: a file of this run was cut while it was in use; type the command again"
                raise CacheDamaged(msg)
            left, at = left[n_read:], at + n_read
