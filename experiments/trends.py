"""What an option does: how scores differ between the smallest and the largest value of a sweep."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import NamedTuple

from ..metrics.base import Metric, Score
from .records import Record
from .rows import Heading
from .statistics import Estimate, paired_difference
from .sweep import parted


class Trend(NamedTuple):
    """One option of one method, from its `first` to its `last` value, the smallest and the largest: the paired difference of
    each score over the cases, each case's being its mean over all other options and over seeds."""

    method: str
    steps: int
    option: str
    first: str
    last: str
    differences: Mapping[str, Estimate]


def trends(rows: Sequence[Heading], records: Iterable[Record], metrics: Mapping[str, Score]) -> Iterator[Trend]:
    """The trends among rows of one task; none where nothing was swept but words. Metrics of whole rows have none."""
    mine: dict[str, list[Record]] = {row.name: [] for row in rows if not row.control}
    for record in records:
        if record.row in mine:
            mine[record.row].append(record)
    sweeps: dict[tuple[str, int], list[tuple[dict[str, str], list[Record]]]] = {}
    for row in (row for row in rows if not row.control):
        method, *options = parted(row.label)
        chosen = dict(_named(option) for option in options)
        sweeps.setdefault((method, row.steps), []).append((chosen, mine[row.name]))
    single = [name for name, metric in metrics.items() if isinstance(metric, Metric)]
    for (method, steps), swept in sweeps.items():
        for option in dict.fromkeys(option for chosen, _ in swept for option in chosen):
            values = _numbers({chosen[option] for chosen, _ in swept if option in chosen})
            if len(values) > 1:
                first, last = values[0], values[-1]
                ends = [[one for chosen, mine in swept if chosen.get(option) == end for one in mine] for end in (first, last)]
                differences = {name: paired_difference(*(_by_case(one, name) for one in ends[::-1])) for name in single}
                yield Trend(method, steps, option, first, last, differences)


def _named(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name, value


def _numbers(values: Collection[str]) -> list[str]:
    """The values from the smallest to the largest; none where they are no numbers."""
    with suppress(ValueError):
        return sorted(values, key=float)
    return []


def _by_case(records: Iterable[Record], metric: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for record in records:
        if metric in record.scores:
            found.setdefault(record.case, []).append(record.scores[metric])
    return {case: fmean(scores) for case, scores in found.items()}
