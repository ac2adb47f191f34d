"""The reference runs under results/ are read by the code of today, and their tables are what it makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fe.experiments.results import read_results
from fe.reports.page import Page

RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "results").glob("*/run.json"))
COMMITTED = [run for run in RUNS if (run.parent / "README.md").read_text(encoding="utf-8").count(f"`{run.name}`")]


def test_there_are_runs() -> None:
    assert {"scenes-default", "scenes-editors", "mixture"} <= {run.name for run in COMMITTED}


@pytest.mark.parametrize("run", COMMITTED, ids=lambda run: run.name)
def test_a_committed_table_is_what_a_report_prints(run: Path) -> None:
    (results,) = read_results([run])
    assert Page.of(results).text() == (run / "table.txt").read_text(encoding="utf-8")
    assert not results.failures
