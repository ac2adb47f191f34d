"""Options with several values: the rows they make, their names, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fe.cli.main import main
from fe.editors.flowedit import FlowEdit
from fe.experiments.compare import Prepared, carry_out, open_folder, prepare
from fe.experiments.plan import planned
from fe.experiments.records import read_records
from fe.experiments.rows import Row
from fe.experiments.sweep import points
from fe.experiments.words import Asked, CaseChoice, Method
from fe.models.base import Setup
from fe.options import OptionError, check, option
from fe.registry import RegistryError


def compared(options: Mapping[str, Any], model: str = "mixture", cases: str = "mixture:2", **asked: Any) -> Prepared:
    wishes = Asked(cases=CaseChoice.read(cases), **asked)
    small = {"mixture.points": 20} if cases.startswith("mixture") else {}
    plan, _ = planned(wishes, model, Setup(device="cpu"), {**small, **options})
    return prepare(plan)


def methods(*names: str) -> tuple[Method, ...]:
    return tuple(map(Method.read, names))


def rows(prepared: Prepared, task: str = "edit") -> list[Row]:
    return [row for row in prepared.rows if row.task == task and not row.control]


@dataclass(frozen=True)
class Thing:
    """Something with options of every kind."""

    count: int | None = option(None, "how many", low=0)
    scale: float = option(1.0, "how much")
    how: str = option("plain", "in which way")
    exact: bool = option(False, "whether or not")

    def __post_init__(self) -> None:
        check(self)


def test_the_points_of_a_grid_come_in_the_order_given_the_last_option_fastest() -> None:
    found = points(Thing, {"count": "3,1", "exact": "yes", "scale": [0.5, 2]})
    assert [(point.options["count"], point.options["scale"]) for point in found] == [(3, 0.5), (3, 2.0), (1, 0.5), (1, 2.0)]
    assert [point.words for point in found] == ["count=3 scale=0.5", "count=3 scale=2", "count=1 scale=0.5", "count=1 scale=2"]
    assert all(point.options["exact"] is True for point in found)
    assert found[0].named("thing") == "thing count=3 scale=0.5"


def test_one_point_is_set_apart_by_nothing() -> None:
    for options in ({}, {"count": "3"}, {"count": [3]}, {"count": None}):
        (point,) = points(Thing, options)
        assert point.named("thing") == "thing"


def test_values_are_what_they_mean_however_they_are_spelled() -> None:
    text, values = points(Thing, {"scale": "3,13.5,1e-3"}), points(Thing, {"scale": (3.0, "13.50", 0.001)})
    assert text == values
    assert [point.words for point in text] == ["scale=3", "scale=13.5", "scale=0.001"]
    assert [point.words for point in points(Thing, {"count": "none,20"})] == ["count=none", "count=20"]
    assert [point.words for point in points(Thing, {"exact": [True, False]})] == ["exact=true", "exact=false"]


def test_an_option_that_is_given_twice_counts_once_as_on_any_command_line() -> None:
    @dataclass(frozen=True)
    class Other:
        n_max: int = option(1, "how many")

    assert [point.options for point in points(Other, {"n-max": "5,6", "n_max": "7,8"})] == [{"n_max": 7}, {"n_max": 8}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": "3,,4"}, "count has an empty place in '3,,4'"),
        ({"count": "3,"}, "empty place"),
        ({"count": []}, "count has an empty place in []"),
        ({"count": "3,4,3"}, "count has the value 3 twice"),
        ({"scale": [3, "3.0"]}, "scale has the value 3 twice"),
        ({"count": "none,3,all"}, "count has the value none twice"),
        ({"cuont": "3,4"}, "Thing has no option 'cuont'; did you mean count"),
        ({"count": "3,x"}, "Thing.count must be a whole number, got 'x'"),
        ({"count": [3, 1.5]}, "Thing.count must be a whole number, got 1.5"),
        ({"count": [[3, 4], [5, 6]]}, "Thing.count must be a whole number, got"),
    ],
)
def test_a_grid_that_cannot_be_spanned_is_refused(options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as refused:
        points(Thing, options)
    assert said in str(refused.value)


def test_two_options_of_an_editor_make_a_row_for_each_pair(tiny_scenes: str) -> None:
    sweep = {"flowedit.n_max": "19,21,23,25", "flowedit.target_guidance": [9.5, 13.5]}
    prepared = compared(sweep, tiny_scenes, "scenes:1", methods=methods("flowedit+euler"))
    found = rows(prepared)
    assert [row.label for row in found] == [
        f"flowedit+euler n_max={n} target_guidance={guidance}" for n in (19, 21, 23, 25) for guidance in (9.5, 13.5)
    ]
    assert found[0].name == "flowedit+euler-n_max=19-target_guidance=9.5-28"
    assert [row.spend.rows for row in found] == [38, 38, 42, 42, 46, 46, 50, 50]
    assert found[-1].editor == FlowEdit(n_max=25, target_guidance=13.5)
    assert [row.name for row in rows(prepared, "reconstruct")] == [
        "reconstruct-euler-28"
    ]  # which no option of FlowEdit changes


def test_options_of_a_solver_sweep_in_edits_and_in_reconstructions(tiny_scenes: str) -> None:
    asked = methods("flowedit+uni-inv", "inversion+uni-inv", "flowedit+euler")
    prepared = compared({"uni-inv.first": "network,zero"}, tiny_scenes, "scenes:1", methods=asked, steps=(3,))
    assert [row.label for row in rows(prepared, "reconstruct")] == ["uni-inv first=network", "uni-inv first=zero", "euler"]
    assert [row.name for row in rows(prepared)] == [
        "flowedit+uni-inv-first=network-3",
        "flowedit+uni-inv-first=zero-3",
        "inversion+uni-inv-first=network-3",
        "inversion+uni-inv-first=zero-3",
        "flowedit+euler-3",
    ]


def test_an_editors_options_go_to_all_its_solvers_and_to_no_other_editor() -> None:
    sweep = {"flowedit.n_min": [0, 1], "inversion.n_max": "5,none"}
    found = compared(sweep, editors=("flowedit", "inversion"), solvers=("euler", "heun"), steps=(6,))
    assert [row.label for row in rows(found)] == [
        *("flowedit+euler n_min=0", "flowedit+euler n_min=1", "flowedit+heun n_min=0", "flowedit+heun n_min=1"),
        *("inversion+euler n_max=5", "inversion+euler n_max=none", "inversion+heun n_max=5", "inversion+heun n_max=none"),
    ]


def test_every_point_runs_with_every_step_count() -> None:
    found = rows(compared({"flowedit.n_min": "0,1"}, methods=methods("flowedit+euler"), steps=(4, 8)))
    assert [(row.label[-7:], row.steps) for row in found] == [("n_min=0", 4), ("n_min=0", 8), ("n_min=1", 4), ("n_min=1", 8)]
    assert len({row.name for row in found}) == 4


def test_matched_evaluations_give_each_point_steps_of_its_own() -> None:
    found = rows(compared({"flowedit.n_min": "0,3"}, methods=methods("flowedit+euler"), match_nfe=20))
    assert [(row.steps, row.spend.rows) for row in found] == [(10, 20), (11, 19)]
    with pytest.raises(ValueError, match="one step already costs 18 evaluations") as refused:
        compared({"flowedit.n_avg": "1,9"}, methods=methods("flowedit+euler"), match_nfe=10)
    assert refused.value.__notes__ == ["in flowedit+euler n_avg=9"]


def test_a_sweep_goes_before_what_a_preset_says_and_leaves_the_rest_of_it(tiny_scenes: str) -> None:
    found = rows(compared({"flowedit.n-max": "20,24"}, tiny_scenes, "scenes:1", methods=methods("flowedit@flux")))
    assert [row.label for row in found] == ["flowedit@flux n_max=20", "flowedit@flux n_max=24"]
    assert [row.editor for row in found] == [FlowEdit(n_max=n, source_guidance=1.5, target_guidance=5.5) for n in (20, 24)]


def test_a_controls_option_sweeps_as_well(tiny_scenes: str) -> None:
    prepared = compared({"from-noise.target_guidance": [1, 4]}, tiny_scenes, "scenes:1", methods=methods("flowedit+euler"))
    noise = [row for row in prepared.rows if row.control and row.label.startswith("from noise")]
    assert [row.name for row in noise] == ["from-noise-target_guidance=1", "from-noise-target_guidance=4"]


def test_a_point_has_the_cells_of_the_single_run_with_its_options() -> None:
    def keys(options: Mapping[str, Any]) -> list[list[str]]:
        prepared = compared(options, methods=methods("flowedit+euler"), steps=(6,))
        return [[cell.key for cell in prepared.cells if cell.row is row] for row in rows(prepared)]

    swept = keys({"flowedit.n_min": "0,1,2", "flowedit.n_avg": [1, 2]})
    assert len({key for row in swept for key in row}) == 12
    for point, found in zip([(n, avg) for n in (0, 1, 2) for avg in (1, 2)], swept, strict=True):
        assert keys({"flowedit.n_min": str(point[0]), "flowedit.n_avg": point[1]}) == [found]


def test_rows_that_come_to_the_same_are_refused_by_name(tiny_scenes: str) -> None:
    options = {"flowedit.n_max": "20,24", "flowedit.source_guidance": 1.5, "flowedit.target_guidance": 5.5}
    both = methods("flowedit+euler", "flowedit@flux")
    with pytest.raises(ValueError, match=r"flowedit\+euler-n_max=20-28 and flowedit@flux-n_max=20-28 are one and the same"):
        compared(options, tiny_scenes, "scenes:1", methods=both)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flowedit.n_min": "0,-1"}, "FlowEdit.n_min must be at least 0, got -1"),
        ({"flowedit.n_min": "1,7", "flowedit.n_max": 5}, "n_min must not exceed n_max"),
        ({"flowedit.n_mn": "1,2"}, "FlowEdit has no option 'n_mn'; did you mean n_min?"),
        ({"euler.order": "1,2"}, "Euler has no option 'order'"),
        ({"mixture.points": "20,30"}, "MixtureCases.points must be a whole number, got '20,30'"),
        ({"mixture.points": [20, 30]}, "MixtureCases.points must be a whole number, got [20, 30]"),
        ({"model.name": "a,b"}, "MixtureLoader has no option 'name'"),
        ({"heun.order": "1,2"}, "heun.order belongs to nothing in this run"),
    ],
)
def test_what_no_row_can_be_made_of_is_one_sentence(options: Mapping[str, Any], said: str) -> None:
    with pytest.raises((ValueError, RegistryError)) as refused:
        compared(options, methods=methods("flowedit+euler"), steps=(6,))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flowedit.n_min": "0,1,-1"}, "FlowEdit.n_min must be at least 0, got -1"),
        ({"flowedit.n_min": "1,7", "flowedit.n_max": 5}, "n_min must not exceed n_max"),
        ({"fireflow.order": "1,2"}, "FireFlow has no option 'order'"),
        ({"from-noise.target_guidance": "1,nan"}, "FromNoise.target_guidance must be a finite number, got nan"),
    ],
)
@pytest.mark.parametrize("counts", [{"steps": (6,)}, {"match_nfe": 12}, {}])
def test_every_point_is_held_to_its_options_before_a_model_is_loaded(
    options: Mapping[str, Any], said: str, counts: Mapping[str, Any]
) -> None:
    asked = Asked(methods=methods("inversion+euler", "flowedit+fireflow"), **counts)
    with pytest.raises(OptionError, match=said):
        planned(asked, "flux-dev", Setup(device="cpu"), options)


def test_one_edit_takes_one_value() -> None:
    words = ["edit", "mixture:1", "--model", "mixture", "--set", "flowedit.n_max=19,21"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.stderr == "fe: FlowEdit.n_max must be a whole number, got '19,21'\n"


def test_a_sweep_on_the_command_line(tmp_path: Path) -> None:
    words = ["--model", "mixture", "--cases", "mixture:2", "--set", "mixture.points=20", "--steps", "5", "--editor", "flowedit"]
    sweep = ["--set", "flowedit.n_max=1,none", "--set", "flowedit.n-avg=1,2"]
    result = CliRunner().invoke(main, ["compare", *words, *sweep, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert list(dict.fromkeys(record.row for record in records)) == [
        *(f"flowedit+euler-n_max={n_max}-n_avg={n_avg}-5" for n_max in ("1", "none") for n_avg in (1, 2)),
        "no-edit",
        "from-noise",
    ]
    assert len(records) == 12


@pytest.mark.slow
def test_more_guidance_changes_more_and_keeps_less(tmp_path: Path) -> None:
    sweep = {"flowedit.target_guidance": "1.5,5.5,13.5"}
    prepared = compared(sweep, "scenes", "scenes:12", methods=methods("flowedit+euler"))
    with open_folder(prepared, tmp_path / "out", overwrite=False) as folder:
        results = carry_out(prepared, folder, lambda done, total, failed: None)
    (edits,) = [summary for summary in results.summaries if summary.task == "edit"]
    scores = [line.scores for line in edits.methods]
    kept = [score["source-ssim"].mean for score in scores]
    changed = [score["changed"].mean for score in scores]
    assert kept[0] > kept[1] + 0.02 > kept[2] + 0.04
    assert changed[0] < changed[1]
    assert max(changed) == max(changed[1:])
