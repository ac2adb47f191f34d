"""The reversible Heun method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


class Shadow(NamedTuple):
    """The companion path: its point and the velocity there."""

    x: Tensor
    v: Tensor


@dataclass(frozen=True)
class ReversibleHeun(Solver[Shadow]):
    """A trapezoidal step x + h/2 (v0 + v1) whose velocities are met on a shadow path, x^ <- 2x - x^ + h v0.

    Second order, one evaluation a step and one to start (the shadow starts at x). The state is the shadow's point and
    velocity; carried back, both paths return exactly (Kidger et al. 2021, arXiv 2105.13493).
    """

    order: ClassVar[int] = 2
    reversible: ClassVar[bool] = True

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Shadow | None) -> Step[Shadow]:
        h = t1 - t0
        shadow = Shadow(x, slope(t0, x)) if state is None else state
        x_hat = 2 * x - shadow.x + h * shadow.v
        v_hat = slope(t1, x_hat)
        return Step(x + h / 2 * (shadow.v + v_hat), Shadow(x_hat, v_hat))

    def nfe(self, steps: int) -> int:
        return steps + 1
