"""A dry run: what it says, how near it comes, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fe.cli.main import main
from fe.experiments.bench import Bench
from fe.experiments.cells import make_cells
from fe.experiments.compare import Prepared, carry_out, open_folder, prepare
from fe.experiments.forecast import Forecast, Load, Measured, forecast
from fe.experiments.plan import Comparison
from fe.experiments.run import Effort
from fe.experiments.words import Method, Shard
from fe.models.base import Setup
from fe.models.mixture import MixtureModel
from fe.reports.forecast import foretold, size
from fe.solvers.base import Solver, Step

METHODS = (Method("flowedit", "euler"), Method("inversion", "heun"))
PLAN = Comparison(
    METHODS, "mixture", "mixture", 5, steps=(6,), settings={"mixture": {"points": "40"}}, setup=Setup(device="cpu")
)
WORDS = ("--model", "mixture", "--cases", "mixture:5", "--set", "mixture.points=40", "--steps", "6", "--device", "cpu")


def compare(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, words)])


def inside(folder: Path) -> Mapping[str, int]:
    """All files of a folder, with when each was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def run(prepared: Prepared, out: Path, effort: Effort) -> None:
    with open_folder(prepared, out, overwrite=False) as folder:
        carry_out(prepared, folder, lambda done, total, failed: None, effort)


def tiny_pictures(tiny_scenes: str, **other: Any) -> Prepared:
    plan = Comparison((Method("flowedit", "euler"),), tiny_scenes, "scenes", 3, steps=(4,), setup=Setup(device="cpu"))
    return prepare(replace(plan, **other))


def test_it_counts_cells_and_network_rows(tmp_path: Path) -> None:
    found = forecast(prepare(PLAN), tmp_path / "out", Effort(batch=2))
    assert {load.row.name: (load.cells, load.todo, load.row.spend.rows) for load in found.loads} == {
        "flowedit+euler-6": (5, 5, 12),
        "inversion+heun-6": (5, 5, 24),
        "no-edit": (5, 5, 0),
        "from-noise": (5, 5, 6),
    }
    assert (found.cells, found.done, found.rows) == (20, 0, 5 * (12 + 24 + 6))
    assert isinstance(found.measured, Measured)
    batch = found.measured
    assert (batch.row.name, batch.cells) == ("flowedit+euler-6", 2)
    assert 2 * (12 * batch.per_row + batch.per_cell) == pytest.approx(batch.seconds)
    assert 0 < 24 * batch.per_row < batch.seconds
    assert found.bytes is not None
    assert found.bytes[1] == 0  # clouds of points are no pictures
    assert not (tmp_path / "out").exists()


def test_seconds_follow_rows_and_cells_and_are_shared_out_among_workers() -> None:
    rows = prepare(PLAN).rows
    batch = Measured(rows[0], cells=2, seconds=1.0, per_row=0.5, per_cell=0.25, record_bytes=100.0, picture_bytes=1000.0)
    loads = (Load(rows[0], cells=5, todo=4), Load(rows[2], cells=5, todo=2))  # 12 rows a cell, and none
    found = Forecast(loads, done=5, original_bytes=300.0, measured=batch)
    assert found.seconds == 4 * 12 * 0.5 + 6 * 0.25
    assert replace(found, workers=3).seconds == found.seconds / 3
    assert found.bytes == (5 * 100.0, 5 * 1000.0 + 300.0)


def test_what_the_folder_holds_is_done_and_left_as_it_is(tmp_path: Path) -> None:
    out, prepared = tmp_path / "out", prepare(PLAN)
    run(prepared, out, Effort(batch=5))
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(lines[:7]) + lines[7][:30])  # killed while it wrote the eighth
    before = inside(tmp_path)
    found = forecast(prepared, out, Effort(batch=5))
    assert (found.cells, found.done) == (20, 7)
    assert [load.todo for load in found.loads] == [0, 5, 5, 5]  # the batch that was cut short is run again whole
    assert isinstance(found.measured, Measured)
    assert found.measured.row.name == "inversion+heun-6"
    assert inside(tmp_path) == before
    assert forecast(prepared, out, Effort(batch=5), overwrite=True).done == 0
    with pytest.raises(ValueError, match="holds a different run"):
        forecast(prepare(replace(PLAN, steps=(7,))), out, Effort())


def test_a_method_is_tried_before_a_control(tmp_path: Path) -> None:
    """Of the first batch only a control is left, so the next batch is tried."""
    out, prepared = tmp_path / "out", prepare(PLAN)
    run(prepared, out, Effort(batch=3))
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(lines[:9]))
    found = forecast(prepared, out, Effort(batch=3))
    assert [load.todo for load in found.loads] == [2, 2, 2, 5]
    assert isinstance(found.measured, Measured)
    assert (found.measured.row.name, found.measured.cells) == ("flowedit+euler-6", 2)


def test_a_finished_run_has_nothing_left(tmp_path: Path) -> None:
    prepared = prepare(PLAN)
    run(prepared, tmp_path / "out", Effort())
    found = forecast(prepared, tmp_path / "out", Effort())
    assert (found.done, found.rows, found.seconds, found.bytes) == (20, 0, None, None)
    assert found.measured is None
    assert foretold(found, tmp_path / "out") == [f"20 of 20 cells are in {tmp_path / 'out'} already. Nothing is left to do."]


