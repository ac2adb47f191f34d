"""Time grids and ticks."""

from __future__ import annotations

import math

import pytest
from fe.ode import Tick, TimeGrid


def test_uniform_grid_ends_exactly_and_steps_equally() -> None:
    grid = TimeGrid.uniform(7, 0.9, 0.2)
    assert (grid.times[0], grid.times[-1], grid.steps) == (0.9, 0.2, 7)
    assert [t1 - t0 for t0, t1 in grid.intervals()] == pytest.approx([-0.1] * 7)


def test_reversed_walks_the_same_knots() -> None:
    grid = TimeGrid((1.0, 0.7, 0.1, 0.0))
    assert grid.reversed().times == (0.0, 0.1, 0.7, 1.0)
    assert grid.reversed().reversed() == grid


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((), "at least 2 knots, got 0"),
        ((0.5,), "at least 2 knots, got 1"),
        ((0.5, 0.5), "rise or fall strictly"),
        ((0.0, 0.6, 0.5), "rise or fall strictly"),
        ((1.0, 0.5, 0.5, 0.0), "rise or fall strictly"),
        ((1.1, 0.0), r"lie in \[0, 1\]"),
        ((1.0, -0.1), r"lie in \[0, 1\]"),
        ((1.0, math.nan, 0.0), r"lie in \[0, 1\]"),
        ((math.inf, 0.0), r"lie in \[0, 1\]"),
    ],
)
def test_grids_that_cannot_be_walked_are_refused(times: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeGrid(times)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_needs_a_step(steps: int) -> None:
    with pytest.raises(ValueError, match="at least 2 knots"):
        TimeGrid.uniform(steps)


def test_truncated_counts_from_the_image_end() -> None:
    grid = TimeGrid((1.0, 0.8, 0.5, 0.1, 0.0))
    assert grid.truncated(4).times == grid.times
    assert grid.truncated(2).times == (0.5, 0.1, 0.0)
    assert grid.truncated(3, 1).times == (0.8, 0.5, 0.1)
    assert grid.truncated(4, 3).times == (1.0, 0.8)


def test_the_last_steps_are_all_where_there_are_no_more() -> None:
    grid = TimeGrid((1.0, 0.8, 0.5, 0.1, 0.0))
    assert grid.last(2).times == (0.5, 0.1, 0.0)
    assert grid.last(None) == grid.last(4) == grid.last(9) == grid


@pytest.mark.parametrize(("first", "last"), [(5, 0), (2, 2), (1, 3), (3, -1), (0, 0)])
def test_truncated_refuses_steps_that_are_not_there(first: int, last: int) -> None:
    with pytest.raises(ValueError, match=f"<= 4 steps, got first={first}, last={last}"):
        TimeGrid.uniform(4).truncated(first, last)


def test_truncated_refuses_a_rising_grid() -> None:
    with pytest.raises(ValueError, match="truncate the falling grid"):
        TimeGrid.uniform(4, 0.0, 1.0).truncated(2)


def test_steps_have_the_same_number_in_both_directions() -> None:
    grid = TimeGrid((1.0, 0.8, 0.5, 0.0))
    down = [grid.number(Tick(t0, t0, t1)) for t0, t1 in grid.intervals()]
    up = [grid.reversed().number(Tick(t0, t0, t1)) for t0, t1 in grid.reversed().intervals()]
    assert down == [3, 2, 1]
    assert up == [1, 2, 3]


def test_tick_knows_its_interval_and_its_place() -> None:
    assert Tick(0.5, 0.2, 0.6).interval == Tick(0.5, 0.6, 0.2).interval == (0.2, 0.6)
    assert Tick(0.2, 0.2, 0.6).node == 0.0
    assert Tick(0.6, 0.2, 0.6).node == 1.0
    assert Tick(0.5, 0.6, 0.2).node == pytest.approx(0.25)
