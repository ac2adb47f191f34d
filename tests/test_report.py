"""`fe report` as a user meets it: run folders in, pages out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fe import registry
from fe.cli.main import main
from fe.experiments.folder import RunFolder
from fe.experiments.manifest import Manifest
from fe.experiments.records import Finished, Record, Share
from fe.experiments.rows import Heading

MIXTURE = ("--model", "mixture", "--cases", "mixture:3", "--set", "mixture.points=60", "--steps", "10", "--device", "cpu")
ROWS = tuple(Heading(f"{name}-4", name, "edit", 4, False, False, (0,)) for name in ("inversion+euler", "flowedit+euler"))
CASES = tuple(f"case-{number:02}" for number in range(6))


def fe(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def report(*words: str | Path) -> str:
    result = fe("report", *words)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return result.stdout


def refused(*words: str | Path) -> str:
    """The one sentence of a refusal."""
    result = fe("report", *words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("fe: ")
    return line


def record(row: Heading, case: str, score: float = 1.0, error: str | None = None) -> Record:
    cost, scores = (None, {}) if error else (Share(1, 8, 8.0, 0.5, 0.4, None), {"rmse": score, "psnr": 10 * score})
    return Record(f"{row.name} {case}", row.name, "edit", case, "", "a", "b", "e", "s", 4, 0, cost, scores, error=error)


def written(path: Path, records: list[Record], plan: str = "plan", metrics: tuple[str, ...] = ("rmse", "psnr")) -> Path:
    """A run of two rows over six cases, as far as those records go."""
    manifest = Manifest(plan, {}, ROWS, CASES, {"edit": metrics}, len(ROWS) * len(CASES), True, True, "cpu")
    with RunFolder.open(path, manifest) as folder:
        folder.begin({})
        folder.keep([Finished(one, None) for one in records])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished comparison of the mixture, and what it printed. Not to be changed."""
    out = tmp_path_factory.mktemp("report") / "run"
    result = fe("compare", *MIXTURE, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_a_report_is_what_the_comparison_printed(run: tuple[Path, str]) -> None:
    out, printed = run
    without_files = [line for line in printed.splitlines() if not line.startswith(f"{out}: ")]
    assert len(without_files) == len(printed.splitlines()) - 1
    assert report(out).splitlines() == without_files


def test_only_the_records_are_needed(run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither model, cases nor code of the run: they fail here, and only two files are left of the folder."""
    for name in ("run.json", "records.jsonl"):
        shutil.copy(run[0] / name, tmp_path / name)

    def gone(*given: object) -> None:
        raise AssertionError("a report needs nothing of this")

    for name in ("build_cases", "build_solver", "build_editor", "load_model"):
        monkeypatch.setattr(f"fe.experiments.names.{name}", gone)
    before = sorted(tmp_path.iterdir())
    assert report(tmp_path) == report(run[0])
    assert sorted(tmp_path.iterdir()) == before


def test_a_report_costs_little_more_than_torch(run: tuple[Path, str]) -> None:
    heavy = ("diffusers", "transformers", "matplotlib", "ray", "fe.experiments.compare", "fe.models.mixture")
    code = (
        "import sys; from fe.cli.main import main; "
        f"main(['report', {str(run[0])!r}], standalone_mode=False); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_different_comparisons_follow_one_another_under_their_folders(tmp_path: Path) -> None:
    for name, score in (("one", 1.25), ("two", 2.5)):
        written(tmp_path / name, [record(row, case, score) for row in ROWS for case in CASES], plan=name)
    told = report(tmp_path / "two", tmp_path / "one")
    places = [told.index(words) for words in (f"{tmp_path / 'two'}\n", "2.50 ±0.00", f"{tmp_path / 'one'}\n", "1.25 ±0.00")]
    assert places == sorted(places)
    assert report(tmp_path).count("Edits (n = 6 cases)") == 2  # a folder stands for the runs in it
    assert str(tmp_path) not in report(tmp_path / "one")


def test_files_are_written_only_where_asked(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", [record(row, case) for row in ROWS for case in CASES])
    before = sorted(tmp_path.rglob("*"))
    report(folder)
    assert sorted(tmp_path.rglob("*")) == before
    told = report(folder, "--out", tmp_path / "new" / "joined")
    assert f"{tmp_path / 'new' / 'joined'}: table.txt, quality.png" in told
    assert {path.name for path in (tmp_path / "new" / "joined").iterdir()} == {"table.txt", "quality.png"}
    assert "flowedit+euler" in (tmp_path / "new" / "joined" / "table.txt").read_text(encoding="utf-8")
    other = written(tmp_path / "other", [record(ROWS[0], CASES[0])], plan="other")
    assert "--out takes one comparison, got 2" in refused(folder, other, "--out", tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_an_unfinished_run_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    records = [record(row, case, number) for row in ROWS for number, case in enumerate(CASES[:4])]
    told = report(written(tmp_path, records[:-1]))
    assert "7 of 12 cells are done; the same fe compare goes on from there." in told
    assert "Edits (n = 4 cases)" in told
    assert "1.50" in told  # of 0, 1, 2 and 3
    assert "n=3" in told


def test_a_run_that_has_not_begun_is_shown_too(tmp_path: Path) -> None:
    told = report(written(tmp_path, []))
    assert "0 of 12 cells are done" in told
    assert "flowedit+euler" in told


def test_each_reason_of_failures_is_told_once_the_most_frequent_first(tmp_path: Path) -> None:
    reasons = ["rare", *["lost\n  node"] * 3, *["often"] * 2, "b", "c", "d"]
    places = [(row, case) for row in ROWS for case in CASES]
    records = [record(*place, error=reason) for place, reason in zip(places, reasons, strict=False)]
    records += [record(*place) for place in places[len(reasons) :]]
    told = report(written(tmp_path, records))
    after = told[told.index("9 cells failed") :].splitlines()
    assert after[0] == "9 cells failed; the same fe compare with --retry-failed runs them again:"
    assert after[1] == "  3 x lost node (first: case-01 in inversion+euler-4)"
    assert after[2] == "  2 x often (first: case-04 in inversion+euler-4)"
    assert after[3] == "  1 x rare (first: case-00 in inversion+euler-4)"
    assert after[6] == "  and 1 more reason; records.jsonl has them all"
    one = report(written(tmp_path / "one", [record(*places[0], error="rare"), record(*places[1])], plan="one"))
    assert "1 cell failed; the same fe compare with --retry-failed runs it again:" in one


def test_a_run_of_failures_only_is_shown(tmp_path: Path) -> None:
    told = report(written(tmp_path, [record(row, case, error="no memory") for row in ROWS for case in CASES]))
    assert "12 cells failed" in told
    assert "12 x no memory" in told


def test_a_metric_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(row, case) for row in ROWS for case in CASES]
    told = report(written(tmp_path, records, metrics=("sharpness", "rmse")))
    assert "A column is left out: the metric 'sharpness' is not installed here." in told
    assert "RMSE" in told
    assert told.rstrip().splitlines()[-1].startswith("Edits: inversion+euler has the lowest RMSE")
    broken = EntryPoints([EntryPoint("sharpness", "no_such_module:Sharpness", "fe.metrics")])
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(one for one in broken if one.group == group))
    assert "A column is left out: metric 'sharpness' of no_such_module:Sharpness failed to import" in report(tmp_path)


def edited(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", [record(row, case) for row in ROWS for case in CASES])
    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "there is no folder" in refused(folder / "run.json")
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused(tmp_path / "empty")
    assert "holds no run" in refused(folder, tmp_path / "empty")
    assert "Missing argument" in refused()
    damages: dict[str, Callable[[str], str]] = {
        "cut": lambda text: text[:100],
        "schema": lambda text: re.sub(r'"schema": \d+', '"schema": 1', text),
        "no rows": lambda text: json.dumps({name: value for name, value in json.loads(text).items() if name != "rows"}),
        "a list": lambda text: "[]",
    }
    for name, damage in damages.items():
        edited(Path(shutil.copytree(folder, tmp_path / name)) / "run.json", damage)
        assert str(tmp_path / name) in refused(tmp_path / name)


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    """Whichever of its two files is damaged; also a shard, which is then missing."""
    records = [record(row, case, 1.25) for row in ROWS for case in CASES]
    good = written(tmp_path / "good", records)
    for name, file in (("bad", "run.json"), ("worse", "records.jsonl")):
        copy = Path(shutil.copytree(good, tmp_path / name))
        edited(copy / file, lambda text: "no JSON\n" + text)
    for words in ([tmp_path], [tmp_path / "bad", tmp_path / "worse", good]):
        result = fe("report", *words)
        assert result.exit_code == 1
        first, second = result.stderr.splitlines()
        assert first.startswith(f"fe: left out: '{tmp_path / 'bad' / 'run.json'}' cannot be understood")
        assert second.startswith(f"fe: left out: line 1 of {tmp_path / 'worse' / 'records.jsonl'} is no record")
        assert result.stdout == report(good)
    assert "none of 2 runs can be read; the first: " in refused(tmp_path / "bad", tmp_path / "worse")


def test_runs_are_found_some_folders_deep_and_not_inside_of_runs(tmp_path: Path) -> None:
    deep = written(tmp_path / "results" / "compare-one" / "shard-1-of-2", [record(ROWS[0], case) for case in CASES])
    assert report(tmp_path) == report(deep)
    written(deep / "another", [record(ROWS[0], CASES[0])], plan="another")
    assert report(tmp_path) == report(deep)


def test_records_of_another_comparison_are_refused(tmp_path: Path) -> None:
    """Under rows, cases or seeds that run.json does not know; or the same cell under another key, as an edited solver has."""
    folder = written(tmp_path / "run", [record(row, case) for row in ROWS for case in CASES])
    foreign = {
        "row": ('"row": "flowedit+euler-4"', '"row": "flowedit+heun-4"'),
        "case": ('"case": "case-05"', '"case": "case-99"'),
        "seed": ('"seed": 0', '"seed": 7'),
    }
    for name, (old, new) in foreign.items():
        copy = Path(shutil.copytree(folder, tmp_path / name))
        edited(copy / "records.jsonl", lambda text, old=old, new=new: text.replace(old, new))  # type: ignore[misc]
        assert "holds records of another comparison than its run.json" in refused(copy)
    copy = Path(shutil.copytree(folder, tmp_path / "key"))
    edited(copy / "records.jsonl", lambda text: text + text.splitlines()[0].replace(f"{ROWS[0].name} case", "other") + "\n")
    assert "holds records of another comparison than its run.json" in refused(copy)


def test_a_comparison_with_failed_cells_ends_with_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe.metrics.mixture import TransportCost

    whole = TransportCost.__call__

    def faulty(self: Any, case: Any, result: Any) -> float:
        if case.id.endswith("1"):
            raise RuntimeError("beyond me")
        return float(whole(self, case, result))

    with monkeypatch.context() as patched:
        patched.setattr(TransportCost, "__call__", faulty)
        first = fe("compare", *MIXTURE, "--out", tmp_path)
    again = fe("compare", *MIXTURE, "--out", tmp_path)
    for result in (first, again):
        assert result.exit_code == 1
        assert "4 cells failed; the same fe compare with --retry-failed runs them again:" in result.stdout
        assert "4 x RuntimeError: beyond me (first: mixture-0-0001 in inversion+euler-10)" in result.stdout
        assert result.stdout.rstrip().splitlines()[-1].startswith("Edits: flowedit+euler has the lowest transport cost")
    assert "4 cells failed" in report(tmp_path)
    assert "4 cells failed" in (tmp_path / "table.txt").read_text(encoding="utf-8")
    retried = fe("compare", *MIXTURE, "--out", tmp_path, "--retry-failed")
    assert retried.exit_code == 0
    assert "cells failed" not in retried.stdout
    assert "exit code is 1 if cells failed" in " ".join(fe("compare", "--help").stdout.split())
