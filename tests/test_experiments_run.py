"""A comparison as it runs: what is planned, recorded, repeated, resumed, and what a failure costs."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor
from fe.experiments import sources
from fe.experiments.cells import make_cells
from fe.experiments.compare import Prepared, carry_out, open_folder, paths, prepare
from fe.experiments.execute import edit_cases
from fe.experiments.fingerprint import cell_key, hash_case, hash_model
from fe.experiments.folder import check_writable
from fe.experiments.names import build_cases
from fe.experiments.plan import Comparison, scores_for
from fe.experiments.records import Record, read_records
from fe.experiments.rows import make_rows
from fe.experiments.run import Effort
from fe.experiments.summary import summarise
from fe.experiments.words import Method
from fe.models.mixture import MixtureModel
from fe.options import OptionError

METHODS = (Method("inversion", "euler"), Method("flowedit", "euler"), Method("flowedit", "fireflow"))
PLAN = Comparison(
    methods=METHODS,
    model="mixture",
    cases="mixture",
    count=5,
    steps=(6,),
    settings={"mixture": {"points": "40"}},
)


def silent(done: int, total: int, failed: int) -> None:
    """Nobody watches."""


def ran(prepared: Prepared, out: Path, batch: int = 8) -> list[Record]:
    with open_folder(prepared, out, overwrite=False) as folder:
        carry_out(prepared, folder, silent, Effort(batch))
    return list(read_records(out / "records.jsonl"))


def scores(records: list[Record]) -> dict[str, dict[str, float]]:
    return {record.key: record.scores for record in records}


def assert_close(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-5)


def test_a_comparison_has_a_row_for_each_method_and_the_controls() -> None:
    prepared = prepare(PLAN)
    assert [row.name for row in prepared.rows] == [
        "inversion+euler-6",
        "flowedit+euler-6",
        "flowedit+fireflow-6",
        "no-edit",
        "from-noise",
    ]
    assert [row.spend.rows for row in prepared.rows] == [12, 12, 14, 0, 6]
    assert len(prepared.cells) == 25 == len({cell.key for cell in prepared.cells})


def test_pictures_are_reconstructed_once_a_solver_and_bounded_by_the_codec() -> None:
    plan = replace(PLAN, methods=(Method("inversion", "alf"), Method("flowedit", "alf")), steps=(4, 8))
    cases = [Case("a", torch.zeros(2, 2), "source", "target", truth=torch.zeros(2, 2))]
    rows = make_rows(plan, MixtureModel(), cases, ("reconstruct", "edit"))
    assert [row.name for row in rows if row.task == "reconstruct"] == [
        "reconstruct-alf-4",
        "reconstruct-alf-8",
        "reconstruct-alf-state-carried-4",
        "reconstruct-alf-state-carried-8",
        "reconstruct-codec",
    ]
    assert [row.spend.rows for row in rows if row.task == "reconstruct"] == [10, 18, 9, 17, 0]
    assert [row.name for row in rows if row.control] == ["reconstruct-codec", "no-edit", "from-noise", "codec-of-the-truth"]
    truth = replace(cases[0], truth=torch.ones(2, 2))
    assert torch.equal(rows[-1].prepared(truth).picture, torch.ones(2, 2))
    assert rows[0].prepared(truth).target == "source"


def test_only_rows_that_draw_noise_run_with_every_seed() -> None:
    rows = prepare(replace(PLAN, seeds=(3, 4))).rows
    assert {row.label: row.seeds for row in rows} == {
        "inversion+euler": (3,),
        "flowedit+euler": (3, 4),
        "flowedit+fireflow": (3, 4),
        "no edit": (3,),
        "from noise": (3, 4),
    }


def test_matched_evaluations_choose_each_rows_steps() -> None:
    rows = prepare(replace(PLAN, match_nfe=48)).rows
    assert [(row.steps, row.spend.rows) for row in rows[:3]] == [(24, 48), (24, 48), (23, 48)]


def test_records_say_what_ran_and_what_it_cost(tmp_path: Path) -> None:
    records = ran(prepare(PLAN), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[0])
    assert set(line) == {
        *("schema", "key", "row", "task", "case", "kind", "editor", "solver", "steps", "seed"),
        *("source", "target", "session", "picture", "cost", "scores", "counts", "error"),
    }
    flowedit = next(record for record in records if record.row == "flowedit+fireflow-6")
    assert flowedit.cost is not None
    assert (flowedit.cost.batch, flowedit.cost.calls, flowedit.cost.rows) == (5, 7, 14.0)
    assert "n_max=1000000" in flowedit.editor
    assert Record.from_json(flowedit.to_json()) == flowedit
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {"schema", "plan", "comparison", "rows", "cases", "metrics", "cells", "device", "sessions"} <= set(about)
    assert {"command", "versions", "device", "commit", "batch"} <= set(about["sessions"][0])


def test_a_score_that_is_not_defined_is_null_in_the_file() -> None:
    record = Record("k", "r", "edit", "c", "", "", "", "e", "s", 1, 0, scores={"psnr": math.nan, "rmse": 1.0})
    assert json.loads(record.to_json())["scores"] == {"psnr": None, "rmse": 1.0}
    assert math.isnan(Record.from_json(record.to_json()).scores["psnr"])


def test_running_again_gives_the_same_numbers(tmp_path: Path) -> None:
    first, second = (scores(ran(prepare(PLAN), tmp_path / name)) for name in ("a", "b"))
    assert first == second


def test_the_batch_size_changes_nothing_but_rounding(tmp_path: Path) -> None:
    together, alone = (scores(ran(prepare(PLAN), tmp_path / str(batch), batch)) for batch in (8, 1))
    assert_close(alone, together)


@dataclass(frozen=True)
class Picky(Editor):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """Cannot do with one particular case, alone or among others; makes another one infinite."""

    def edit(self, model: Any, request: Any, solver: Any, grid: Any, noise: Any, *, keep_path: bool = False) -> Edit:
        means = request.latent.mean(dim=(1, 2))
        if ((means - 100).abs() < 30).any():
            raise RuntimeError("this one is beyond me")
        return Edit(torch.where((means > 200)[:, None, None], math.inf, request.latent))


def odd_cases() -> Prepared:
    cases = list(MixtureCases(points=9).take(4))
    cases[1] = replace(cases[1], content=cases[1].picture + 100)
    cases[2] = replace(cases[2], content=cases[2].picture + 300)
    prepared = prepare(PLAN)
    rows = [replace(prepared.rows[0], editor=Picky()), prepared.rows[1]]
    return replace(prepared, cases=cases, rows=rows, cells=make_cells(rows, cases, "m", "n"))


def picky(out: Path) -> Any:
    prepared = odd_cases()
    with open_folder(prepared, out, overwrite=False) as folder:
        return carry_out(prepared, folder, silent)


@pytest.mark.parametrize("first", [0, 1], ids=["keeps no path", "fails"])
def test_paths_are_those_of_edits_that_came_out_and_have_one(first: int, tmp_path: Path) -> None:
    """So a run does not end by an error at its very end."""
    prepared = odd_cases()
    prepared = replace(prepared, cells=[cell for cell in prepared.cells if cell.case is prepared.cases[first]])
    with open_folder(prepared, tmp_path, overwrite=False) as folder:
        results = carry_out(prepared, folder, silent)
    assert list(paths(prepared, results)) == ["flowedit+euler-6"]


def test_a_failing_cell_is_recorded_with_its_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    results = picky(tmp_path)
    records, (summary,) = results.records, results.summaries
    errors = {record.case: record.error for record in records if record.error is not None}
    assert errors == {
        "mixture-0-0001": "RuntimeError: this one is beyond me",
        "mixture-0-0002": "FloatingPointError: the edited latent is not finite; use more steps or a lower guidance scale",
    }
    assert len(records) == 8
    assert [(line.done, line.failed) for line in summary.lines] == [(2, 2), (4, 0)]
    assert summary.lines[0].scores["transport-cost"].count == 2
    assert summary.lines[1].differences["transport-cost"].count == 2  # paired where both have a result
    assert str(results.failures[0]) == ("mixture-0-0001 in inversion+euler-6: RuntimeError: this one is beyond me")


def test_a_run_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = ran(prepare(PLAN), tmp_path / "whole")
    half = tmp_path / "half"
    ran(prepare(PLAN), half)
    lines = (half / "records.jsonl").read_text().splitlines(keepends=True)
    (half / "records.jsonl").write_text("".join(lines[:7]) + lines[7][:40])  # killed while it wrote the eighth
    seen: list[tuple[int, int, int]] = []
    prepared = prepare(PLAN)
    with open_folder(prepared, half, overwrite=False) as folder:
        carry_out(prepared, folder, lambda *now: seen.append(now))
    assert seen[0] == (7, 25, 0)
    assert seen[-1] == (25, 25, 0)
    assert (half / "records.jsonl").read_text().startswith("".join(lines[:7]))
    assert_close(scores(read_records(half / "records.jsonl")), scores(whole))


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    def stop(done: int, total: int, failed: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    prepared = prepare(PLAN)
    with open_folder(prepared, tmp_path, overwrite=False) as folder:
        with pytest.raises(KeyboardInterrupt):
            carry_out(prepared, folder, stop)
        assert len(folder.records()) == 10


def test_a_folder_holds_one_comparison(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran(prepare(PLAN), out)
    other = prepare(replace(PLAN, steps=(7,)))
    with pytest.raises(ValueError, match="holds a different run"), open_folder(other, out, overwrite=False):
        pass
    with open_folder(other, out, overwrite=True):
        pass
    assert not (out / "records.jsonl").exists()
    assert json.loads((out / "run.json").read_text())["plan"] == other.hash


def test_an_edited_metric_makes_another_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells are the same ones; what they were scored with is not."""
    before = prepare(PLAN)
    name, again = before.name, sources.read
    ran(before, tmp_path)

    def otherwise(name: str) -> Any:
        return again(name)._replace(hash="another") if name == "fe.metrics.mixture" else again(name)

    monkeypatch.setattr(sources, "read", otherwise)
    after = prepare(PLAN)
    assert [cell.key for cell in after.cells] == [cell.key for cell in before.cells]
    assert after.name != name
    with pytest.raises(ValueError, match="holds a different run"), open_folder(after, tmp_path, overwrite=False):
        pass


