"""Which metrics a comparison is scored with, what identifies them, and what becomes of one that cannot be had."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner
from click.testing import Result as Ran
from fe.cases.base import Case, Stored
from fe.cli.main import main
from fe.editors.base import Edit
from fe.editors.inversion import Inversion
from fe.experiments.bench import Bench
from fe.experiments.cells import Group, make_cells
from fe.experiments.compare import _settled, prepare
from fe.experiments.plan import Comparison, planned
from fe.experiments.subjects import fit_case
from fe.experiments.words import Asked, CaseChoice, Method
from fe.metrics.base import Metric, Result
from fe.models.base import Setup
from fe.models.mixture import MixtureModel
from fe.options import OptionError, check, option
from fe.registry import METRICS, RegistryError
from torch import Tensor

PLAN = Comparison(
    methods=(Method("flowedit", "euler"),),
    model="mixture",
    cases="mixture",
    count=3,
    steps=(4,),
    settings={"mixture": {"points": "5"}},
)


@dataclass(frozen=True)
class Spread(Metric):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """How far the points lie apart, times something."""

    label: ClassVar[str] = "spread"
    calls: ClassVar[list[int]] = []

    times: float = option(1.0, "what it is multiplied by", low=0.0)
    device: str = option("auto", "where it computes", repr=False)

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, case: Case, result: Result) -> float:
        return float(result.picture.std()) * self.times

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        self.calls.append(len(cases))
        found: list[float] = super().many(cases, results)
        return found


class Nowhere(Metric):  # type: ignore[misc]
    """Its weights are on another machine."""

    label: ClassVar[str] = "nowhere"

    def missing(self) -> str:
        return "the weights of nowhere are not on this machine; fetch them: hf download some/where"

    def __call__(self, case: Case, result: Result) -> float:
        raise AssertionError("it was said that there are no weights")


class Damaged(Nowhere):
    """Its weights are there, and cannot be read."""

    label: ClassVar[str] = "damaged"

    def missing(self) -> str:
        return ""

    def __call__(self, case: Case, result: Result) -> float:
        raise OSError("the header of model.safetensors is cut short")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Spread, Nowhere, Damaged):
        name = kind.__name__.lower()
        monkeypatch.setitem(METRICS.builtin, name, f"tests:{kind.__name__}")
        monkeypatch.setitem(METRICS._loaded, name, kind)
    Spread.calls.clear()


def fe(*words: str) -> Ran:
    small = ("--model", "mixture", "--cases", "mixture:3", "--steps", "3", "--set", "mixture.points=5", "--device", "cpu")
    return CliRunner().invoke(main, ["compare", *small, *words], catch_exceptions=False)


def test_only_what_was_asked_for_is_scored(tmp_path: Path) -> None:
    ran = fe("--metrics", "spread,wrong-mode", "--out", str(tmp_path / "run"), "--set", "spread.times=3")
    assert ran.exit_code == 0, ran.output
    plain = fe("--metrics", "spread", "--out", str(tmp_path / "plain"))
    assert plain.exit_code == 0, plain.output
    found, ones = records(tmp_path / "run"), records(tmp_path / "plain")
    assert all(list(record["scores"]) == ["spread", "wrong-mode"] for record in found)
    assert [record["scores"]["spread"] for record in found] == pytest.approx([3 * one["scores"]["spread"] for one in ones])


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metrics", "sprad"), "unknown metric 'sprad'; did you mean spread?"),
        (("--metrics", "psnr"), "none of the metrics psnr says anything about the cases mixture; see fe list metrics"),
        (("--metrics", "spread", "--set", "spread.times=-1"), "Spread.times must be at least 0, got -1"),
        (("--metrics", "wrong-mode", "--set", "spread.times=2"), "spread.times belongs to nothing in this run"),
    ],
)
def test_metrics_that_cannot_be_had_like_this_are_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = fe(*words, "--out", str(tmp_path / "run"))
    assert ran.exit_code == 2
    assert said in " ".join(ran.output.split())
    assert not (tmp_path / "run").exists()


def test_the_options_of_a_metric_are_part_of_what_a_run_is_and_where_it_computes_is_not() -> None:
    def identity(**given: Any) -> str:
        settings = {**PLAN.settings, "spread": given}
        return str(prepare(replace(PLAN, metrics=("spread",), settings=settings)).hash)

    assert identity() == identity(times="1") == identity(device="cpu") != identity(times="2")


def test_a_metric_computes_where_the_model_does_unless_it_is_said() -> None:
    asked = Asked(methods=(Method("inversion", "euler"),), metrics=("spread",))
    plan, _ = planned(asked, "mixture", Setup(device="cpu"), {})
    assert vars(plan.metric("spread"))["device"] == "cpu"
    plan, _ = planned(asked, "mixture", Setup(device="cpu"), {"spread.device": "cuda:1"})
    assert vars(plan.metric("spread"))["device"] == "cuda:1"


def test_a_batch_is_scored_at_once_and_cell_by_cell_where_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(replace(PLAN, metrics=("spread",)))
    Spread.calls.clear()
    group = Group(tuple(prepared.cells[:3]), tuple(prepared.cases))
    bench = Bench(prepared.model, prepared.metrics)
    together = bench.finish(bench.edit(group))
    assert Spread.calls == [3]

    def picky(self: Spread, case: Case, result: Result) -> float:
        if case.id == prepared.cases[1].id:
            raise RuntimeError("not this one")
        return float(result.picture.std())

    monkeypatch.setattr(Spread, "__call__", picky)
    alone = bench.finish(bench.edit(group))
    assert [one.record.error for one in alone] == [None, "RuntimeError: not this one", None]
    assert [one.record.scores for one in alone][::2] == [one.record.scores for one in together][::2]


def test_a_metric_that_was_named_has_a_column_where_no_method_has_a_score(tmp_path: Path) -> None:
    """FlowEdit measures no growth of errors."""
    ran = fe("--metrics", "spread,error-growth", "--out", str(tmp_path / "run"))
    assert ran.exit_code == 0, ran.output
    heading, method = (next(line for line in ran.stdout.splitlines() if word in line) for word in ("spread", "flowedit+"))
    assert "error growth" in heading
    assert " - " in method
    assert "-: for none" in " ".join(ran.stdout.split())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "The column of nowhere is empty: the weights of nowhere are not on this machine; fetch them: hf download"),
        ("damaged", "The column of damaged is empty: OSError: the header of model.safetensors is cut short"),
    ],
)
def test_a_metric_without_weights_leaves_its_column_empty_and_says_why_once(tmp_path: Path, name: str, said: str) -> None:
    ran = fe("--metrics", f"spread,{name}", "--out", str(tmp_path / "run"))
    assert ran.exit_code == 0, ran.output
    text = " ".join(ran.stdout.split())
    assert text.count(said) == 1
    heading = next(line for line in ran.stdout.splitlines() if "spread" in line)
    assert name in heading
    assert f"no figures for {name}" in ran.stderr
    assert all(list(record["scores"]) == ["spread"] for record in records(tmp_path / "run"))
    again = CliRunner().invoke(main, ["report", str(tmp_path / "run")])
    assert said in " ".join(again.stdout.split())


def test_paths_and_figures_reach_the_metrics_that_look_at_them() -> None:
    seen: list[Result] = []

    class Looking(Metric):  # type: ignore[misc]
        label: ClassVar[str] = "looking"
        needs_path: ClassVar[bool] = True

        def __call__(self, case: Case, result: Result) -> float:
            seen.append(result)
            return result.figures.get("which", math.nan)

    class Telling(Inversion):  # type: ignore[misc]
        def edit(self, model: Any, request: Any, *given: Any, **also: Any) -> Edit:
            edit = super().edit(model, request, *given, **also)
            return replace(edit, figures={"which": torch.arange(len(request.source))})

    prepared = prepare(replace(PLAN, methods=(Method("inversion", "euler"),)))
    row = replace(prepared.rows[0], editor=Telling(**vars(prepared.rows[0].editor)))
    cells = tuple(make_cells([row], prepared.cases, "m", "n"))
    bench = Bench(MixtureModel(), {"edit": {"looking": Looking()}})
    found = bench.finish(bench.edit(Group(cells, tuple(prepared.cases))))
    assert [one.record.scores["looking"] for one in found] == [0.0, 1.0, 2.0]
    for result in seen:
        assert len(result.path) == 5  # four steps
        torch.testing.assert_close(result.path[0], result.source_latent)
        torch.testing.assert_close(result.path[-1], result.latent)


class Square(MixtureModel):  # type: ignore[misc]
    """Takes pictures whose sides are multiples of four."""

    multiple = 4
    side = 0


def test_stored_pictures_are_read_when_looked_at_and_fitted_with_their_region() -> None:
    reads: list[int] = []
    picture, region = torch.rand(3, 10, 13), torch.zeros(1, 10, 13)
    region[:, 3:8, 4:9] = 1.0

    def read() -> Tensor:
        reads.append(1)
        return picture

    case = Case("one", Stored((3, 10, 13), read), "a", "b", region=Stored((1, 10, 13), lambda: region))
    assert case.is_picture
    assert not reads
    found, notes = fit_case(case, Square())
    assert found.shape == (3, 8, 12)
    assert notes == ("the middle 12x8 of 13x10 is used",)
    assert isinstance(found.content, Stored)
    assert isinstance(found.region, Stored)
    torch.testing.assert_close(found.picture, picture[:, 1:9, 0:12])
    assert found.mask is not None
    torch.testing.assert_close(found.mask, region[:, 1:9, 0:12])


def test_what_is_prepared_holds_no_pixels_of_stored_pictures() -> None:
    def grey(i: int) -> Tensor:
        return torch.full((3, 8, 8), i / 100)

    cases = [Case(f"{i}", Stored((3, 8, 8), partial(grey, i)), "a", "b") for i in range(100)]
    settled, hashes = _settled(cases, Square())
    assert len(set(hashes.values())) == 100
    assert all(isinstance(case.content, Stored) for case in settled)
    again, same = _settled(cases, Square())
    assert same == hashes
    assert [case.id for case in again] == [case.id for case in settled]


def test_the_region_is_part_of_what_a_case_is() -> None:
    plain = Case("one", torch.zeros(3, 8, 8), "a", "b")
    masked = replace(plain, region=torch.ones(1, 8, 8))
    hashes = [_settled([case], Square())[1]["one"] for case in (plain, masked, replace(plain, region=torch.zeros(1, 8, 8)))]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("text", "steps", "label"),
    [("inversion+fireflow/8", 8, "inversion+fireflow"), ("flowedit@flux/14", 14, "flowedit@flux"), ("flowedit+euler", 0, "")],
)
def test_methods_may_have_steps_of_their_own(text: str, steps: int, label: str) -> None:
    method = Method.read(text)
    assert method.steps == steps
    assert str(method) == text
    assert method.label == (label or text)
    assert Method.read(str(method)) == method


@pytest.mark.parametrize("text", ["inversion+fireflow/", "inversion+fireflow/0", "inversion+fireflow/x", "flowedit@flux/-3"])
def test_steps_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has no steps after its slash; write a number, such as"):
        Method.read(text)


def test_rows_take_the_steps_of_their_method_and_reconstructions_those_of_all() -> None:
    asked = Asked(methods=tuple(map(Method.read, ("inversion+euler/3", "inversion+euler/5", "inversion+heun/2"))))
    plan, _ = planned(asked, "mixture", Setup(device="cpu"), {"mixture.points": 3})
    rows = [(row.label, row.steps) for row in prepare(plan).rows if not row.control]
    assert rows == [("inversion+euler", 3), ("inversion+euler", 5), ("inversion+heun", 2)]


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("scenes", CaseChoice("scenes")),
        ("scenes:24", CaseChoice("scenes", 24)),
        ("folder:my/pictures", CaseChoice("folder", None, "my/pictures")),
        ("pie-bench:PIE-Bench_v1:20", CaseChoice("pie-bench", 20, "PIE-Bench_v1")),
        ("folder:C:/pictures:7", CaseChoice("folder", 7, "C:/pictures")),
        ("folder:C:/pictures", CaseChoice("folder", None, "C:/pictures")),
    ],
)
def test_cases_are_so_many_of_a_set_or_of_a_folder(text: str, choice: CaseChoice) -> None:
    assert CaseChoice.read(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize("text", ["scenes:0", "folder:pictures:0", "folder:pictures:-3"])
def test_no_cases_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at least 1 case must be asked for, got"):
        CaseChoice.read(text)


def test_cases_that_are_read_from_a_folder_need_one() -> None:
    with pytest.raises(ValueError, match="the cases folder are read from a folder; say which: --cases folder:FOLDER"):
        planned(Asked(cases=CaseChoice("folder")), "scenes", Setup(device="cpu"), {})


def test_an_unknown_protocol_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(RegistryError, match="unknown protocol 'mixtur@flowedit'"):
        planned(Asked(protocol="mixtur@flowedit"), "mixture", Setup(device="cpu"), {})


def test_a_metric_takes_no_option_that_it_has_not() -> None:
    with pytest.raises(OptionError, match="did you mean times"):
        planned(Asked(metrics=("spread",)), "mixture", Setup(device="cpu"), {"spread.tims": 2})


def test_a_finished_run_is_shown_again_from_its_folder_alone(tmp_path: Path) -> None:
    fe("--metrics", "spread", "--out", str(tmp_path / "run"))
    Spread.calls.clear()
    again = fe("--metrics", "spread", "--out", str(tmp_path / "run"))
    assert again.exit_code == 0
    assert Spread.calls == [1]  # the rehearsal


def test_a_metric_that_was_named_and_suits_no_case_is_told() -> None:
    with pytest.warns(UserWarning, match="left out: psnr, which says nothing about the cases mixture"):
        prepared = prepare(replace(PLAN, metrics=("spread", "psnr")))
    assert prepared.columns == {"reconstruct": (), "edit": ("spread",)}
