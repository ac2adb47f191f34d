"""The contract of a solver, and the loop that drives one over a time grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor

from ..ode import Field, Slope, Tick, TimeGrid

State = TypeVar("State")


class Step(NamedTuple, Generic[State]):
    """What a step returns: the new `x`, and what the solver wants handed back at its next step (None if nothing)."""

    x: Tensor
    state: State | None


class Solver(ABC, Generic[State]):
    """One way to walk dx/dt = slope(t, x). Subclasses are final frozen dataclasses; everything that lives from step to
    step travels in `state`, never on `self`, so one solver object may serve any number of runs at once.

    `order`: the global order of convergence. `reversible`: walking the same knots back with the state carried
    lands on the start to rounding.
    """

    order: ClassVar[int]
    reversible: ClassVar[bool] = False

    @abstractmethod
    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: State | None) -> Step[State]:
        """Walk from t0 to t1. `x` has any shape; `state` is None at the first step of a run."""

    @abstractmethod
    def nfe(self, steps: int) -> int:
        """Evaluations of the slope that a run of `steps` steps makes. Declared here, counted by the conformance kit."""

    @property
    def generator(self) -> Solver[Any]:
        """The solver to generate with after inverting with this one: itself, unless the method names a partner."""
        return self


def walk(solver: Solver[State], field: Field, x: Tensor, grid: TimeGrid, state: State | None = None) -> Iterator[Step[State]]:
    """Yield (x, state) after every step of `grid`, starting from `x` at its first knot."""
    for t0, t1 in grid.intervals():

        def slope(t: float, y: Tensor, t0: float = t0, t1: float = t1) -> Tensor:
            return field(Tick(t, t0, t1), y)

        x, state = solver.step(slope, t0, t1, x, state)
        yield Step(x, state)


def integrate(solver: Solver[State], field: Field, x: Tensor, grid: TimeGrid, state: State | None = None) -> Step[State]:
    """Walk `field` over the whole `grid` from `x`; `state` may carry on from an earlier walk. Returns the last (x, state)."""
    return deque(walk(solver, field, x, grid, state), maxlen=1).pop()