def test_a_folder_in_use_for_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty and holds no run"), open_folder(prepare(PLAN), tmp_path, overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.txt"]


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        check_writable(tmp_path / "file" / "out")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"schema": 2}\n')
    with pytest.raises(ValueError, match=r"line 1 of .* is no record"):
        read_records(path)


def test_a_key_depends_on_whatever_changes_a_result() -> None:
    def keys(plan: Comparison) -> set[str]:
        return {cell.key for cell in prepare(plan).cells if cell.row.label == "flowedit+euler"}

    base = keys(PLAN)
    assert keys(replace(PLAN, count=3)) < base
    others = [
        replace(PLAN, steps=(7,)),
        replace(PLAN, seeds=(1,)),
        replace(PLAN, settings={**PLAN.settings, "flowedit": {"n_avg": "2"}}),
        replace(PLAN, settings={**PLAN.settings, "mixture": {"points": "41"}}),
    ]
    assert all(not keys(plan) & base for plan in others)
    case = MixtureCases(points=4).take(1)[0]
    assert (
        len({hash_case(one) for one in (case, replace(case, target="printed-target"), replace(case, truth=case.picture))}) == 3
    )
    layer = torch.nn.Linear(300, 4)
    model = MixtureModel()
    model.network = layer
    before = hash_model(model)
    torch.nn.init.normal_(layer.weight)
    assert hash_model(model) != before


