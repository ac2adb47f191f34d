"""Fixed-point inversion: implicit Euler, solved by sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..ode import Slope
from ..options import check, option
from .base import Solver, Step
from .euler import Euler


@dataclass(frozen=True)
class FixedPoint(Solver[None]):
    """`sweeps` times v = f(t1, z), z = x + h v, from z = x: AIDI (Pan et al. 2023, arXiv 2309.04907) for flows.

    Where the sweeps converge, the Euler step back from t1 to t0 lands on x exactly, so the partner for generating is Euler.
    First order, `sweeps` evaluations a step. FTEdit (Xu et al. 2024, arXiv 2411.15843) ends on x + h times the mean of the
    velocities of its sweeps instead: here of sweeps `average_from` (counted from 0) up to but not including `average_to`,
    those of them that there are; an empty range keeps the last z. A mean that takes in the first guesses does not lead back
    to x, however many sweeps there are. Raises OptionError for options out of range.
    """

    order: ClassVar[int] = 1
    sweeps: int = option(3, "evaluations in a step", low=1)
    average_from: int = option(0, "first sweep (from 0) whose velocity is averaged", low=0)
    average_to: int = option(0, "first sweep after the averaged ones; the last velocity alone if none is averaged", low=0)

    def __post_init__(self) -> None:
        check(self)

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: None) -> Step[None]:
        h, z, velocities = t1 - t0, x, []
        for _ in range(self.sweeps):
            velocities.append(slope(t1, z))
            z = x + h * velocities[-1]
        averaged = velocities[self.average_from : self.average_to]
        return Step(x + h * (sum(averaged[1:], averaged[0]) / len(averaged)) if averaged else z, None)

    def nfe(self, steps: int) -> int:
        return self.sweeps * steps

    @property
    def generator(self) -> Solver[Any]:
        return Euler()
