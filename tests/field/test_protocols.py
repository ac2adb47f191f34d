"""Protocols as data: what they name exists, what they cost is what was printed, and printed figures stand as they should."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments import published
from fe.experiments.manifest import Manifest
from fe.experiments.names import build_cases, build_metric, build_solver
from fe.experiments.plan import Comparison, planned, usual_model
from fe.experiments.protocols import PROTOCOLS, Protocol
from fe.experiments.published import SECOND_HAND, Printed, Published
from fe.experiments.results import Results
from fe.experiments.words import Asked, CaseChoice
from fe.metrics.base import Task
from fe.models.base import Setup
from fe.registry import CASES, METRICS, MODELS
from fe.reports.protocol import beside, departures, put_beside
from rich.console import Console

NAMES = list(PROTOCOLS)
FOLDERS = {"pie-bench", "folder", "flowedit"}
"""Case sets that are read from a folder."""


def followed(name: str, options: dict[str, Any] | None = None, **asked: Any) -> Comparison:
    """The comparison that a protocol comes to, with everything checked that can be before a model is loaded."""
    recipe = PROTOCOLS[name]
    cases = CaseChoice(recipe.cases, None, "somewhere") if recipe.cases in FOLDERS else None
    plan, faults = planned(
        Asked(**{"protocol": name, "cases": cases, **asked}), recipe.model, Setup(device="cpu"), options or {}
    )
    assert faults == ()
    return plan


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_recipe_stands_for_something_and_every_option_is_in_its_range(name: str) -> None:
    recipe, plan = PROTOCOLS[name], followed(name)
    assert recipe.model in MODELS
    assert usual_model(name) == recipe.model
    assert recipe.cases in CASES
    assert set(recipe.metrics) <= set(METRICS)
    assert tuple(map(str, plan.methods)) == recipe.methods
    assert (plan.cases, plan.metrics, plan.tasks) == (recipe.cases, recipe.metrics, recipe.tasks)
    assert plan.protocol == f"{name} version {recipe.version}"
    build_cases(plan.cases, plan.case_options)
    for owner, options in recipe.settings.items():
        for option, value in options.items():
            assert plan.settings[owner][option] == value, "an option of nothing in the recipe"
    assert set(recipe.tasks) <= set(get_args(Task))
    assert all({*build_metric(metric).tasks} & {*recipe.tasks} for metric in recipe.metrics), "a metric without a column"
    assert Comparison.read(plan.described()) == plan


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_goes_before_the_recipe(name: str) -> None:
    plan = followed(name, cases=CaseChoice("scenes", 2), metrics=("latent-cost",), steps=(3,))
    assert (plan.cases, plan.count, plan.metrics) == ("scenes", 2, ("latent-cost",))
    assert {steps for method in plan.methods for steps in plan.steps_of(method)} == {3}
    assert tuple(map(str, plan.methods)) == PROTOCOLS[name].methods


def test_an_option_that_is_said_goes_before_the_recipes_and_leaves_the_others() -> None:
    plan = followed("instaflow-sweep", {"flowedit.n_max": "21"})
    assert [dict(at.options) for at in plan.points("flowedit")] == [
        {"n_max": 21, "target_guidance": guidance, "source_guidance": 1.5, "n_min": 1, "n_avg": 1}
        for guidance in (16.5, 18.5, 20.5)
    ]


def test_the_sweep_has_twelve_rows_and_the_conflict_six() -> None:
    assert len(followed("instaflow-sweep").points("flowedit")) == 12
    swept = followed("guidance-conflict").points("inversion")
    assert [at.options["source_guidance"] for at in swept] == [1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
    assert {at.options["target_guidance"] for at in swept} == {3.5}


@pytest.mark.parametrize(
    ("name", "ways"), [("reconstruction@fireflow", 2), ("generation@fireflow", 1)], ids=["reconstruction", "generation"]
)
def test_the_rows_cost_what_the_paper_prints(name: str, ways: int) -> None:
    """The solvers' own count of evaluations, both ways, is the NFE column of the table, row by row."""
    plan = followed(name)
    ours = {(method.solver, method.steps): ways * build_solver(method.solver).nfe(method.steps) for method in plan.methods}
    printed = PROTOCOLS[name].printed
    nfe = printed.columns.index("NFE")
    theirs = [int(row.figures[nfe]) for row in printed.rows if not row.method.startswith("DDIM")]
    assert sorted(ours.values()) == sorted(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_printed_figures_are_numbers_with_a_source(name: str) -> None:
    printed = PROTOCOLS[name].printed
    assert printed.rows or printed.remarks
    for row in printed.rows:
        assert row.method
        assert row.source
        assert len(row.figures) == len(printed.columns)
        assert all(Decimal(figure) >= 0 for figure in row.figures if figure)
        assert any(row.figures)


def figures(printed: Printed, method: str, source: str = "") -> dict[str, str]:
    (row,) = [row for row in printed.rows if row.method == method and source in row.source]
    return dict(zip(printed.columns, row.figures, strict=True))


def test_figures_are_in_the_units_of_our_columns() -> None:
    """FireFlow's table prints structure and SSIM as they are; others print 28.99, 104.79, 98.32 and 83.87."""
    assert figures(published.PIE_BENCH, "FireFlow 8, FLUX") == {
        "NFE": "18",
        "struct.": "0.0271",
        "PSNR": "23.03",
        "LPIPS": "",
        "MSE": "",
        "SSIM": "0.8249",
        "CLIP whole": "26.02",
        "CLIP edited": "22.81",
    }
    assert list(figures(published.PIE_BENCH, "FlowEdit, FLUX, 24 steps").values()) == [
        *("", "0.02899", "21.72", "0.10479", "0.009832", "0.8387", "25.88", "22.71")
    ]
    assert figures(published.GENERATION, "FireFlow, 10 steps")["CLIP-T"] == "0.3142"  # a cosine, as ours is
    for row in published.PIE_BENCH.rows:  # a wrong power of ten would leave these ranges
        _, structure, psnr, lpips, mse, ssim, *clip = (float(figure or "nan") for figure in row.figures)
        bounds = ((structure, 0.005, 0.1), (psnr, 15, 35), (lpips, 0.02, 0.3), (mse, 0.001, 0.03), (ssim, 0.5, 1))
        for value, low, high in (*bounds, *((one, 20, 30) for one in clip)):
            assert math.isnan(value) or low < value < high, row.method


def test_the_two_tables_that_have_a_row_in_common_agree() -> None:
    """P2P by DDIM stands in FireFlow's table and in PnP Inversion's, with more digits there."""
    ours, theirs = (figures(published.PIE_BENCH, "P2P, DDIM", source) for source in ("FireFlow", "PnP Inversion"))
    for column in ("PSNR", "SSIM", "CLIP whole", "CLIP edited"):
        assert ours[column] == theirs[column]
    assert round(Decimal(theirs["struct."]), 4) == Decimal(ours["struct."])
    again, other = figures(published.INSTAFLOW, "FlowEdit, FLUX"), figures(published.FLOWEDIT_SET, "FlowEdit, FLUX")
    assert again == {column: other[column] for column in again}


def test_the_ratios_that_are_told_are_those_of_the_rows() -> None:
    edit, inversion = (row.figures for row in published.TRANSPORT.rows)
    ratios = [float(mine) / float(theirs) for mine, theirs in zip(edit, inversion, strict=True)]
    told = published.TRANSPORT.remarks[0]
    for text in (f"{ratios[0]:.3f}", f"{ratios[1]:.2f}", f"{ratios[2]:.3f}", f"{ratios[3]:.2f}"):
        assert text in told


def test_a_row_with_a_figure_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="FlowEdit has 1 figures for 2 columns"):
        Printed(("PSNR", "SSIM"), (Published("FlowEdit", ("1",), "somewhere"),))


