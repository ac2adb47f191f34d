"""Euler's method: the sampler of rectified flow itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ode import Slope
from .base import Solver, Step


@dataclass(frozen=True)
class Euler(Solver[None]):
    """x + h f(t0, x). First order, one evaluation a step (Liu et al. 2022, arXiv 2209.03003)."""

    order: ClassVar[int] = 1

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        return Step(x + (t1 - t0) * slope(t0, x), None)

    def nfe(self, steps: int) -> int:
        return steps
