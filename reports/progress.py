"""How far work has come: a bar on a terminal and in a notebook; for a long run, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..experiments.run import Watch

_OFTEN, _SELDOM = 10.0, 600.0
"""Seconds between plain lines: from ten on, more and more as a run grows long, so that the log of days stays short."""


@contextmanager
def watched(console: Console) -> Iterator[Watch]:
    """Show progress on `console` inside the `with` block: cells done, rate, time left, failures."""
    if not visible(console):
        yield _Plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),  # rich's own column forgets what is older than 30 s, less than a batch may take
        TextColumn("[red]{task.fields[failures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)


def visible(console: Console) -> bool:
    """Whether a bar can be seen there: on a terminal or in a notebook."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def counted(console: Console, what: str, total: int | None, unit: str = "calls") -> Iterator[Callable[[int], None]]:
    """Show how many of `total` network calls, or other things, are done; gives what is to be told the number. total: None
    where it is not known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not visible(console)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def duration(seconds: float) -> str:
    """Seconds as people read them: "0.04 s", "2.6 s", "26 s", "34 min", "5.2 h", "3.1 days"."""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    for unit, length, until in (("s", 1.0, 119.5), ("min", 60.0, 119.5), ("h", 3600.0, 47.95)):
        count = seconds / length
        if count < until:
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


@dataclass
class _Pace:
    """Cells in a time since the first report; cells that were there before do not count."""

    started: float = 0.0
    first: int | None = None

    def seconds(self, done: int) -> float:
        """Since the first report, which this may be."""
        if self.first is None:
            self.started, self.first = time.monotonic(), done
        return time.monotonic() - self.started

    def words(self, done: int, total: int) -> tuple[str, str]:
        """The rate and the time left, each empty where it is not known yet, or where nothing is left."""
        seconds = self.seconds(done)
        made = done - (self.first or 0)
        if made <= 0 or seconds <= 0:
            return "", ""
        left = seconds / made * (total - done)
        return _rate(made / seconds), f"{duration(left)} left" if left else ""


def _rate(per_second: float) -> str:
    for unit, length in (("s", 1), ("min", 60)):
        if per_second * length >= 1:
            return f"{per_second * length:.1f}/{unit}"
    return f"{per_second * 3600:.1f}/h"


@dataclass
class _Bar:
    progress: Progress
    pace: _Pace = field(default_factory=_Pace)

    def __post_init__(self) -> None:
        self.task = self.progress.add_task("comparing", total=None, rate="", left="", failures="")

    def __call__(self, done: int, total: int, failed: int) -> None:
        rate, left = self.pace.words(done, total)
        failures = f"{failed} failed" if failed else ""
        self.progress.update(self.task, completed=done, total=total, rate=rate, left=left, failures=failures)


@dataclass
class _Plain:
    console: Console
    pace: _Pace = field(default_factory=_Pace)
    said: float = -math.inf  # at how many seconds the last line came

    def __call__(self, done: int, total: int, failed: int) -> None:
        now = self.pace.seconds(done)
        if now - self.said < max(_OFTEN, min(_SELDOM, now / 20)) and done < total:
            return
        self.said = now
        parts = [f"{done} of {total} cells", *self.pace.words(done, total), f"{failed} failed" if failed else ""]
        self.console.print(", ".join(part for part in parts if part), highlight=False)
