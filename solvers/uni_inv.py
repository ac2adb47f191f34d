"""Uni-Inv: inversion that asks for the velocity where the step will end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step
from .euler import Euler


@dataclass(frozen=True)
class UniInv(Solver[Tensor]):
    """x + h v1, with v1 = f(t1, x + h v) and v the last step's v1 (Jiao et al. 2025, arXiv 2504.13109).

    One sweep of implicit Euler: first order, one evaluation a step and one to start, v = f(t0, x). The state is v. It undoes
    the Euler step back from t1 to t0 up to second order, so its partner for generating is Euler.
    """

    order: ClassVar[int] = 1

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Tensor | None) -> Step[Tensor]:
        h = t1 - t0
        v = slope(t0, x) if state is None else state
        v1 = slope(t1, x + h * v)
        return Step(x + h * v1, v1)

    def nfe(self, steps: int) -> int:
        return steps + 1

    @property
    def generator(self) -> Solver[Any]:
        return Euler()