def test_each_kind_of_edit_is_summarised_alone(tmp_path: Path) -> None:
    prepared = prepare(PLAN)
    ran(prepared, tmp_path / "out")
    plain = read_records(tmp_path / "out" / "records.jsonl")
    kinds = {case.id: "ab"[i % 2] for i, case in enumerate(prepared.cases)}
    records = [replace(record, kind=kinds[record.case]) for record in plain]
    rows = [row.heading for row in prepared.rows]
    summary = summarise("edit", rows, records, prepared.metrics["edit"])
    assert {kind: part.cases for kind, part in summary.kinds.items()} == {"a": 3, "b": 2}
    for kind, part in summary.kinds.items():
        row = part.lines[0].row.name
        costs = [one.scores["transport-cost"] for one in records if one.row == row and kinds[one.case] == kind]
        assert part.lines[0].scores["transport-cost"].mean == pytest.approx(math.fsum(costs) / part.cases)
        assert not part.kinds
    assert not summarise("edit", rows, plain, prepared.metrics["edit"]).kinds


SOLVER = """
from dataclasses import dataclass
from fe.solvers.euler import Euler as Base

@dataclass(frozen=True)
class Mine(Base):
    def step(self, slope, t0, t1, x, state):
        return Base.step(self, slope, t0, t1, FACTOR * x, state)
"""


def test_a_solver_that_was_edited_is_another_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, its options and so its repr are what they were; only its code is new."""
    row = prepare(PLAN).rows[0]

    def key(factor: str) -> str:
        path = tmp_path / f"plugin_{factor.replace('.', '_')}.py"
        path.write_text(SOLVER.replace("FACTOR", factor))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        found: str = cell_key(replace(row, solver=module.Mine()), "case", 0, "model", "float32")
        return found

    assert key("1.0") == key("1.0") != key("1.5")


def test_metrics_are_those_that_suit_the_cases() -> None:
    found = scores_for(PLAN, build_cases("mixture", {"points": "3"}).take(1))
    assert not found["reconstruct"]
    assert {"transport-cost", "wrong-mode", "mode-distance"} <= set(found["edit"])
    with pytest.raises(ValueError, match="none of the metrics psnr says anything about the cases mixture"):
        scores_for(replace(PLAN, metrics=("psnr",)), build_cases("mixture", {"points": "3"}).take(1))
    settings = {**PLAN.settings, "flowedit": {"n_min": "3", "n_max": "2"}}
    with pytest.raises(OptionError, match="n_min must not exceed n_max"):
        prepare(replace(PLAN, settings=settings))


def test_what_is_compiled_on_the_way_is_in_nobody_s_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row runs once unseen for each size of a batch, if the network is compiled: here of 2, 2 and 1 cases."""
    executed: list[int] = []

    def counting(model: Any, editor: Any, solver: Any, steps: int, cases: Any, *rest: Any, **given: Any) -> Any:
        executed.append(len(cases))
        return edit_cases(model, editor, solver, steps, cases, *rest, **given)

    monkeypatch.setattr("fe.experiments.bench.edit_cases", counting)
    plain = ran(prepare(PLAN), tmp_path / "plain", batch=2)
    rows = len({record.row for record in plain})
    assert sorted(executed) == sorted(rows * [2, 2, 1])
    executed.clear()
    prepared = prepare(PLAN)
    prepared.model.network.compile(backend="eager")
    compiled = ran(prepared, tmp_path / "compiled", batch=2)
    assert sorted(executed) == sorted(rows * [2, 2, 2, 1, 1])
    assert_close(scores(compiled), scores(plain))
