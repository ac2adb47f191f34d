"""A comparison that has not run yet: its plan as a table, and what it will take in words."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from ..experiments.forecast import Forecast
from .progress import duration


def plan_table(forecast: Forecast) -> Table:
    """A line a row: what it runs, and how much of it there is."""
    title = f"Plan: {forecast.cells} cells"
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("method", "task"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("steps", "NFE", "cells", *(["to do"] if forecast.done else []), "network rows"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for load in forecast.loads:
        row, nfe = load.row, load.row.spend.rows
        cells = [load.cells, load.todo] if forecast.done else [load.cells]
        numbers = [row.steps if nfe else "", nfe, *cells, f"{load.todo * nfe:,}"]
        shown.add_row(row.label, row.task, *map(str, numbers))
    return shown


def foretold(forecast: Forecast, folder: Path) -> list[str]:
    """What the run in `folder` would take, a line each: cells, disk, time."""
    held = f"{forecast.done} of {forecast.cells} cells are in {folder} already"
    measured, seconds, added = forecast.measured, forecast.seconds, forecast.bytes
    if measured is None:
        return [f"{held}. Nothing is left to do."]
    left = f"{forecast.cells - forecast.done} cells, {forecast.rows:,} network rows"
    there = f"{held}. Left: {left}." if forecast.done else f"{left}, in {folder}."
    lines = [f"{there} Nothing was written."]
    if isinstance(measured, str) or seconds is None or added is None:
        return [*lines, f"Time and disk are not known, since the batch that was tried failed: {measured}"]
    records, pictures = added
    among = f" with {forecast.workers} workers" if forecast.workers > 1 else ""
    tried = "1 cell" if measured.cells == 1 else f"{measured.cells} cells"
    how = f"{tried} of {measured.row.name} in {duration(measured.seconds)}"
    return [
        *lines,
        f"Disk: about {size(records)} of records and {size(pictures)} of pictures.",
        f"Time: about {duration(seconds)}{among} (measured: {how}).",
    ]


def size(count: float) -> str:
    """Bytes as people read them: "840 kB", "1.3 MB", "25 GB"."""
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if 0 < value < 9.95 else f"{value:.0f} {units[0]}"
