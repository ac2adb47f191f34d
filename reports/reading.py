"""What a table says, in one plain sentence for each task, computed from its numbers."""

from __future__ import annotations

import math

from ..experiments.summary import Line, Summary
from ..metrics.base import Score
from .table import count

_TASKS = {"reconstruct": "Reconstruction", "edit": "Edits"}


def reading(summary: Summary) -> str:
    """Which row does best by the deciding metric (the first that has a better end), at what cost, and whether it is clear of
    the first row. Empty if there is nothing to read."""
    decided = [(name, metric) for name, metric in summary.metrics.items() if metric.higher_is_better is not None]
    if not decided:
        return ""
    name, metric = decided[0]
    lines = [line for line in summary.methods if line.scores[name].count]
    if not lines:
        return ""
    sign = 1 if metric.higher_is_better else -1
    best = max(lines, key=lambda line: sign * line.scores[name].mean)
    first = summary.methods[0]
    opening = f"{_TASKS[summary.task]}: {_title(best, summary)} has the {_superlative(metric)}, {_value(best, name, metric)}"
    cost = f" at {count(best.nfe)} evaluations a picture"
    if len(lines) == 1:
        return f"{opening}{cost}."
    if best is first:
        rest = [line for line in lines[1:] if not math.isnan(line.differences[name].low)]
        return f"{opening}{cost}; {_rest_behind_first(rest, name, summary)}." if rest else f"{opening}{cost}."
    if not first.scores[name].count:  # its pictures are what the others are held against
        return f"{opening}{cost}."
    beside = f", against {_value(first, name, metric)} at {count(first.nfe)} of {_title(first, summary)}"
    difference = best.differences[name]
    if math.isnan(difference.low):
        return f"{opening}{cost}{beside}."
    clear = "is clear of zero" if difference.excludes_zero else "is not clear of zero"
    return (
        f"{opening}{cost}{beside}; the paired difference {clear} (95 %, n = {difference.count}).{_besides(best, name, summary)}"
    )


def _besides(best: Line, decided: str, summary: Summary) -> str:
    """Where else the best row clearly differs from the first, for better or worse."""
    first = summary.methods[0]
    others = [
        f"{metric.label} {_value(best, name, metric)} against {_value(first, name, metric)}{_worse(best, name, metric)}"
        for name, metric in summary.metrics.items()
        if name != decided and best.differences[name].excludes_zero
    ]
    return f" It also has {', '.join(others)}." if others else ""


def _worse(line: Line, name: str, metric: Score) -> str:
    """A warning where the metric says that the difference from the first row is for the worse."""
    if metric.higher_is_better is None or metric.higher_is_better == (line.differences[name].mean > 0):
        return ""
    return " (worse)"


def _rest_behind_first(rest: list[Line], name: str, summary: Summary) -> str:
    behind = [line for line in rest if line.differences[name].excludes_zero]
    if len(behind) == len(rest):
        return "every other row is behind it by more than its 95 % interval"
    tied = ", ".join(_title(line, summary) for line in rest if line not in behind)
    return f"the difference from {tied} is not clear of zero"


def _title(line: Line, summary: Summary) -> str:
    same = sum(other.row.label == line.row.label for other in summary.methods)
    return f"{line.row.label} with {line.row.steps} steps" if same > 1 else line.row.label


def _superlative(metric: Score) -> str:
    return f"{'highest' if metric.higher_is_better else 'lowest'} {metric.label}"


def _value(line: Line, name: str, metric: Score) -> str:
    mean = line.scores[name].mean * (100 if metric.unit == "%" else 1)
    return f"{mean:.{metric.digits}f}{f' {metric.unit}' if metric.unit else ''}"
