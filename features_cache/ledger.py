"""What a run knows of its rows beside their features."""

from __future__ import annotations

from collections import Counter

import numpy as np

from features_cache.layout import HASH_BYTES, Rows, row_checksums
from features_cache.plan import Plan
from features_cache.status import Status


class Ledger:
    """Statuses, hashes, reasons and conversions of the units that are done, entered as each is found or committed.

    Parameters
    ----------
    plan : Plan
        Whose units.

    Attributes
    ----------
    status : uint8 array, shape (images,)
    content_hash, checksum : uint8 arrays, shape (images, 16)
        Of each image's bytes, and of its features.
    reasons : dict of int to str
        Why a row was quarantined.
    conversions : Counter
        How many images were converted, by rule.
    done : set of int
        Units that were entered.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.status = np.zeros(len(plan.ids), np.uint8)
        self.content_hash = np.zeros((len(plan.ids), HASH_BYTES), np.uint8)
        self.checksum = np.zeros((len(plan.ids), HASH_BYTES), np.uint8)
        self.reasons: dict[int, str] = {}
        self.conversions: Counter[str] = Counter()
        self.done: set[int] = set()

    def enter(self, unit: int, rows: Rows) -> None:
        """Take note of a unit; entered twice it counts once."""
        if unit in self.done:
            return
        here = self._plan.rows_of(unit)
        part = slice(here.start, here.stop)
        self.status[part] = rows.status
        self.content_hash[part] = rows.content_hash
        self.checksum[part] = row_checksums(rows.features)
        self.reasons |= {
            row: reason
            for row, code, reason in zip(here, rows.status, rows.reasons, strict=True)
            if code != Status.GOOD
        }
        self.conversions += Counter(rows.conversions)
        self.done.add(unit)

    @property
    def bad(self) -> list[str]:
        """``id: reason`` of each image without features, in row order."""
        return [f"{self._plan.ids[row]}: {reason}" for row, reason in sorted(self.reasons.items())]

    @property
    def missing(self) -> list[int]:
        """Units that were not entered, ascending."""
        return [unit for unit in range(self._plan.n_units) if unit not in self.done]
