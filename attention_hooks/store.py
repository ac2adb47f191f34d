"""Attention features: recorded in one run and injected in another, or shared between the rows of one batch.

The strategy is that of RF-Solver-Edit (Wang et al. 2024, arXiv 2411.04746) and FireFlow (Deng et al. 2024,
arXiv 2412.07517): record while inverting, inject during the first steps of generating.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from ..ode import Tick
from .base import AttentionHook, Point
from .host import OnHost

How = Literal["replace", "add"]
Kind = Literal["knot", "midpoint"]


class Slot(NamedTuple):
    """What a feature is stored under: the step, whichever way it was walked; whether the evaluation lay at one of its ends
    or inside; which such evaluation of that step it was (counted from 0); and the point.

    So midpoints pair exactly, and a knot feature recorded at a step's low-noise end meets its high-noise end.
    """

    interval: tuple[float, float]
    kind: Kind
    occurrence: int
    point: Point


@dataclass(frozen=True)
class Visits:
    """Counts how often every place was met."""

    counts: Counter[tuple[tuple[float, float], Kind, Point]] = field(default_factory=Counter)

    def next(self, at: Tick, point: Point) -> Slot:
        """The slot of this meeting; the next one at the same place gets the next occurrence."""
        kind: Kind = "knot" if at.node in (0.0, 1.0) else "midpoint"
        place = (at.interval, kind, point)
        self.counts[place] += 1
        return Slot(at.interval, kind, self.counts[place] - 1, point)


@dataclass(frozen=True, eq=False)
class FeatureStore(Mapping[Slot, Tensor]):
    """Features of one run, by slot, kept on the device they were met on, or with `host` in the host's memory, from where they
    come back to that device when they are asked for. A stored feature is a copy: nothing that the network does afterwards
    changes it."""

    host: bool = False
    _features: dict[Slot, Tensor | OnHost] = field(default_factory=dict, init=False, repr=False)
    _visits: Visits = field(default_factory=Visits, init=False, repr=False)

    def __getitem__(self, slot: Slot) -> Tensor:
        feature = self._features[slot]
        return feature.back() if isinstance(feature, OnHost) else feature

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    @property
    def bytes(self) -> int:
        """Memory that the stored features take."""
        kept = (feature.copy if isinstance(feature, OnHost) else feature for feature in self._features.values())
        return sum(feature.nbytes for feature in kept)

    def record(self, at: Tick, point: Point, value: Tensor) -> None:
        """Keep a copy of `value` (rows first)."""
        feature = value.detach().clone()
        moved = self.host and feature.is_cuda  # on a CPU it is in the host's memory already
        self._features[self._visits.next(at, point)] = OnHost.of(feature) if moved else feature


@dataclass(frozen=True)
class Record:
    """A hook that records what it meets at `points` into `store` and changes nothing. `rows`: the rows to keep (None: all)."""

    store: FeatureStore
    points: Collection[Point]
    rows: Sequence[int] | None = None

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor:
        self.store.record(at, point, value if self.rows is None else value[list(self.rows)])
        return value


@dataclass(frozen=True)
class Inject:
    """A hook for one run that injects what `store` holds for each meeting at `points`.

    "replace" gives ratio * stored, "add" gives value + ratio * stored. `rows`: for every row met, the stored row that it is
    given (None: the same). A meeting that has no stored partner is a miss:
    `missing` "raise" raises LookupError, "keep" leaves the value alone. `hits` and `misses` count meetings.
    Make a new object for every run: it counts occurrences. Raises ValueError if shapes differ (other rows or size).
    """

    store: FeatureStore
    points: Collection[Point]
    how: How = "replace"
    ratio: float = 1.0
    missing: Literal["raise", "keep"] = "raise"
    rows: Sequence[int] | None = None
    _visits: Visits = field(default_factory=Visits, init=False, repr=False, compare=False)
    _outcomes: Counter[bool] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @property
    def hits(self) -> int:
        return self._outcomes[True]

    @property
    def misses(self) -> int:
        return self._outcomes[False]

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor:
        slot = self._visits.next(at, point)
        stored = self.store.get(slot)
        self._outcomes[stored is not None] += 1
        if stored is not None:
            return _combined(value, stored if self.rows is None else stored[list(self.rows)], self.how, self.ratio)
        if self.missing == "keep":
            return value
        raise LookupError(f"no feature was recorded for {slot}; record that step first, or pass missing='keep'")


@dataclass(frozen=True)
class Share:
    """A hook that gives features of some rows to others, in one network call.

    Equal to recording and injecting when the giving rows repeat the recorded evaluation (same t, x and condition);
    costs those rows and no feature memory. `givers`: for every row, the row whose feature it takes; a row that gives to
    itself is left alone. Raises ValueError if there are more or fewer rows than that.
    """

    points: Collection[Point]
    givers: Sequence[int]
    how: How = "replace"
    ratio: float = 1.0

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor:
        if len(value) != len(self.givers):
            raise ValueError(f"a feature of {len(self.givers)} rows was expected here, got {len(value)} rows")
        takers = [row for row, giver in enumerate(self.givers) if giver != row]
        shared = value.clone()
        shared[takers] = _combined(value[takers], value[[self.givers[row] for row in takers]], self.how, self.ratio)
        return shared


@dataclass(frozen=True)
class Together:
    """Several hooks as one; where they share a point they act in the given order, each on what the one before returned.

    The public codes replace before they add, so replacing and adding one tensor gives twice the stored feature.
    """

    hooks: Sequence[AttentionHook]

    @property
    def points(self) -> Collection[Point]:
        """Every point of any of the hooks, once."""
        return tuple(dict.fromkeys(point for hook in self.hooks for point in hook.points))

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor:
        for hook in self.hooks:
            if point in hook.points:
                value = hook(at, point, value)
        return value


def _combined(value: Tensor, stored: Tensor, how: How, ratio: float) -> Tensor:
    """A new tensor in either case, so that the network cannot write into what is stored."""
    if value.shape != stored.shape:
        raise ValueError(
            f"a recorded feature of shape {tuple(stored.shape)} does not fit a value of shape {tuple(value.shape)}; "
            "record and inject with the same rows, picture size and text length"
        )
    return ratio * stored if how == "replace" else value + ratio * stored
