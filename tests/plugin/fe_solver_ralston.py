"""Ralston's method: the second-order Runge-Kutta step with the smallest bound on its error (Ralston 1962)."""

from dataclasses import dataclass
from typing import ClassVar

from fe.ode import Slope
from fe.solvers.base import Solver, Step
from torch import Tensor


@dataclass(frozen=True)
class Ralston(Solver[None]):
    """x + h/4 (v0 + 3 f(t0 + 2h/3, x + 2h/3 v0)). Second order, two evaluations a step."""

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h = t1 - t0
        v0 = slope(t0, x)
        v1 = slope(t0 + 2 / 3 * h, x + 2 / 3 * h * v0)
        return Step(x + h / 4 * (v0 + 3 * v1), None)

    def nfe(self, steps: int) -> int:
        return 2 * steps
