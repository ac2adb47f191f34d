"""The classical Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class RungeKutta4(Solver[None]):
    """x + h/6 (v1 + 2 v2 + 2 v3 + v4). Fourth order, four evaluations a step (Kutta 1901)."""

    order: ClassVar[int] = 4

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h, middle = t1 - t0, (t0 + t1) / 2
        v1 = slope(t0, x)
        v2 = slope(middle, x + h / 2 * v1)
        v3 = slope(middle, x + h / 2 * v2)
        v4 = slope(t1, x + h * v3)
        return Step(x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), None)

    def nfe(self, steps: int) -> int:
        return 4 * steps
