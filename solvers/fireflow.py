"""FireFlow: the midpoint method at the price of Euler's, by reusing the last midpoint's velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class FireFlow(Solver[Tensor]):
    """x + h v_mid, with v_mid = f(t0 + h/2, x + h/2 v) and v the last step's v_mid (Deng et al. 2024, arXiv 2412.07517).

    Second order, one evaluation a step and one to start, v = f(t0, x). The state is v. On a uniform grid the points where it
    evaluates are those of the two-step Adams-Bashforth method on the grid shifted by half a step.
    """

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Tensor | None) -> Step[Tensor]:
        h, middle = t1 - t0, (t0 + t1) / 2
        v = slope(t0, x) if state is None else state
        v_mid = slope(middle, x + h / 2 * v)
        return Step(x + h * v_mid, v_mid)

    def nfe(self, steps: int) -> int:
        return steps + 1
