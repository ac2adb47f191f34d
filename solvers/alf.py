"""The asynchronous leapfrog method: exactly reversible, one evaluation a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class AsynchronousLeapfrog(Solver[Tensor]):
    """Half a step with v, v' = 2 f(t0 + h/2, .) - v, half a step with v' (Mutze 2013, arXiv 1311.6602).

    Second order, one evaluation a step and one to start, v = f(t0, x). The state is v. A step back from (x', v') meets the same
    midpoint, so it returns to (x, v) exactly; FireFlow with 2k - v in the place of k. Its v oscillates undamped where the flow
    is stiff.
    """

    order: ClassVar[int] = 2
    reversible: ClassVar[bool] = True

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Tensor | None) -> Step[Tensor]:
        h, middle = t1 - t0, (t0 + t1) / 2
        v = slope(t0, x) if state is None else state
        half = x + h / 2 * v
        v_next = 2 * slope(middle, half) - v
        return Step(half + h / 2 * v_next, v_next)

    def nfe(self, steps: int) -> int:
        return steps + 1
