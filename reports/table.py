"""The tables of a comparison, and one line that reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from ..experiments.statistics import Estimate
from ..experiments.summary import Line, Summary
from ..experiments.sweep import parted
from ..metrics.base import Score, SetMetric

TITLES = {"reconstruct": "Reconstruction: invert the picture, then generate it again", "edit": "Edits"}
BETTER, WORSE, OTHER = "▲", "▼", "◆"
WIDEST = 10_000
"""Columns that no table takes."""
UNTRAINED = "random weights: speed and memory only"
"""What every output of a model says that was never trained."""


def table(summary: Summary) -> Table:
    """One task as a table: cost beside quality, methods first, controls apart. With four scores it is 116 columns wide, and
    folds its cells to be readable from 80. Options that set rows apart stand under their method."""
    title = f"{TITLES[summary.task]} (n = {summary.cases} {'case' if summary.cases == 1 else 'cases'})"
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    peaks = any(line.peak_bytes is not None for line in summary.lines)
    failures = any(line.failed for line in summary.lines)
    shown.add_column("method", no_wrap=True)
    for heading in ("steps", "NFE", "calls"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for metric in summary.metrics.values():
        shown.add_column(label_of(metric), overflow="fold")
    for heading in ["seconds", *(["peak\nGiB"] if peaks else []), *(["failed"] if failures else [])]:
        shown.add_column(heading, justify="right", no_wrap=True)
    for group in (summary.methods, tuple(line for line in summary.lines if line.row.control)):
        for line in group:
            shown.add_row(*_cells(line, summary, peaks, failures), end_section=line is group[-1])
    return shown


def put(console: Console, tables: Sequence[Table]) -> None:
    """Print tables with no word or number broken: on a narrow screen cells fold between words, those on the right first, then
    the gaps between columns shrink, and then lines run over its edge."""
    wide = console.width
    for shown in tables:
        spans = [_span(column, console) for column in shown.columns]
        usual = shown.padding, shown.show_edge
        least, most = (sum(ends) for ends in zip(*spans, strict=True))
        if most + _gaps(shown, console, most) > wide:
            if least + _gaps(shown, console, most) > wide:
                shown.padding, shown.show_edge = 0, False
            room = max(0, wide - _gaps(shown, console, most) - least)
            console.width = max(wide, least + _gaps(shown, console, most))
            for column, (low, high) in zip(shown.columns, spans, strict=True):
                column.width = min(high, low + room)
                room -= column.width - low
        console.print(shown)
        console.width, (shown.padding, shown.show_edge) = wide, usual
        for column in shown.columns:
            column.width = None  # as it was, for another console


def _span(column: Column, console: Console) -> tuple[int, int]:
    """The width of a column where every cell is folded between all of its words, and where none is."""
    cells = [Measurement.get(console, console.options.update(width=WIDEST), cell) for cell in (column.header, *column.cells)]
    most = max(cell.maximum for cell in cells)
    return most if column.no_wrap else max(cell.minimum for cell in cells), most


def _gaps(shown: Table, console: Console, most: int) -> int:
    """What a table takes beside its columns, which are `most` wide where nothing folds."""
    return Measurement.get(console, console.options.update(width=WIDEST), shown).maximum - most


def notes(summaries: Sequence[Summary], on_gpu: bool, trained: bool = True) -> str:
    """What the headings and the signs in the tables mean."""
    said = [
        *(() if trained else (f"{UNTRAINED.capitalize()}.",)),
        "NFE: network rows for one picture; calls: network calls for a batch; both counted at the network.",
        "seconds: editing one picture, its part of the batch's time.",
        f"peak: memory {'on the GPU' if on_gpu else 'of the whole process, libraries and weights included'}.",
        "± and [ ]: 95 % interval over cases.",
    ]
    sets = [metric.label for summary in summaries for metric in summary.metrics.values() if isinstance(metric, SetMetric)]
    if sets:
        said.append(
            f"{', '.join(dict.fromkeys(sets))}: of all pictures of a row together, so without a paired difference; [ ] there: "
            "bootstrap over cases, which leaves out what such a distance is too large by where pictures are few."
        )
    if any(line.scores[name].missing for summary in summaries for line in summary.lines for name in summary.metrics):
        said.append("n=: the cases in a mean where it is not defined for all of them; -: for none.")
    if any(len(summary.methods) > 1 for summary in summaries):
        said.append(
            f"Under a value: its paired difference from the first row; {BETTER} better, {WORSE} worse, {OTHER} other, "
            "where its 95 % interval leaves zero out."
        )
    return " ".join(said)


def stacked(label: str) -> str:
    """A row's label with the options that set it apart in a sweep one below the other: "flowedit+euler n_max=19" on two
    lines."""
    return "\n  ".join(parted(label))


def label_of(metric: Score) -> str:
    """A metric's heading on two lines, its unit below."""
    return f"{metric.label}\n{metric.unit}".strip()


