"""All pairs of rows whose cosine is high enough, by blocks of products: memory does not grow with the square of the rows."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from heads.arrays import Float32, Float64, Indices

_BLOCK_ROWS = 2048
_CHECKED_AT_ONCE = 1 << 16
# Products of blocks of other shapes differ by less than this; pairs are decided by cosines that know of no block.
_ROUNDING = np.float32(1e-5)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlikePairs:
    """Pairs of rows, the most alike first.

    Parameters
    ----------
    places : int64 array, shape (n_pairs, 2)
        Rows; the first smaller than the second where rows are compared with each other.
    cosines : float64 array, shape (n_pairs,)
        Descending; equal ones in the order of their rows.
    truncated : bool
        Whether there were more pairs than were kept.
    """

    places: Indices
    cosines: Float64
    truncated: bool

    def __len__(self) -> int:
        return len(self.cosines)

    def first(self, n_pairs: int) -> AlikePairs:
        """Return the most alike."""
        return dataclasses.replace(self, places=self.places[:n_pairs], cosines=self.cosines[:n_pairs])


def alike_pairs(
    rows: Float32, others: Float32 | None = None, *, least: float, most: int, block_rows: int = _BLOCK_ROWS
) -> AlikePairs:
    """Find the pairs whose cosine is at least a given one.

    Parameters
    ----------
    rows : float32 array, shape (n_rows, n_directions)
        Of unit length (or zero).
    others : float32 array, shape (n_others, n_directions), optional
        Compared with rows; rows are compared with each other unless given.
    least : float
    most : int
        How many pairs to keep.
    block_rows : int
        A product has this many rows and columns at most; what is found does not depend on it.

    Returns
    -------
    AlikePairs
    """
    right = rows if others is None else others
    found = _Found(np.float32(least) - _ROUNDING, most)
    for top in range(0, len(rows), block_rows):
        for left in range(top if others is None else 0, len(right), block_rows):
            product = rows[top : top + block_rows] @ right[left : left + block_rows].T
            if others is None and left == top:
                # A row with itself, and the other half of its pairs.
                product[np.tril_indices(len(product))] = -2
            i, j = np.nonzero(product >= found.least)
            found.add(np.stack([i + top, j + left], axis=1), product[i, j])
    places = found.places()
    cosines = np.concatenate(
        [np.zeros(0)]
        + [
            (rows[part[:, 0]].astype(np.float64) * right[part[:, 1]]).sum(axis=1)
            for part in np.split(places, range(_CHECKED_AT_ONCE, len(places), _CHECKED_AT_ONCE))
        ]
    )
    enough = cosines >= least
    places, cosines = places[enough], cosines[enough]
    order = np.lexsort((places[:, 1], places[:, 0], -cosines))
    truncated = found.dropped or len(order) > most
    return AlikePairs(places=places[order[:most]], cosines=cosines[order[:most]], truncated=truncated)


class _Found:
    """Pairs found so far; the bar rises as soon as there are twice as many as may be kept."""

    def __init__(self, least: np.float32, most: int) -> None:
        self.least, self.dropped = least, False
        self._most = most
        self._places: list[Indices] = []
        self._cosines: list[Float32] = []
        self._count = 0

    def add(self, places: Indices, cosines: NDArray[np.float32]) -> None:
        """Take the pairs of a block."""
        self._places.append(places)
        self._cosines.append(cosines)
        self._count += len(cosines)
        if self._count <= 2 * self._most:
            return
        every, all_cosines = np.concatenate(self._places), np.concatenate(self._cosines)
        bar = np.partition(all_cosines, self._count - self._most)[self._count - self._most] - 2 * _ROUNDING
        self.least = max(self.least, bar)
        kept = all_cosines >= self.least
        self.dropped |= not kept.all()
        self._places, self._cosines = [every[kept]], [all_cosines[kept]]
        self._count = int(kept.sum())
        # Ties without end, as of a file copied a thousand times: any of them are as good as any.
        if self._count > 2 * self._most:
            self._places, self._cosines = [every[kept][: self._most]], [all_cosines[kept][: self._most]]
            self._count, self.dropped = self._most, True

    def places(self) -> Indices:
        """Return all that were kept, shape (n_pairs, 2)."""
        return np.concatenate([np.zeros((0, 2), np.int64), *self._places])
