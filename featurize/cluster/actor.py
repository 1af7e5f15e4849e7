"""What Ray starts on the nodes: a process that keeps networks, and computes the units that it is given."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import PermafeatError
from featurize.cluster.share import Share, Told

if TYPE_CHECKING:
    from featurize.cluster.node import Node

# Nothing heavy is imported here: the driver reads this module and needs no network.


class Actor:
    """Computes units of one split; Ray starts it anew where it was lost.

    Parameters
    ----------
    share : Share
        The split.
    look_at_first : bool
        Whether the features of the first unit are looked at before anything is kept.
    """

    def __init__(self, share: Share, *, look_at_first: bool) -> None:
        self._share = share
        self._look_at_first = look_at_first
        self._node: Node | None = None

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
        """Compute and commit units, but for those whose parts are there.

        Parameters
        ----------
        batch : dict
            ``unit``: the units' numbers.

        Returns
        -------
        dict of str to array
            The fields of :class:`Told`, a row a unit; the last row may tell of an error.
        """
        told: list[Told] = []
        try:
            # Not in __init__, which Ray calls in another thread: each thread has its own number of OpenMP threads.
            if self._node is None:
                from featurize.cluster.node import Node

                self._node = Node(self._share)
            told += self._node.compute(batch["unit"].tolist(), look_at_first=self._look_at_first)
        except PermafeatError as error:
            told.append(Told.of(error))
        except Exception:  # noqa: BLE001 - raised from here, Ray would wrap it in pages of its own
            told.append(Told.of_own_fault(traceback.format_exc()))
        return {name: np.array(values) for name, values in zip(Told._fields, zip(*told, strict=True), strict=True)}
