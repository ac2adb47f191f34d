"""Uni-Inv: inversion that asks for the velocity where the step will end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..ode import Slope
from ..options import check, option
from .base import Solver, Step
from .euler import Euler


@dataclass(frozen=True)
class UniInv(Solver[Tensor]):
    """x + h v1, with v1 = f(t1, x + h v) and v the last step's v1 (Jiao et al. 2025, arXiv 2504.13109).

    One sweep of implicit Euler: first order, one evaluation a step and one to start, v = f(t0, x); with `first` = "zero" the
    first step starts from v = 0 and saves that one. The state is v, so a walk that is handed a state starts from a velocity of
    the caller's own: noise - x at the image end gives DNAEdit's inversion (Xie et al. 2025, arXiv 2506.01430).
    It undoes the Euler step back from t1 to t0 up to second order, so its partner for generating is Euler.
    Raises OptionError for a `first` that is no choice.
    """

    order: ClassVar[int] = 1
    first: str = option("network", "the velocity that the first step starts from", choices=("network", "zero"))

    def __post_init__(self) -> None:
        check(self)

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Tensor | None) -> Step[Tensor]:
        h = t1 - t0
        v = self._start(slope, t0, x) if state is None else state
        v1 = slope(t1, x + h * v)
        return Step(x + h * v1, v1)

    def nfe(self, steps: int) -> int:
        return steps + (self.first == "network")

    @property
    def generator(self) -> Solver[Any]:
        return Euler()

    def _start(self, slope: Slope, t0: float, x: Tensor) -> Tensor:
        return slope(t0, x) if self.first == "network" else torch.zeros_like(x)
