"""The observed order of a round trip: how fast its error falls with the number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final, NamedTuple

from .records import Record
from .rows import Heading
from .statistics import Estimate, mean_interval

ERROR: Final = "latent-mse"
"""The metric whose square root is the error: the latents' own, which no codec bounds."""


class Order(NamedTuple):
    """One method: for each pair of neighbouring numbers of steps (fewer, more), the slope -log(e2 / e1) / log(N2 / N1) of its
    round trip's error, a mean over cases.

    A method of order p whose way back repeats its way there cancels the leading error where p is even, and shows p + 1. Where
    the error meets the floor of the arithmetic the slope falls to 0.
    """

    method: str
    slopes: Mapping[tuple[int, int], Estimate]


def orders(rows: Sequence[Heading], records: Iterable[Record]) -> list[Order]:
    """The observed orders of the reconstructions among `rows`; none where every method has one number of steps."""
    errors: dict[str, dict[str, list[float]]] = {row.name: {} for row in rows if row.task == "reconstruct" and not row.control}
    for record in records:
        if record.row in errors and record.scores.get(ERROR, 0.0) > 0.0:
            errors[record.row].setdefault(record.case, []).append(0.5 * math.log(record.scores[ERROR]))
    methods: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        if errors.get(row.name):
            by_case = {case: fmean(found) for case, found in errors[row.name].items()}
            methods.setdefault(row.label, {})[row.steps] = by_case
    return [Order(method, _slopes(found)) for method, found in methods.items() if len(found) > 1]


def _slopes(by_steps: Mapping[int, Mapping[str, float]]) -> dict[tuple[int, int], Estimate]:
    slopes = {}
    for fewer, more in pairwise(sorted(by_steps)):
        both = by_steps[fewer].keys() & by_steps[more].keys()
        falls = [by_steps[fewer][case] - by_steps[more][case] for case in sorted(both)]
        slopes[fewer, more] = mean_interval([fall / math.log(more / fewer) for fall in falls])
    return slopes
