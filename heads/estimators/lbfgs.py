"""L-BFGS that is told values and gradients, so that many searches can share each pass over the rows."""

from __future__ import annotations

from collections import deque

import torch

_MEMORY = 10
_ENOUGH = 1e-4
_SHORTEST = 1e-8


class LBFGS:
    """The search for the least value of a smooth convex function (Nocedal and Wright, 2006, algorithm 7.5).

    Ask ``trial`` for the point that is to be looked at, and tell its value and gradient, until ``is_done``.

    Parameters
    ----------
    start : float64 tensor
        The first trial.
    curvature : float
        A guess of the largest curvature, for the first step.
    tolerance : float
        Done where a step lowers the value by less than this share of it.
    max_steps : int
        Done after so many steps.

    Attributes
    ----------
    point : tensor
        The best point so far; its ``value``.
    n_steps : int

    Examples
    --------
    >>> search = LBFGS(torch.tensor([4.0, -2.0]), curvature=10.0, tolerance=1e-12, max_steps=50)
    >>> while not search.is_done:
    ...     x, scale = search.trial, torch.tensor([1.0, 10.0])
    ...     search.tell(float((scale * x * x).sum() / 2), scale * x)
    >>> bool(search.point.abs().max() < 1e-5)
    True
    """

    def __init__(self, start: torch.Tensor, *, curvature: float, tolerance: float, max_steps: int) -> None:
        self.point = self.trial = start
        self.value = float("inf")
        self.n_steps = 0
        self.is_done = False
        self._gradient = torch.empty(0)
        self._direction = torch.empty(0)
        self._slope, self._step = 0.0, 1.0
        self._scale = 1 / curvature
        self._tolerance, self._max_steps = tolerance, max_steps
        self._pairs: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=_MEMORY)

    def tell(self, value: float, gradient: torch.Tensor) -> None:
        """Say what the function is at ``trial``."""
        if self.n_steps == 0 and self.value == float("inf"):
            self._accept(value, gradient)
        elif value <= self.value + _ENOUGH * self._step * self._slope:
            self.n_steps += 1
            gained = self.value - value
            moved, turned = self.trial - self.point, gradient - self._gradient
            curved = float(torch.dot(moved.flatten(), turned.flatten()))
            if curved > 1e-12 * float(moved.norm() * turned.norm()):
                self._pairs.append((moved, turned, curved))
                self._scale = curved / float(turned.square().sum())
            is_flat = gained <= self._tolerance * max(abs(value), abs(self.value))
            self._accept(value, gradient)
            self.is_done = is_flat or self.n_steps >= self._max_steps
        else:
            # The parabola through what is known has its least value here.
            bend = value - self.value - self._step * self._slope
            best = -self._slope * self._step**2 / (2 * bend) if bend > 0 else 0.0
            self._step = min(max(best, 0.1 * self._step), 0.5 * self._step)
            self._look()

    def _accept(self, value: float, gradient: torch.Tensor) -> None:
        self.point, self.value, self._gradient = self.trial, value, gradient
        self._direction = self._descent()
        self._slope = float(torch.dot(self._direction.flatten(), gradient.flatten()))
        self._step = 1.0
        self._look()

    def _look(self) -> None:
        self.trial = self.point + self._step * self._direction
        if self._slope >= 0 or self._step < _SHORTEST:
            self.is_done = True

    def _descent(self) -> torch.Tensor:
        direction = -self._gradient
        kept = []
        for moved, turned, curved in reversed(self._pairs):
            share = float((moved * direction).sum()) / curved
            direction = direction - share * turned
            kept.append(share)
        direction = direction * self._scale
        for (moved, turned, curved), share in zip(self._pairs, reversed(kept), strict=True):
            direction = direction + (share - float((turned * direction).sum()) / curved) * moved
        return direction