def results(name: str, version: str = "", **other: Any) -> Results:
    """A run of a protocol of which nothing has been computed."""
    plan = followed(name)
    described = {**plan.described(), **({"protocol": f"{name} version {version}"} if version else {}), **other}
    return Results(Manifest("", described, (), (), {}, 0, True, True, "cpu"), (), (), ())


def shown(results: Results, width: int = 100) -> str:
    screen = Console(width=width, record=True)
    with screen.capture() as caught:
        put_beside(screen, beside(results))
    return caught.get()


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_beside_a_run_is_readable_at_100_columns(name: str) -> None:
    recipe, text = PROTOCOLS[name], shown(results(name))
    words = " ".join(text.split())
    assert f"Protocol {name} version {recipe.version}: {recipe.what}" in words
    assert "This run departs" not in words
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    for sentence in (*recipe.assumed, *recipe.printed.remarks):
        assert sentence in words
    assert ("Published, measured by others: not to be mixed with the rows above" in text) == bool(recipe.printed.rows)
    for row in recipe.printed.rows:
        (line,) = [
            line for line in text.splitlines() if line.split("  ")[0].strip() == row.method and row.figures[1] in line.split()
        ]
        assert [figure for figure in row.figures if figure] == line.split(row.method, 1)[1].split()[:-1]
    assert (SECOND_HAND in words) == any(SECOND_HAND in text for text in (*[r.source for r in recipe.printed.rows], words))


