"""Methods kind by kind: what a mean over all kinds of edit hides."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from ..experiments.summary import Summary
from ..metrics.base import Metric, Score
from .frontier import AXES
from .table import heading_of, score, stacked


def kinds_table(summary: Summary) -> Table | None:
    """The shares of successes (such as "asked changed") of every method, or where there are none its change and preservation, a
    column for each kind of edit; None if there is one kind, or no such metric."""
    told = _told(summary)
    if not summary.kinds or not told:
        return None
    shares = all(metric.proportion for metric in told.values())
    labels = f"{' / '.join(one.label for one in told.values())}, %" if shares else " / ".join(map(heading_of, told.values()))
    shown = Table(title=f"Kind by kind: {labels}", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("method", no_wrap=True)
    for kind, part in summary.kinds.items():
        shown.add_column(f"{escape(kind)}\nn = {part.cases}", overflow="fold")  # data sets name kinds as they like
    for place, line in enumerate(summary.methods):
        steps = f" steps={line.row.steps}" if len({other.row.steps for other in summary.methods}) > 1 else ""
        cells = [_cell(part, place, told) for part in summary.kinds.values()]
        shown.add_row(stacked(f"{line.row.label}{steps}"), *cells)
    return shown


def _told(summary: Summary) -> dict[str, Score]:
    """The metrics of the table, by name; those that scored nothing are none."""
    scored = {name: one for name, one in summary.metrics.items() if any(line.scores[name].count for line in summary.methods)}
    shares = {name: one for name, one in scored.items() if one.proportion}
    pairs = (
        {name: scored[name] for name in pair} for pair in AXES if all(isinstance(scored.get(name), Metric) for name in pair)
    )
    return shares or next(pairs, {})


def _cell(part: Summary, place: int, told: dict[str, Score]) -> str:
    """One method's figures for one kind, one below the other."""
    return "\n".join(score(part.methods[place].scores[name], metric, part.cases) for name, metric in told.items())
