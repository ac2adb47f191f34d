"""Methods kind by kind: what a mean over all kinds of edit hides."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from ..experiments.summary import Summary
from ..metrics.base import Score
from .table import score, stacked


def kinds_table(summary: Summary) -> Table | None:
    """The shares of successes (such as "asked changed") of every method, a column for each kind of edit; None if there is one
    kind, or no such share."""
    shares = {name: metric for name, metric in summary.metrics.items() if metric.proportion}
    if not summary.kinds or not any(line.scores[name].count for line in summary.methods for name in shares):
        return None
    labels = " / ".join(metric.label for metric in shares.values())
    shown = Table(
        title=f"Kind by kind: {labels}, %", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    shown.add_column("method", no_wrap=True)
    for kind, part in summary.kinds.items():
        shown.add_column(f"{kind}\nn = {part.cases}", overflow="fold")
    for place, line in enumerate(summary.methods):
        steps = f" steps={line.row.steps}" if len({other.row.steps for other in summary.methods}) > 1 else ""
        cells = [_cell(part, place, shares) for part in summary.kinds.values()]
        shown.add_row(stacked(f"{line.row.label}{steps}"), *cells)
    return shown


def _cell(part: Summary, place: int, shares: dict[str, Score]) -> str:
    """One method's shares for one kind, one below the other."""
    return "\n".join(score(part.methods[place].scores[name], metric, part.cases) for name, metric in shares.items())