def test_second_hand_figures_are_marked_where_they_stand() -> None:
    text = " ".join(shown(results("pie-bench@pnpinversion")).split())
    assert f"(4) Jiao et al. 2025 (UniEdit-Flow), arXiv 2504.13109; {SECOND_HAND}" in text
    assert f"(5) DirectEdit; {SECOND_HAND}" in text
    assert "22.90 in one and 24.33 in another" in text


def test_a_run_without_a_protocol_has_nothing_beside_it() -> None:
    assert beside(results("mixture@flowedit", protocol="")) == ()


def test_another_version_is_told() -> None:
    text = shown(results("mixture@flowedit", version="7"))
    assert "version 7" in text
    assert "What follows is of version 1, the one that is known here; the run followed another." in text
    unknown = shown(results("mixture@flowedit", protocol="later@paper version 2"))
    assert "Protocol later@paper version 2: it is not known here" in unknown


DEPARTURES: list[tuple[dict[str, Any], str]] = [
    ({"model": "scenes"}, "the model is scenes and not mixture"),
    ({"model": "scenes:some/folder"}, "the model is scenes:some/folder and not mixture"),
    ({"cases": "folder"}, "the cases are folder and not mixture"),
    ({"methods": ["flowedit+euler"]}, "it has other methods"),
    ({"metrics": ["transport-cost"]}, "it has other metrics"),
    ({"steps": [4, 8]}, "every method takes 4 and 8 steps"),
    ({"match_nfe": 48}, "every method takes the steps that 48 evaluations allow"),
    ({"count": 3}, "of the cases it takes 3"),
    ({"seeds": [1, 2]}, "the seeds are 1, 2"),
    ({"settings": {"flowedit": {"n-max": "1000000", "n_avg": 2}}}, "flowedit.n_avg is 2"),
    ({"settings": {"flowedit": {"n_max": 3}}}, "flowedit.n_max is 3"),
    ({"settings": {"mixture": {"path": "here"}, "lpips": {"device": "cpu"}}}, ""),
]


@pytest.mark.parametrize(("other", "told"), DEPARTURES, ids=[told or "none" for _, told in DEPARTURES])
def test_what_departs_from_the_recipe_is_told(other: dict[str, Any], told: str) -> None:
    found = results("mixture@flowedit", **other)
    assert "; ".join(departures(PROTOCOLS["mixture@flowedit"], found.manifest.comparison)) == told
    assert (f"This run departs from the protocol: {told}." in " ".join(shown(found).split())) == bool(told)


def test_a_recipe_that_another_case_set_is_given_to_keeps_its_editors_options() -> None:
    """flowedit is an editor and a case set; a recipe's options of the editor hold for other cases too."""
    plan = followed("instaflow-sweep", cases=CaseChoice("scenes", 1))
    assert len(plan.points("flowedit")) == 12


def test_a_protocol_can_ask_for_one_task_alone() -> None:
    recipe: Protocol = PROTOCOLS["reconstruction@fireflow"]
    assert recipe.tasks == ("reconstruct",)
    everything = replace(followed("reconstruction@fireflow"), tasks=())
    assert everything.described()["tasks"] == ()
    older = {key: value for key, value in everything.described().items() if key != "tasks"}
    assert Comparison.read(older) == everything


def listed(what: str) -> str:
    done = CliRunner().invoke(main, ["list", what])
    assert done.exit_code == 0, done.output
    assert "not usable" not in done.stdout
    return done.stdout


def test_protocols_are_listed_with_what_they_run() -> None:
    text = listed("protocols")
    for name, recipe in PROTOCOLS.items():
        assert all(word in text for word in (name, recipe.model, *recipe.methods, *recipe.metrics))
    assert "inversion.source_guidance=1,1.5,2,3,5,7" in text


def test_metrics_that_are_not_here_are_listed_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = listed("metrics")
    absent = text.partition("metrics that are not here, and what would fetch them:")[2]
    assert "clip-i, clip-t, pie-clip-edited, pie-clip-source, pie-clip-whole: openai/clip-vit-large-patch14" in absent
    assert "hf download openai/clip-vit-large-patch14" in absent
    (line,) = [line for line in absent.splitlines() if "squeezenet" in line]  # a command stands on one line, to be copied
    assert f"curl -L --fail --create-dirs -o {tmp_path}" in line
    for name, here in (("psnr", "yes"), ("clip-t", "no")):
        row = next(line.split() for line in text.splitlines() if line.split()[:1] == [name])
        assert row[1] == here


def test_a_metric_that_is_here_is_not_told_of_as_missing(random_trunks: Path) -> None:
    absent = listed("metrics").partition("metrics that are not here")[2]
    assert "dino" in absent
    assert "lpips" not in absent


def test_licences_of_data_sets_are_listed() -> None:
    text = listed("cases")
    assert f"flowedit: {build_cases('flowedit').licence}" in text
    assert f"pie-bench: {build_cases('pie-bench').licence}" in text
