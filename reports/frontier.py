"""What can be had at once: how much an edit changes against how much it keeps, and what an option of a sweep does to both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from ..experiments.results import Results
from ..experiments.summary import Line, Summary
from ..experiments.sweep import parted
from ..experiments.trends import Trend, trends
from ..metrics.base import Score
from .plots import figure_of, save
from .table import difference, heading_of, label_of

AXES: Final = (
    ("changed", "truth-psnr"),
    ("pie-clip-edited", "pie-psnr"),
    ("clip-t", "lpips"),
    ("clip-t", "source-ssim"),
    ("fid", "latent-cost"),
    ("judge-frechet", "latent-cost"),
)
"""Pairs of metrics, change and preservation; the first pair that a comparison has is shown."""
HIGHER: Final = {"source-ssim": True, "latent-cost": False}
"""Whether more of it is more preservation, of metrics that are by themselves better neither high nor low."""
FEWEST: Final = 3
"""Methods that a frontier is drawn of: two can be compared without."""
_MARKERS = "osD^v<>PX"


@dataclass(frozen=True)
class Frontier:
    """The lines of a comparison by two metrics, change (`x`) and preservation (`y`), and those of them that are `best`: no
    other line is better in one and at least as good in the other, by their means."""

    x: str
    y: str
    lines: Sequence[Line]
    best: Sequence[Line]
    metrics: Mapping[str, Score]

    @classmethod
    def of(cls, summary: Summary) -> Frontier | None:
        """The frontier of a task's methods; None where they have no such pair of metrics, or are too few."""
        for x, y in AXES:
            if x in summary.metrics and y in summary.metrics:
                lines = [line for line in summary.methods if line.scores[x].count and line.scores[y].count]
                signs = {name: 1 if _higher(name, summary.metrics[name]) else -1 for name in (x, y)}
                places = [(signs[x] * line.scores[x].mean, signs[y] * line.scores[y].mean) for line in lines]
                best = [line for line, mine in zip(lines, places, strict=True) if not any(_beats(o, mine) for o in places)]
                return cls(x, y, lines, best, summary.metrics) if len(lines) >= FEWEST else None
        return None

    def sentence(self) -> str:
        """The same in words."""
        axes = " against ".join(self.metrics[name].label for name in (self.x, self.y))
        names = ", ".join(f"{line.row.label} with {line.row.steps} steps" for line in self.best)
        if len(self.best) == len(self.lines):
            return f"Frontier ({axes}, by means): every row trades one for the other."
        return f"Frontier ({axes}, by means): no other row has more of both than {names}."


def _higher(name: str, metric: Score) -> bool:
    return HIGHER.get(name, metric.higher_is_better is True)


def _beats(other: tuple[float, float], mine: tuple[float, float]) -> bool:
    return other != mine and other[0] >= mine[0] and other[1] >= mine[1]


def frontier_plot(summaries: Sequence[Summary], path: Path) -> bool:
    """Change against preservation of every method with 95 % intervals; rows of one method that differ in one option or in
    their steps are joined, those that are best have a ring, controls are grey. Returns whether there was anything to draw."""
    drawn = [(summary, found) for summary in summaries if (found := Frontier.of(summary)) is not None]
    if not drawn:
        return False
    entries = max(len(_joined(found.lines)) for _, found in drawn)
    figure = figure_of(len(drawn), height=5.5 + 0.2 * entries)  # room for the legends
    for axes, (summary, found) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _draw(axes, summary, found)
    save(figure, path)
    return True


def _draw(axes: Any, summary: Summary, found: Frontier) -> None:
    for marker, (label, lines) in zip(cycle(_MARKERS), _joined(found.lines).items(), strict=False):
        (container, *_) = axes.errorbar(
            *_values(found, lines), xerr=_bars(found, lines, found.x), yerr=_bars(found, lines, found.y),
            marker=marker, elinewidth=0.7, alpha=0.75, label=label,
        )  # fmt: skip
        for line, x, y in zip(lines, *_values(found, lines), strict=True):
            place = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": "x-small"}
            axes.annotate(_word(line, lines), (x, y), color=container.get_color(), **place)
    axes.scatter(*_values(found, found.best), s=160, facecolors="none", edgecolors="black", label="frontier (by means)")
    for line in summary.lines:
        if line.row.control and not line.row.of_truth and line.scores[found.x].count and line.scores[found.y].count:
            axes.plot(*_values(found, [line]), marker="x", linestyle="", color="grey")
            axes.annotate(line.row.label, tuple(v[0] for v in _values(found, [line])), fontsize="x-small", color="grey")
    for name, axis in ((found.x, axes.xaxis), (found.y, axes.yaxis)):
        metric = found.metrics[name]
        higher = _higher(name, metric)
        axis.set_label_text(f"{heading_of(metric)}, {'higher' if higher else 'lower'} is better")
        axis.set_inverted(not higher)
    axes.set_title("change against preservation: up and to the right is better")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.1))
    axes.grid(alpha=0.3)


def _joined(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by what they are called together: those that differ in nothing but the last option that sets them apart, or,
    without options, in their steps."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        *shared, last = parted(line.row.label)
        name, swept, _ = last.partition("=")
        found.setdefault(" ".join([*shared, f"over {name}"]) if swept and shared else last, []).append(line)
    return found


def _word(line: Line, lines: Sequence[Line]) -> str:
    """What sets a point apart from those it is joined to."""
    value = parted(line.row.label)[-1].partition("=")[2]
    steps = f"{line.row.steps} steps" if len({one.row.steps for one in lines}) > 1 else ""
    return ", ".join(filter(None, (value, steps)))


def _values(found: Frontier, lines: Sequence[Line]) -> tuple[list[float], list[float]]:
    return tuple([_scale(found, name) * line.scores[name].mean for line in lines] for name in (found.x, found.y))  # type: ignore[return-value]


def _bars(found: Frontier, lines: Sequence[Line], name: str) -> tuple[list[float], list[float]]:
    scale, scores = _scale(found, name), [line.scores[name] for line in lines]
    return [scale * (one.mean - one.low) for one in scores], [scale * (one.high - one.mean) for one in scores]


def _scale(found: Frontier, name: str) -> int:
    return 100 if found.metrics[name].unit == "%" else 1


def trends_table(results: Results) -> Table | None:
    """What each option that was swept over numbers does to the scores; None where there is none."""
    rows, metrics = results.manifest.rows, dict[str, Score]()
    found: list[Trend] = []
    for summary in results.summaries:
        of_task = [row for row in rows if row.task == summary.task]
        found += trends(of_task, results.records, summary.metrics)
        metrics.update(summary.metrics)
    shown = [name for name in metrics if any(name in one.differences and one.differences[name].count for one in found)]
    if not found or not shown:
        return None
    table = Table(
        title="What an option does: from its smallest to its largest value, paired over cases",
        title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for heading in ("method", "option", "from", "to"):
        table.add_column(heading, no_wrap=True)
    for name in shown:
        table.add_column(label_of(metrics[name]), overflow="fold")
    for one in found:
        table.add_row(*_cells(one, shown, metrics))
    return table


def _cells(trend: Trend, shown: Sequence[str], metrics: Mapping[str, Score]) -> Iterator[str]:
    yield from (f"{trend.method} ({trend.steps})", trend.option, trend.first, trend.last)
    for name in shown:
        yield difference(trend.differences[name], metrics[name]) if name in trend.differences else ""
