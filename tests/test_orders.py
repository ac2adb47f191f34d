"""The observed order: the exponent of errors that are a power of the steps, and the table of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fe.experiments.orders import ERROR, orders
from fe.experiments.records import Record, Share
from fe.experiments.results import read_results
from fe.experiments.rows import Heading
from fe.reports.orders import orders_table

RESULTS = Path(__file__).parents[1] / "results"
COST = Share(1, 2, 2.0, 0.1, 0.1, 1)


def rows(label: str, steps: tuple[int, ...], control: bool = False) -> list[Heading]:
    return [Heading(f"{label}-{n}", label, "reconstruct", n, control, False, (0,)) for n in steps]


def records(headings: list[Heading], error: Callable[[int, int], float], cases: int = 6) -> list[Record]:
    return [
        Record(f"{one.name}{i}", one.name, "reconstruct", f"case-{i}", "", "a", "a", "e", "s", one.steps, 0, COST,
               {ERROR: error(one.steps, i) ** 2})
        for one in headings for i in range(cases)
    ]  # fmt: skip


def test_the_slope_is_the_exponent_whatever_a_case_costs() -> None:
    headings = rows("midpoint", (4, 8, 28))
    (found,) = orders(headings, records(headings, lambda steps, i: 10.0**i * steps**-3.0))
    assert found.method == "midpoint"
    assert list(found.slopes) == [(4, 8), (8, 28)]
    for slope in found.slopes.values():
        assert slope.mean == pytest.approx(3.0)
        assert slope.half == pytest.approx(0.0, abs=1e-9)
        assert slope.count == 6


def test_a_floor_shows_as_no_slope() -> None:
    headings = rows("rk4", (8, 16, 32))
    (found,) = orders(headings, records(headings, lambda steps, i: max(steps**-5.0, 1e-6)))
    assert found.slopes[16, 32].mean < 0.5 < found.slopes[8, 16].mean


def test_one_number_of_steps_controls_and_exact_rows_have_none() -> None:
    one, bounds, exact = rows("euler", (8,)), rows("codec", (4, 8), control=True), rows("alf", (4, 8))
    assert not orders(one, records(one, lambda steps, i: 1.0))
    assert not orders(bounds, records(bounds, lambda steps, i: 1.0))
    assert not orders(exact, records(exact, lambda steps, i: 0.0))


def test_the_table_of_a_run_has_a_column_for_each_pair_of_neighbours() -> None:
    swept, single = read_results([RESULTS / "scenes-reconstruction"]) + read_results([RESULTS / "scenes-default"])
    table = orders_table(swept)
    assert table is not None
    assert [column.header for column in table.columns] == ["method", "4 to 8", "8 to 16", "16 to 28"]
    euler = [next(iter(column.cells)) for column in table.columns]
    assert str(euler[0]) == "euler"
    assert float(str(euler[-1]).split()[0]) == pytest.approx(1.0, abs=0.3)
    assert orders_table(single) is None
