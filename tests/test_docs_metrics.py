"""docs/metrics.md says of every metric what its class says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fe.experiments.names import build_metric
from fe.options import describe
from fe.registry import METRICS

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
BETTER = {True: "higher", False: "lower", None: ""}
HEADINGS = ["name", "column", "better", "for", "definition", "weights", "held against"]


def rows() -> list[list[str]]:
    """The cells of every row of the page's tables, without their headings."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row != HEADINGS and not set(row[0]) <= {"-"}]


def test_every_metric_has_one_row() -> None:
    assert sorted(row[0].strip("`") for row in rows()) == sorted(METRICS.builtin)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0].strip("`"))
def test_a_row_says_what_the_class_says(row: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name, column, better, tasks, definition, weights, reference = row
    metric = build_metric(name.strip("`"))
    assert column == ", ".join(filter(None, [metric.label, metric.unit]))
    assert better == BETTER[metric.higher_is_better]
    assert tasks == ", ".join(metric.tasks)
    assert definition
    assert reference
    missing = metric.missing()  # on a machine that has no weights but those that come with the package
    if "is not installed" in missing and not weights.startswith("`fe-toolkit"):
        pytest.skip(missing)
    assert missing == "" if weights == "here" else weights.strip("`") in missing


def test_options_that_are_named_are_there() -> None:
    options = {option for name in METRICS.builtin for option, *_ in describe(METRICS[name])}
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+)=", text)) | set(re.findall(r"\(`([a-z]+)`", text)) | {"against"}
    assert named <= options, named - options
    assert {"over", "net", "model", "scale", "edges"} <= named
