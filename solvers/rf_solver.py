"""RF-Solver: a second-order Taylor step with the derivative of the velocity taken by a difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class RFSolver(Solver[None]):
    """x + h v0 + h^2/2 v', with v' = (v_mid - v0) / (h/2) from half an Euler step (Wang et al. 2024, arXiv 2411.04746).

    Second order, two evaluations a step. Substituting v' gives x + h v_mid: the midpoint method, to rounding.
    """

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h, middle = t1 - t0, (t0 + t1) / 2
        v0 = slope(t0, x)
        v_mid = slope(middle, x + h / 2 * v0)
        derivative = (v_mid - v0) / (h / 2)
        return Step(x + h * v0 + h**2 / 2 * derivative, None)

    def nfe(self, steps: int) -> int:
        return 2 * steps
