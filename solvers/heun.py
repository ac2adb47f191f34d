"""Heun's method: a step of the explicit trapezoidal rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class Heun(Solver[None]):
    """x + h/2 (f(t0, x) + f(t1, x + h f(t0, x))). Second order, two evaluations a step (Heun 1900)."""

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h = t1 - t0
        v0 = slope(t0, x)
        v1 = slope(t1, x + h * v0)
        return Step(x + h / 2 * (v0 + v1), None)

    def nfe(self, steps: int) -> int:
        return 2 * steps
