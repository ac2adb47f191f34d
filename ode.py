"""Time and velocity: the vocabulary that solvers, models and editors share.

Time t runs from 1 (noise) to 0 (image): x_t = (1 - t) * image + t * noise, and the velocity is dx/dt = noise - image.
A step from t0 to t1 has h = t1 - t0: negative when generating, positive when inverting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor


class Tick(NamedTuple):
    """One evaluation of a field: its time `t`, and the step [t0, t1] it belongs to (t0 is where the step starts)."""

    t: float
    t0: float
    t1: float

    @property
    def interval(self) -> tuple[float, float]:
        """The step's two ends in rising order, so that a step and its reverse have the same interval."""
        return (self.t0, self.t1) if self.t0 <= self.t1 else (self.t1, self.t0)

    @property
    def node(self) -> float:
        """Where in the step the evaluation lies: 0 at its start, 1 at its end."""
        return (self.t - self.t0) / (self.t1 - self.t0)


Slope = Callable[[float, Tensor], Tensor]
"""All that a solver ever sees: (t, x) -> dx/dt."""

Field = Callable[[Tick, Tensor], Tensor]
"""What models and editors make: (tick, x) -> dx/dt."""


@dataclass(frozen=True)
class TimeGrid:
    """The knots of an integration, strictly rising (inverting) or strictly falling (generating), inside [0, 1].

    Raises ValueError if there are fewer than two knots, or if they leave [0, 1], are not finite or not monotone.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2:
            raise ValueError(f"a time grid needs at least 2 knots, got {len(self.times)}")
        if not all(math.isfinite(t) and 0.0 <= t <= 1.0 for t in self.times):
            raise ValueError(f"the knots of a time grid lie in [0, 1], got {self.times}")
        steps = [b - a for a, b in pairwise(self.times)]
        if not (all(h > 0 for h in steps) or all(h < 0 for h in steps)):
            raise ValueError(f"the knots of a time grid must rise or fall strictly, got {self.times}")

    @classmethod
    def uniform(cls, steps: int, start: float = 1.0, end: float = 0.0) -> TimeGrid:
        """`steps` equal steps from `start` to `end`."""
        return cls((*(start + (end - start) * i / steps for i in range(steps)), end))

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    def intervals(self) -> Iterator[tuple[float, float]]:
        """(t0, t1) of every step, in walking order."""
        return pairwise(self.times)

    def reversed(self) -> TimeGrid:
        """The same knots walked the other way."""
        return TimeGrid(self.times[::-1])

    def truncated(self, first: int, last: int = 0) -> TimeGrid:
        """The steps numbered `first` down to `last` + 1 of a falling grid, counted from the image end (1 is the last step).

        Raises ValueError unless 0 <= last < first <= steps and the grid falls.
        """
        if not 0 <= last < first <= self.steps:
            raise ValueError(f"need 0 <= last < first <= {self.steps} steps, got first={first}, last={last}")
        if self.times[0] < self.times[-1]:
            raise ValueError("steps are counted from the image end: truncate the falling grid, then reverse it")
        return TimeGrid(self.times[self.steps - first : self.steps - last + 1])

    def last(self, count: int | None) -> TimeGrid:
        """The last `count` steps of a falling grid: all of them if None, or if there are no more.
        Raises ValueError as `truncated` does."""
        return self if count is None else self.truncated(min(count, self.steps))

    def number(self, tick: Tick) -> int:
        """The number of the step that `tick` belongs to, counted from the image end (1 is the step that touches t = 0)."""
        low = min(self.times[0], self.times[-1])
        falling = self.times if self.times[-1] == low else self.times[::-1]
        return self.steps - falling.index(max(tick.t0, tick.t1))
