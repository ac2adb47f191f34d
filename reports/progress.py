"""How far work has come: a bar on a terminal and in a notebook; for a long run, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..experiments.run import Watch

_EVERY = 10.0  # seconds between plain lines


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
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)


def visible(console: Console) -> bool:
    """Whether a bar can be seen there: on a terminal or in a notebook."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` network calls are done; gives what is to be told the number."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("calls"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@dataclass
class _Pace:
    """Cells a second since the first report; cells that were there before do not count."""

    started: float | None = None
    first: int = 0

    def text(self, done: int) -> str:
        if self.started is None:
            self.started, self.first = time.monotonic(), done
        seconds = time.monotonic() - self.started
        return f"{(done - self.first) / seconds:.1f}/s" if done > self.first and seconds > 0 else ""

    def left(self, done: int, total: int) -> float | None:
        """Seconds still to go at the pace so far."""
        if self.started is None or done == self.first:
            return None
        return (time.monotonic() - self.started) / (done - self.first) * (total - done)


@dataclass
class _Bar:
    progress: Progress
    pace: _Pace = field(default_factory=_Pace)

    def __post_init__(self) -> None:
        self.task = self.progress.add_task("comparing", total=None, rate="", failures="")

    def __call__(self, done: int, total: int, failed: int) -> None:
        failures = f"{failed} failed" if failed else ""
        self.progress.update(self.task, completed=done, total=total, rate=self.pace.text(done), failures=failures)


@dataclass
class _Plain:
    console: Console
    pace: _Pace = field(default_factory=_Pace)
    said: float = 0.0

    def __call__(self, done: int, total: int, failed: int) -> None:
        rate, now = self.pace.text(done), time.monotonic()
        if now - self.said < _EVERY and done < total:
            return
        self.said, left = now, self.pace.left(done, total)
        parts = [f"{done} of {total} cells", rate, f"{left:.0f} s left" if left else "", f"{failed} failed" if failed else ""]
        self.console.print(", ".join(part for part in parts if part), highlight=False)
