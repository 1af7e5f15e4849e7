"""Sums over the cells of a problem, kept on a disk: of thousands of columns, all of them together are larger than the interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from heads.moments import Moments
from heads.scratch import Scratch

_SUMS = ("together", "total", "products")


class StoredMoments:
    """The moments of each cell, in a file.

    Parameters
    ----------
    parts : iterable of Moments
        Of cells 0, 1, 2, ...; each is dropped once it is written.
    folder : Path
        On a disk that has room for them.
    """

    def __init__(self, parts: Iterable[Moments], folder: Path) -> None:
        self._scratch = Scratch(folder)
        self._like: Moments | None = None
        self._n_bytes = 0
        for cell, part in enumerate(parts):
            at = cell * self._n_bytes
            for name in _SUMS:
                values = getattr(part, name).cpu().numpy()
                self._scratch.write(values, at)
                at += values.nbytes
            if self._like is None:
                self._n_bytes = at
                nothing = torch.empty(0)
                self._shapes = {name: getattr(part, name).shape for name in _SUMS}
                self._like = dataclasses.replace(part, together=nothing, total=nothing, products=nothing)

    def total_of(self, cells: Collection[int]) -> Moments:
        """Add up the sums of some cells, in the order of :meth:`heads.moments.Moments.total_of`."""
        first, *others = sorted(cells)
        total = self._part(first)
        for other in others:
            part = self._part(other)
            for name in _SUMS:
                getattr(total, name).add_(getattr(part, name))
        return total

    def _part(self, cell: int) -> Moments:
        if self._like is None:
            msg = f"no sums over cell {cell} were written"
            raise KeyError(msg)
        at = cell * self._n_bytes
        read = []
        for name in _SUMS:
            values = torch.empty(self._shapes[name], dtype=torch.float64)
            self._scratch.read(values.numpy(), at)
            at += values.nbytes
            read.append(values.to(self._like.reference.device))
        together, total, products = read
        return dataclasses.replace(self._like, together=together, total=total, products=products)
