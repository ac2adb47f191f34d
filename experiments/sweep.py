"""Options with several values, and the grid that they span."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..options import OptionError, parse


@dataclass(frozen=True)
class Point:
    """One point of a grid: `options` with one value each, and what sets it apart from the other points, such as
    "n_max=19" (empty where there is but one)."""

    options: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""

    def named(self, label: str) -> str:
        """`label` with what sets the point apart."""
        return f"{label} {self.words}".rstrip()


def parted(label: str) -> list[str]:
    """A row's label in parts: what it is, and each option with its value that sets it apart ("n_max=19")."""
    return re.split(r" (?=\w+=)", label)


def points(kind: type, options: Mapping[str, Any]) -> list[Point]:
    """The grid that options of the dataclass `kind` span, the last one changing fastest. Several values are a list, or one text
    with commas; however an option or a value is spelled, a point holds what it means.

    Raises OptionError for an option that `kind` does not have, a value of another type or out of its range, an empty list or
    place, and a value that stands twice.
    """
    lists: dict[str, list[Any]] = {}
    for name, given in options.items():
        parsed = [parse(kind, {name: value}) for value in _values(name, given)]
        (option,) = parsed[0]
        lists[option] = _distinct(name, [one[option] for one in parsed])
    swept = [name for name, values in lists.items() if len(values) > 1]
    return [
        Point(chosen := dict(zip(lists, values, strict=True)), " ".join(f"{name}={_word(chosen[name])}" for name in swept))
        for values in product(*lists.values())
    ]


def _values(name: str, given: Any) -> Sequence[Any]:
    if isinstance(given, str):
        values: Sequence[Any] = [part.strip() for part in given.split(",")] if "," in given else [given]
    elif isinstance(given, Sequence):
        values = given
    else:
        return [given]
    if not values or (len(values) > 1 and "" in values):
        raise OptionError(f"{name} has an empty place in {given!r}; separate its values by single commas")
    return values


def _distinct(name: str, values: list[Any]) -> list[Any]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise OptionError(f"{name} has the value {_word(value)} twice; once is enough")
    return values


def _word(value: Any) -> str:
    """A value as people write it: 3 and not 3.0, none and not None."""
    return value if isinstance(value, str) else str(value).lower().removesuffix(".0")
