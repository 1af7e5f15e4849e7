"""How the C library hands out memory: work that makes and drops matrices of a hundred megabytes is better off keeping them."""

from __future__ import annotations

import ctypes

# From <malloc.h>; the second is a number of bytes, and an int.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, to be handed out again.

    Large blocks otherwise go back to the system at once, and the next ones come as pages that are cleared as they are touched. The
    process holds more at its peak; docs/PERFORMANCE.md has the figures.

    Returns
    -------
    bool
        Whether the C library knows how; glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
