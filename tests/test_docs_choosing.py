"""The figures on the page about choosing are those of the runs that its sections point at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from fe.experiments.results import Results, read_results
from fe.experiments.statistics import Estimate
from fe.experiments.trends import trends

ROOT = Path(__file__).parent.parent
SECTIONS = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8").split("\n## ")[1:]
NUMBER = r"[+-]?\d+(?:\.\d+)?"
WITH_HALF = re.compile(rf"({NUMBER}) ± ({NUMBER})")
WITH_ENDS = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")


@cache
def run(name: str) -> Results:
    (found,) = read_results([ROOT / "results" / name])
    return found


def estimates(results: Results) -> Iterator[Estimate]:
    """Every figure that a run's tables show."""
    for summary in results.summaries:
        for line in summary.lines:
            yield from (*line.scores.values(), *line.differences.values())
        rows = [row for row in results.manifest.rows if row.task == summary.task]
        for trend in trends(rows, results.records, summary.metrics):
            yield from trend.differences.values()


def near(shown: str, value: float) -> bool:
    """Whether `value`, a share perhaps, is shown so, with either sign."""
    digits = len(shown.partition(".")[2])
    return any(f"{abs(scale * value):.{digits}f}" == shown.lstrip("+-") for scale in (1, 100))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_every_figure_is_in_a_run_that_the_section_points_at(section: str) -> None:
    folders = dict.fromkeys(re.findall(r"\]\(\.\./results/([\w-]+)/table\.txt\)", section))
    known = [one for name in folders for one in estimates(run(name))]
    shown = [("half", *found.groups()) for found in WITH_HALF.finditer(section)]
    shown += [("ends", *found.groups()) for found in WITH_ENDS.finditer(section)]
    assert bool(shown) == bool(folders)
    for kind, mean, *rest in shown:
        parts = [(one.half,) if kind == "half" else (one.low, one.high) for one in known]
        found = [near(mean, one.mean) and all(map(near, rest, part)) for one, part in zip(known, parts, strict=True)]
        assert any(found), (mean, rest)


def test_the_page_tells_of_enough() -> None:
    assert sum(len(WITH_HALF.findall(section)) + len(WITH_ENDS.findall(section)) for section in SECTIONS) > 100
