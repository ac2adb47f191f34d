"""What a run says: for every row its scores with intervals, its differences from the first row, and its cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ..metrics.base import Score, Task
from .records import Record
from .rows import Heading
from .statistics import Estimate, mean_interval, paired_difference, proportion_interval


@dataclass(frozen=True)
class Line:
    """One row's results. `nfe` is network rows for a picture, `calls` network calls for a batch (as many as for one picture
    alone); `seconds` of editing for a picture; the costs are None where no cell came out. `differences`: from the first row
    of the task, paired over cases."""

    row: Heading
    scores: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    nfe: float | None
    calls: float | None
    seconds: float | None
    peak_bytes: int | None
    done: int
    failed: int


@dataclass(frozen=True)
class Summary:
    """All lines of one task, controls last; the metrics that are columns (those that scored anything or could not be had, or
    all where none did); the number of cases; and the same for each kind of edit alone, where there are several."""

    task: Task
    metrics: Mapping[str, Score]
    lines: tuple[Line, ...]
    cases: int
    kinds: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[Line, ...]:
        """The lines that are no controls."""
        return tuple(line for line in self.lines if not line.row.control)


def summarise(
    task: Task,
    rows: Sequence[Heading],
    records: Iterable[Record],
    metrics: Mapping[str, Score],
    sets: Mapping[str, Mapping[str, Estimate]] | None = None,
    columns: Collection[str] = (),
) -> Summary:
    """Summarise the records of one task, those of failed cells too. A case's score is its mean over seeds. sets: what metrics
    of whole rows found, by row and name. columns: the names of metrics that have a column also where no score is in it."""
    by_row: dict[str, list[Record]] = {row.name: [] for row in rows if row.task == task}
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        if record.row in by_row:
            by_row[record.row].append(record)
            by_kind.setdefault(record.kind, []).append(record)
    scores = {name: _by_case(mine, metrics) for name, mine in by_row.items()}
    shown = [row for row in rows if row.task == task]
    first = next((scores[row.name] for row in shown if not row.control), {})
    whole = sets or {}
    lines = tuple(_line(row, by_row[row.name], metrics, scores[row.name], first, whole.get(row.name, {})) for row in shown)
    seen = {
        name: metric for name, metric in metrics.items() if name in columns or any(line.scores[name].count for line in lines)
    }
    count = len({record.case for mine in by_row.values() for record in mine})
    alone = by_kind if len(by_kind) > 1 else {}
    kinds = {kind: summarise(task, rows, mine, metrics) for kind, mine in alone.items()}
    return Summary(task, seen or metrics, lines, count, kinds)


Scores = dict[str, dict[str, float]]
"""By metric, then by case."""


def _by_case(records: Sequence[Record], metrics: Mapping[str, Score]) -> Scores:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in metrics}
    for record in records:
        for name, score in record.scores.items():
            if name in found:
                found[name].setdefault(record.case, []).append(score)
    return {name: {case: fmean(values) for case, values in by_case.items()} for name, by_case in found.items()}


def _line(
    row: Heading,
    records: Sequence[Record],
    metrics: Mapping[str, Score],
    scores: Scores,
    first: Scores,
    whole: Mapping[str, Estimate],
) -> Line:
    costs = [record.cost for record in records if record.cost is not None]
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    failed = sum(record.error is not None for record in records)
    interval = {True: proportion_interval, False: mean_interval}
    return Line(
        row=row,
        scores={
            **{name: interval[metric.proportion](list(scores[name].values())) for name, metric in metrics.items()},
            **whole,
        },
        differences={name: paired_difference(scores[name], first.get(name, {})) for name in metrics},
        nfe=fmean(cost.rows for cost in costs) if costs else None,
        calls=fmean(cost.calls for cost in costs) if costs else None,
        seconds=fmean(cost.seconds for cost in costs) if costs else None,
        peak_bytes=max(peaks, default=None),
        done=len(records) - failed,
        failed=failed,
    )
