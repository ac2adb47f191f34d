"""Plots of a comparison, drawn without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.summary import Line, Summary
from .table import TITLES, heading_of, stacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_MARKERS = "osD^v<>PX"
_ROOM = 1.06  # so much wider than the dearest row needs
_POINTS = 60  # paths drawn; more hide each other


def quality_plot(summaries: Sequence[Summary], path: Path) -> bool:
    """Each task's deciding score against its NFE, a line a method (see `_joined`), with 95 % intervals. Returns whether there
    was any."""
    drawn = [(summary, name) for summary in summaries if (name := _deciding(summary)) is not None]
    if not drawn:
        return False
    figure = figure_of(len(drawn))
    figure.set_figheight(4.5 + 0.2 * max(len(_joined(summary, name)) for summary, name in drawn))  # room for the legends
    for axes, (summary, name) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _quality(axes, summary, name)
    save(figure, path)
    return True


def _deciding(summary: Summary) -> str | None:
    better = (name for name, metric in summary.metrics.items() if metric.higher_is_better is not None)
    return next((name for name in better if any(line.scores[name].count for line in summary.methods)), None)


def _joined(summary: Summary, name: str) -> dict[str, list[Line]]:
    """The lines of a plot by what they are called, their points in the order of the NFE. Those that differ in one thing only
    are joined: in their steps, or, where each has but one number of steps, in the first option of a sweep."""
    shown = [line for line in summary.methods if line.nfe is not None and line.scores[name].count]
    several = len({line.row.steps for line in shown}) > 1
    found: dict[str, list[Line]] = {}
    for line in sorted(shown, key=lambda line: line.nfe or 0):
        method, *options = stacked(line.row.label).split("\n  ")
        over = [] if several or not options else [f"over {options[0].partition('=')[0]}"]
        label = " ".join([method, *options[len(over) :], *over])
        found.setdefault(label, []).append(line)
    return found


def _quality(axes: Any, summary: Summary, name: str) -> None:
    metric = summary.metrics[name]
    scale = 100 if metric.unit == "%" else 1
    for marker, (label, lines) in zip(cycle(_MARKERS), _joined(summary, name).items(), strict=False):
        means = [line.scores[name].mean * scale for line in lines]
        low = [(line.scores[name].mean - line.scores[name].low) * scale for line in lines]
        high = [(line.scores[name].high - line.scores[name].mean) * scale for line in lines]
        costs = [line.nfe for line in lines]
        axes.errorbar(costs, means, yerr=(low, high), marker=marker, elinewidth=1, capsize=3, alpha=0.8, label=label)
    for line in summary.lines:
        if line.row.control and not line.row.of_truth and line.nfe == 0 and line.scores[name].count:
            axes.axhline(line.scores[name].mean * scale, linestyle=":", color="grey", label=line.row.label)
    better = "higher" if metric.higher_is_better else "lower"
    axes.set(
        xlabel="NFE: network rows a picture", ylabel=f"{heading_of(metric)}, {better} is better", title=TITLES[summary.task]
    )
    axes.set_xlim(0, _ROOM * max(line.nfe or 1 for line in summary.lines))
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14))  # below, where it hides nothing
    axes.grid(alpha=0.3)


def path_plot(paths: Mapping[str, Sequence[Tensor]], path: Path) -> None:
    """How points move from source to result, a panel a method: states (P, 2) along the noise-free path."""
    import torch

    figure = figure_of(len(paths))
    figure.set_layout_engine("compressed")  # the panels keep their aspect, which "constrained" lets run over the titles
    panels = figure.subplots(1, len(paths), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (label, states) in zip(panels, paths.items(), strict=True):
        walked = torch.stack([state[:_POINTS].float().cpu() for state in states]).numpy()  # (knots, points, 2)
        axes.plot(walked[:, :, 0], walked[:, :, 1], color="grey", linewidth=0.6, alpha=0.6)
        axes.scatter(*walked[0].T, s=12, label="source", zorder=3)
        axes.scatter(*walked[-1].T, s=12, label="result", zorder=3)
        axes.set(title=label, aspect="equal")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    save(figure, path)


def figure_of(panels: int, height: float = 4.5) -> Figure:
    """A figure for so many panels side by side, `height` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * panels, height), layout="constrained")
    FigureCanvasAgg(figure)  # its own canvas: no screen, and no state shared with a user's pyplot
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write it as PNG."""
    figure.savefig(path, dpi=120)
