"""docs/records.md reads a run as it says, and names every field that there is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments.manifest import Manifest
from fe.experiments.records import SCHEMA, Record, Share
from fe.experiments.rows import Heading

PAGE = (Path(__file__).parent.parent / "docs" / "records.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
MIXTURE = "compare --model mixture --cases mixture:3 --set mixture.points=30 --steps 6 --device cpu --solvers euler"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, "run" and "other", which differ in how many draws FlowEdit averages; in the first one, a cell
    failed and came out later, and another one failed for good."""
    folder = tmp_path_factory.mktemp("docs")
    for name, more in (("run", []), ("other", ["--set", "flowedit.n_avg=3"])):
        result = CliRunner().invoke(main, [*MIXTURE.split(), *more, "--out", str(folder / name)])
        assert result.exit_code == 0, result.output
    path = folder / "run" / "records.jsonl"
    *lines, last = path.read_text().splitlines()
    first, final = (
        json.dumps(json.loads(line) | {"cost": None, "scores": {}, "error": why})
        for line, why in ((lines[0], "later it came out"), (last, "no memory"))
    )
    path.write_text("\n".join([first, *lines, final]) + "\n")
    return folder


@pytest.fixture
def shown(runs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What all the Python of the page defines; `means` and `pairs` by the block that made them."""
    monkeypatch.chdir(runs)
    defined: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, "records.md", "exec"), defined)  # our own text
        defined[f"means of {number}"] = defined["means"]
    return defined


def costs(run: Path) -> dict[tuple[str, str, int], float]:
    """The transport cost of every cell that came out, read line by line."""
    lines = map(json.loads, (run / "records.jsonl").read_text().splitlines())
    done = [line for line in lines if line["error"] is None]
    return {(line["row"], line["case"], line["seed"]): line["scores"]["transport-cost"] for line in done}


def test_means_are_those_of_the_lines(runs: Path, shown: dict[str, Any]) -> None:
    found = costs(runs / "run")
    by_row = {row: fmean(value for key, value in found.items() if key[0] == row) for row, _, _ in found}
    assert len(by_row) == 4
    assert shown["means of 0"].to_dict() == pytest.approx(by_row)
    frame = shown["means of 2"]
    assert dict(zip(frame["row"], frame["mean"], strict=True)) == pytest.approx(by_row)


def test_a_failed_cell_is_told_unless_it_came_out_later(shown: dict[str, Any]) -> None:
    failed = shown["failed"]
    assert failed[["row", "case", "seed", "error"]].values.tolist() == [["from-noise", "mixture-0-0002", 0, "no memory"]]


def test_runs_are_paired(runs: Path, shown: dict[str, Any]) -> None:
    a, b = costs(runs / "run"), costs(runs / "other")
    expected = {key: b[key] - a[key] for key in a}
    pairs = shown["pairs"]
    found = {(row, case, seed): change for row, case, seed, change in pairs.itertuples(index=False)}
    assert found == pytest.approx(expected)
    assert len(found) == 11
    assert any(abs(change) > 0.1 for key, change in found.items() if key[0] == "flowedit+euler-6")
    assert all(change == 0 for key, change in found.items() if key[0] == "inversion+euler-6")


def test_every_field_is_explained(runs: Path) -> None:
    """By its name in backquotes, in a table."""
    explained = set(re.findall(r"`([\w.]+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))))
    session = json.loads((runs / "run" / "run.json").read_text())["sessions"][-1]
    names = {field.name for kind in (Record, Manifest, Heading) for field in dataclasses.fields(kind)} | set(session)
    names |= {f"cost.{field.name}" for field in dataclasses.fields(Share)} | {"schema"} | set(session["seconds"])
    assert names - explained == set()
    assert explained - names == {"edit", "reconstruct", "cpu", "cuda", "run.json"}
    assert f"| `schema` | {SCHEMA} |" in PAGE