def heading_of(metric: Score) -> str:
    """A metric's heading with its unit."""
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _cells(line: Line, summary: Summary, peaks: bool, failures: bool) -> list[str]:
    row = line.row
    cells = [stacked(row.label), "" if row.control and not line.nfe else str(row.steps), count(line.nfe), count(line.calls)]
    for name, metric in summary.metrics.items():
        compared = not row.control and line is not summary.methods[0]
        value, apart = score(line.scores[name], metric, summary.cases), difference(line.differences[name], metric)
        cells.append(f"{value}\n[dim]{apart}[/dim]" if compared and apart else value)
    cells.append("" if line.seconds is None else seconds(line.seconds))
    if peaks:
        cells.append("" if line.peak_bytes is None else f"{line.peak_bytes / 2**30:.2f}")
    if failures:
        cells.append(str(line.failed) if line.failed else "")
    return cells


def count(value: float | None) -> str:
    """A number of evaluations: whole unless batches differed."""
    if value is None:
        return ""
    return f"{value:.0f}" if math.isclose(value, round(value), abs_tol=1e-9) else f"{value:.1f}"


def seconds(value: float) -> str:
    """Seconds with three figures or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def score(estimate: Estimate, metric: Score, cases: int) -> str:
    """A mean with its interval, and the number of cases where it is not all of them: "21.30 ±0.45"; "-" where it is not
    defined, nothing where nothing was scored."""
    if estimate.count == 0:
        return "-" if estimate.missing else ""
    number = f"{_shown(estimate.mean, metric):.{metric.digits}f}"
    fewer = f" n={estimate.count}" if estimate.count < cases else ""
    if math.isnan(estimate.low):
        return number + fewer
    if metric.proportion or isinstance(metric, SetMetric):
        low, high = (f"{_shown(end, metric):.{metric.digits}f}" for end in (estimate.low, estimate.high))
        return f"{number} \\[{low}, {high}]{fewer}"  # the backslash keeps rich from reading markup
    return f"{number} ±{_shown(estimate.half, metric):.{metric.digits}f}{fewer}"


def difference(estimate: Estimate, metric: Score) -> str:
    """A paired difference with its interval, marked where the interval leaves zero out: "+0.42 ±0.21 ▲"."""
    if estimate.count == 0:
        return ""
    number = f"{_shown(estimate.mean, metric):+.{metric.digits}f}"
    if math.isnan(estimate.low):
        return number
    mark = ""
    if estimate.excludes_zero:
        better = metric.higher_is_better
        mark = f" {OTHER}" if better is None else f" {BETTER}" if better == (estimate.mean > 0) else f" {WORSE}"
    return f"{number} ±{_shown(estimate.half, metric):.{metric.digits}f}{mark}"


def _shown(value: float, metric: Score) -> float:
    return value * 100 if metric.unit == "%" else value
