"""How features get from the inversion to the generation: stored, or evaluated again in the injected call.

Where guidance costs extra rows, what is kept is the feature of the prompt's own row, and it goes to every row that serves
the same picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..attention_hooks.base import Point, attached
from ..attention_hooks.store import FeatureStore, How, Inject, Record, Share, Slot, Together, Visits
from ..models.base import Condition, Model
from ..ode import Field, Tick


class Change(NamedTuple):
    """Features to inject: where, whether they replace or add, and the scale of what was recorded."""

    points: tuple[Point, ...]
    how: How
    ratio: float


def switched(plain: Field, special: Field, intervals: Collection[tuple[float, float]]) -> Field:
    """`special` in the steps with these (rising) intervals, `plain` in all others."""
    return lambda tick, x: (special if tick.interval in intervals else plain)(tick, x)


@dataclass(frozen=True)
class Transfer(ABC):
    """One edit's transfer of features, from evaluations under `source` to evaluations under `target`. Made anew for each.
    `host`: keep features in the host's memory, not on the device."""

    model: Model[Any]
    source: Condition
    target: Condition
    changes: Sequence[Change]
    host: bool

    @abstractmethod
    def recording(self) -> Field:
        """The field of the inversion, in the steps to be recorded."""

    @abstractmethod
    def injecting(self) -> Field:
        """The field of the generation, in the injected steps."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Features "injected" and "missed" (no recorded partner), and "stored_bytes"."""

    def points(self) -> tuple[Point, ...]:
        """Every point that is changed, once."""
        return tuple(dict.fromkeys(point for change in self.changes for point in change.points))


@dataclass(frozen=True)
class Stored(Transfer):
    """Keeps the features themselves."""

    _hooks: list[Inject] = field(default_factory=list, init=False)

    @cached_property
    def _store(self) -> FeatureStore:
        return FeatureStore(self.host)

    def recording(self) -> Field:
        owners = self.model.calls(self.source)[0]
        own = [owners.index(row) for row in range(len(self.source))]
        return self.model.field(self.source, Record(self._store, self.points(), own))

    def injecting(self) -> Field:
        rows = self.model.calls(self.target)[0]
        for points, how, ratio in self.changes:
            self._hooks.append(Inject(self._store, points, how=how, ratio=ratio, missing="keep", rows=rows))
        return self.model.field(self.target, Together(self._hooks))

    def counts(self) -> dict[str, int]:
        injected, missed = sum(hook.hits for hook in self._hooks), sum(hook.misses for hook in self._hooks)
        return {"injected": injected, "missed": missed, "stored_bytes": self._store.bytes}


@dataclass(frozen=True)
class InBatch(Transfer):
    """Keeps the states at which the inversion evaluated, and evaluates each again as extra rows of its injected call.

    The extra rows run under the source condition at the inversion's own time, so they repeat the recorded evaluation.
    """

    _evaluations: dict[Slot, tuple[float, Tensor]] = field(default_factory=dict, init=False)
    _outcomes: Counter[str] = field(default_factory=Counter, init=False)

    def recording(self) -> Field:
        plain, visits, label = self.model.field(self.source), Visits(), self.points()[0]

        def record(tick: Tick, x: Tensor) -> Tensor:
            self._evaluations[visits.next(tick, label)] = (tick.t, x)
            return plain(tick, x)

        return record

    def injecting(self) -> Field:
        plain, visits, label = self.model.field(self.target), Visits(), self.points()[0]
        both, modules = self.target.joined(self.source), self.model.points()
        owners, count = self.model.calls(both)[0], len(self.target)
        givers = [owners.index(count + owner) if owner < count else row for row, owner in enumerate(owners)]
        hook = Together([Share(points, givers, how=how, ratio=ratio) for points, how, ratio in self.changes])
        features = sum(len(change.points) for change in self.changes)

        def inject(tick: Tick, x: Tensor) -> Tensor:
            partner = self._evaluations.get(visits.next(tick, label))
            self._outcomes["missed" if partner is None else "injected"] += features
            if partner is None:
                return plain(tick, x)
            t, y = partner
            times = torch.tensor([tick.t] * len(x) + [t] * len(y), dtype=x.dtype, device=x.device)
            with attached(modules, hook, tick):
                return self.model.velocity(times, torch.cat((x, y)), both)[: len(x)]

        return inject

    def counts(self) -> dict[str, int]:
        stored = sum(x.nbytes for _, x in self._evaluations.values())
        return {"injected": self._outcomes["injected"], "missed": self._outcomes["missed"], "stored_bytes": stored}