def test_cells_that_failed_are_done_unless_they_are_to_be_tried_again(tmp_path: Path) -> None:
    rows = [replace(row, solver=Broken()) if "heun" in row.name else row for row in prepare(PLAN).rows]
    prepared = replace(prepare(PLAN), rows=rows)
    prepared = replace(prepared, cells=make_cells(rows, prepared.cases, "m", "n"))
    run(prepared, tmp_path / "out", Effort())
    assert forecast(prepared, tmp_path / "out", Effort()).done == 20
    again = forecast(prepared, tmp_path / "out", Effort(retry=True))
    assert (again.done, again.measured) == (15, "RuntimeError: not today")


@dataclass(frozen=True)
class Broken(Solver[None]):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """Cannot do a step."""

    order = 1

    def step(self, slope: Any, t0: float, t1: float, x: Any, state: None) -> Step[None]:
        raise RuntimeError("not today")

    def nfe(self, steps: int) -> int:
        return steps


def test_a_batch_that_fails_leaves_the_plan_and_gives_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: Any, latents: Any) -> Any:
        raise RuntimeError("no codec today")

    monkeypatch.setattr(MixtureModel, "decode", decode)
    monkeypatch.chdir(tmp_path)
    result = compare(*WORDS, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Plan: 20 cells" in result.stdout
    assert "Time and disk are not known, since the batch that was tried failed: RuntimeError: no codec today" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_shard_counts_its_own_cells(tmp_path: Path) -> None:
    whole = prepare(PLAN)
    parts = [forecast(replace(whole, shard=Shard(n, 2)), tmp_path, Effort()) for n in (1, 2)]
    assert [part.cells for part in parts] == [12, 8]
    assert sum(part.rows for part in parts) == forecast(whole, tmp_path, Effort()).rows


def test_the_disk_is_what_the_run_takes(tmp_path: Path, tiny_scenes: str) -> None:
    prepared = tiny_pictures(tiny_scenes)
    found = forecast(prepared, tmp_path / "out", Effort(batch=3))
    run(prepared, tmp_path / "out", Effort(batch=3))
    assert found.bytes is not None
    records, pictures = found.bytes
    assert records == pytest.approx((tmp_path / "out" / "records.jsonl").stat().st_size, rel=0.15)
    files = list((tmp_path / "out" / "pictures").rglob("*.png"))
    assert len(files) == found.cells + 6  # a source and a truth for each of three cases
    assert pictures == pytest.approx(sum(path.stat().st_size for path in files), rel=0.25)
    bare = forecast(prepared, tmp_path / "bare", Effort(batch=3, pictures=False))
    assert bare.bytes is not None
    assert bare.bytes[1] == 0


def test_sources_that_are_there_are_not_written_again(tmp_path: Path, tiny_scenes: str) -> None:
    prepared = tiny_pictures(tiny_scenes)
    run(prepared, tmp_path / "out", Effort(batch=3))
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "records.jsonl").write_text(lines[0])
    assert forecast(prepared, tmp_path / "out", Effort(batch=3)).original_bytes == 0
    assert forecast(prepared, tmp_path / "out", Effort(batch=3), overwrite=True).original_bytes > 0


def test_the_first_call_is_in_nobodys_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one step goes before the one that is measured; where the network is compiled, the very batch."""
    tried: list[tuple[int, int]] = []
    edit = Bench.edit

    def seen(self: Any, group: Any) -> Any:
        tried.append((group.cells[0].row.steps, len(group.cells)))
        return edit(self, group)

    monkeypatch.setattr(Bench, "edit", seen)
    prepared = prepare(PLAN)
    forecast(prepared, tmp_path, Effort(batch=4))
    assert tried == [(1, 4), (6, 4)]
    tried.clear()
    prepared.model.network.compile(backend="eager")
    forecast(prepared, tmp_path, Effort(batch=4))
    assert tried == [(6, 4), (6, 4)]


def test_the_command_shows_the_plan_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = compare(*WORDS, "--batch", "3", "--workers", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["flowedit+euler", "edit", "6", "12", "5", "60"] in lines
    assert ["no", "edit", "edit", "0", "5", "0"] in lines  # no evaluations, so no steps
    said = " ".join(result.stdout.split())
    assert re.search(r"20 cells, 150 network rows, in results/compare-mixture-\w{8}\. Nothing was written\.", said)
    assert re.search(r"about [\d.]+ kB of records and 0 kB of pictures", said)
    assert re.search(r"about [\d.]+ s with 2 workers \(measured: 3 cells of inversion\+euler-6 in [\d.]+ s\)", said)
    assert list(tmp_path.iterdir()) == []


def test_the_command_counts_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert compare(*WORDS, "--out", out).exit_code == 0
    before = inside(tmp_path)
    result = compare(*WORDS, "--out", out, "--dry-run")
    assert result.exit_code == 0
    assert f"20 of 20 cells are in {out} already" in result.stdout
    assert "Nothing is left to do." in result.stdout
    assert "holds a different run" in compare(*WORDS, "--seeds", "3", "--out", out, "--dry-run").stderr
    assert inside(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_can_be_planned_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert compare(*WORDS, "--out", tmp_path / "out", "--dry-run").exit_code == 0


def test_sizes_are_said_as_people_do() -> None:
    assert [size(count) for count in (0, 420, 99_940, 161_000, 999_600)] == ["0 kB", "0.4 kB", "100 kB", "161 kB", "1.0 MB"]
    assert [size(count) for count in (25.4e9, 7e15)] == ["25 GB", "7000 TB"]
