"""The two-step Adams-Bashforth method for any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


class Past(NamedTuple):
    """The last evaluation at a knot: its time and its velocity."""

    t: float
    v: Tensor


@dataclass(frozen=True)
class AdamsBashforth2(Solver[Past]):
    """x + h ((1 + r/2) v0 - r/2 v_past), with r the ratio of this step to the last, after one step of Heun's method.

    Integrates the line through the last two velocities. Second order, one evaluation a step and one to start. The state is
    the past time and velocity (Bashforth and Adams 1883; Hairer, Norsett and Wanner 1993, III.5, for uneven steps).
    """

    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Past | None) -> Step[Past]:
        h = t1 - t0
        v0 = slope(t0, x)
        if state is None:
            v = (v0 + slope(t1, x + h * v0)) / 2
        else:
            ratio = h / (t0 - state.t)
            v = (1 + ratio / 2) * v0 - ratio / 2 * state.v
        return Step(x + h * v, Past(t0, v0))

    def nfe(self, steps: int) -> int:
        return steps + 1
