"""How far a run has come, as it is told: rate, time left, failures, and how often."""

from __future__ import annotations

import io

import pytest
from fe.reports import progress
from fe.reports.progress import duration, watched
from rich.console import Console


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 3.0  # a machine that has just started

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def said(clock: Clock, *reports: tuple[float, int, int], total: int = 100) -> list[str]:
    """The plain lines after reports of (seconds, cells done, cells failed)."""
    out = io.StringIO()
    with watched(Console(file=out)) as watch:
        for seconds, done, failed in reports:
            clock.now = 3.0 + seconds
            watch(done, total, failed)
    return out.getvalue().splitlines()


def test_plain_lines_say_how_many_how_fast_and_how_long_yet(clock: Clock) -> None:
    assert said(clock, (0, 0, 0), (20, 10, 0), (40, 20, 3)) == [
        "0 of 100 cells",
        "10 of 100 cells, 30.0/min, 3.0 min left",
        "20 of 100 cells, 30.0/min, 2.7 min left, 3 failed",
    ]


def test_what_a_resumed_run_finds_is_done_but_not_in_its_rate(clock: Clock) -> None:
    assert said(clock, (0, 60, 2), (10, 80, 2)) == ["60 of 100 cells, 2 failed", "80 of 100 cells, 2.0/s, 10 s left, 2 failed"]


def test_a_finished_run_is_one_line(clock: Clock) -> None:
    assert said(clock, (0, 100, 0)) == ["100 of 100 cells"]


def test_the_last_line_comes_whenever_it_is(clock: Clock) -> None:
    assert said(clock, (0, 0, 0), (4, 50, 0), (8, 100, 0)) == ["0 of 100 cells", "100 of 100 cells, 12.5/s"]


def test_lines_grow_rarer_as_a_run_grows_long(clock: Clock) -> None:
    hour = said(clock, *((float(second), second, 0) for second in range(3600)), total=10**6)
    day = said(clock, *((float(second), second, 0) for second in range(0, 2 * 86400, 5)), total=10**6)
    assert len(hour) < 90
    assert len(day) < 400
    assert "left" in day[-1]
    assert day[-1].split(", ")[2].endswith("days left")


def test_a_bar_says_the_time_left_even_of_slow_batches(clock: Clock) -> None:
    out = io.StringIO()
    with watched(Console(file=out, force_terminal=True, width=140)) as watch:
        for seconds, done in ((0, 0), (90, 8), (180, 16)):
            clock.now = 3.0 + seconds
            watch(done, 160, 0)
    assert "5.3/min" in out.getvalue()
    assert "27 min left" in out.getvalue()


def test_durations_are_said_as_people_do() -> None:
    found = [duration(seconds) for seconds in (0.04, 9.94, 9.96, 26.3, 119, 150, 1500, 7169, 7300, 100_000, 200_000, 3_000_000)]
    assert found[:6] == ["0.04 s", "9.9 s", "10 s", "26 s", "119 s", "2.5 min"]
    assert found[6:] == ["25 min", "119 min", "2.0 h", "28 h", "2.3 days", "34.7 days"]
