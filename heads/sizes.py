"""Numbers that several modules must agree on: what is worked on at once, and what the plan of memory counts on.

Nothing is imported here, so that all can import it, and the plan of memory needs no torch.
"""

from __future__ import annotations

POWER = 0.5
"""Features x become ``sign(x) |x|^power``: of all heads, so that they share one copy of the rows and one pass of sums, and of the
space in which copies are looked for."""

CHUNK_ROWS = 8192
"""Rows that are looked at together, at most."""

PAIRS = 2**24
"""Pairs of a row and a kept image whose similarities are in memory at once: 64 MiB, never all rows with all images."""

MOST_COMPARED = 4000
"""Images that the space of copies is learned from, at most."""

COPY_DIRECTIONS = 128
"""Directions of the space of copies, at most."""

PIECE_VALUES = 2**24
"""Values of features that are mapped to the space of copies at once."""
