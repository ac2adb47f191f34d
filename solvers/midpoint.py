"""The explicit midpoint method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class Midpoint(Solver[None]):
    """x + h f(t0 + h/2, x + h/2 f(t0, x)). Second order, two evaluations a step (Runge 1895)."""

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h, middle = t1 - t0, (t0 + t1) / 2
        return Step(x + h * slope(middle, x + h / 2 * slope(t0, x)), None)

    def nfe(self, steps: int) -> int:
        return 2 * steps
