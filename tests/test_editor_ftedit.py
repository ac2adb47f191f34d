"""FTEdit and its fixed-point inversion against its public code on a tiny random network, and against what mathematics says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, Request
from fe.editors.ftedit import FTEdit
from fe.editors.inversion import Inversion
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.experiments.probe import probe
from fe.models.mixture import MixtureModel
from fe.ode import TimeGrid
from fe.options import OptionError
from fe.solvers.base import integrate, walk
from fe.solvers.conformance import examine
from fe.solvers.euler import Euler
from fe.solvers.fixed_point import FixedPoint
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]
CASES = MixtureCases(points=100).take(3)
LATENT = torch.stack([case.picture for case in CASES])
PLAIN = FTEdit(target_guidance=1.0)


def no_noise(step: int, draw: int = 0) -> Tensor:
    raise AssertionError("this editor draws no noise")


def run(
    model: Any,
    editor: Editor,
    latent: Tensor,
    prompts: tuple[str, str],
    steps: int,
    mask: Tensor | None = None,
    solver: Any = None,
) -> tuple[Edit, Meter]:
    rows = len(latent)
    request = Request(latent, (prompts[0],) * rows, (prompts[1],) * rows, mask)
    with metered(model.network) as meter, torch.no_grad():
        grid = model.grid(steps, latent.shape)
        return editor.edit(model, request, solver or Euler(), grid, no_noise, keep_path=True), meter


def on_mixture(editor: Editor, steps: int = 12, prompts: tuple[str, str] = ("source", "target")) -> tuple[Edit, Meter]:
    return run(MixtureModel(), editor, LATENT, prompts, steps)


def test_the_public_code(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("ftedit_default")
    settings, model = case["settings"], embedded(case["model"], tensors)
    first, last = settings["avg"]
    editor = FTEdit(settings["K"] + 1, first, last, settings["inv_cfg"], settings["cfg"])
    edit, meter = run(model, editor, tensors["x_src"], ("src", "tar"), settings["N"])
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    direct = tensors["x_src"] + tensors["den_traj"] - tensors["inv_traj"].flip(0)
    torch.testing.assert_close(torch.stack(edit.path), direct, atol=1e-4, rtol=0)
    assert meter.calls == case["nfe"]["transformer_calls"]
    # the public code also spends a row on the empty prompt at guidance 1, and two on the source's branch, which changes nothing
    assert meter.rows == 120 + 60 == case["nfe"]["batch_rows"] - 120 - 60


def test_the_inverted_states_are_the_public_codes(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("ftedit_default")
    model, solver = embedded(case["model"], tensors), FixedPoint(4, 0, 5)
    times: list[Tensor] = []

    def keep(module: object, args: object, kwargs: dict[str, Tensor]) -> None:
        times.append(kwargs["timestep"])

    field = model.field(model.condition(("src",), 1.0))
    with model.network.register_forward_pre_hook(keep, with_kwargs=True), torch.no_grad():
        grid = model.grid(30, tensors["x_src"].shape).reversed()
        states = [step.x for step in walk(solver, field, tensors["x_src"], grid)]
    torch.testing.assert_close(torch.stack(states), tensors["inv_traj"][1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(states[-1], tensors["z"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(times), tensors["inv_calls_t"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", [FixedPoint(1), FixedPoint(2), FixedPoint(4, 0, 5), FixedPoint(4, 1, 3)])
def test_the_solver_is_what_it_declares(solver: FixedPoint) -> None:
    for finding in examine(solver):
        assert finding.passed, finding


def miss(editor: FTEdit, steps: int, std: float) -> float:
    """How far off the source the round trip ends, on a mixture of modes that wide: wide ones make the sweeps converge."""
    model = MixtureModel(std)
    return float((run(model, editor, LATENT, ("source", "source"), steps)[0].latent - LATENT).abs().max())


@pytest.mark.parametrize("steps", [6, 20])
def test_sweeps_that_converge_are_undone_by_euler(steps: int) -> None:
    assert miss(replace(PLAIN, sweeps=1, average_to=0), steps, 8.0) > 0.1
    assert miss(replace(PLAIN, sweeps=60, average_to=0), steps, 8.0) < 1e-4


def test_every_sweep_comes_nearer_and_the_mean_keeps_away() -> None:
    misses = [miss(replace(PLAIN, sweeps=sweeps, average_to=0), 20, 8.0) for sweeps in (1, 2, 4, 8)]
    assert misses == sorted(misses, reverse=True)
    assert misses[3] < 0.05 * misses[0]
    assert miss(replace(PLAIN, sweeps=8, average_to=8), 20, 8.0) > 5 * misses[3]


@pytest.mark.parametrize(("first", "last"), [(0, 0), (5, 9), (2, 1), (3, 4)])
def test_a_window_without_other_sweeps_is_the_last_velocity(first: int, last: int) -> None:
    """Empty windows, and the one that holds the last of four sweeps alone."""
    edit, _ = on_mixture(replace(PLAIN, average_from=first, average_to=last))
    plain, _ = on_mixture(replace(PLAIN, average_to=0))
    torch.testing.assert_close(edit.latent, plain.latent, atol=1e-5, rtol=0)
    assert (edit.latent - on_mixture(PLAIN)[0].latent).abs().max() > 1e-2


def test_a_window_is_as_if_the_later_sweeps_had_not_been() -> None:
    states = [
        integrate(solver, lambda tick, x: torch.sin(3 * x) + tick.t, LATENT.double(), TimeGrid.uniform(5)).x
        for solver in (FixedPoint(6, 1, 3), FixedPoint(3, 1, 9), FixedPoint(3, 0, 3))
    ]
    assert torch.equal(states[0], states[1])
    assert (states[0] - states[2]).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"sweeps": 1}, {"n_max": 7, "average_to": 0}])
def test_it_is_inversion_by_fixed_point_and_generation_by_euler(options: dict[str, Any]) -> None:
    editor = replace(PLAIN, **options)
    solver = FixedPoint(editor.sweeps, editor.average_from, editor.average_to)
    other, _ = run(
        MixtureModel(), Inversion(target_guidance=1.0, n_max=editor.n_max), LATENT, ("source", "target"), 12, solver=solver
    )
    assert torch.equal(on_mixture(editor)[0].latent, other.latent)


@pytest.mark.parametrize("editor", [FTEdit(1, compensate=True), FTEdit(compensate=True), FTEdit(n_max=3, compensate=True)])
def test_compensated_equal_prompts_give_the_source_back(editor: FTEdit, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("ftedit_default")
    model, latent = embedded(case["model"], tensors), tensors["x_src"]
    back = run(model, editor, latent, ("src", "src"), 6)[0]
    torch.testing.assert_close(back.latent, latent, atol=1e-5, rtol=0)
    for state in back.path:
        torch.testing.assert_close(state, latent, atol=1e-5, rtol=0)
    assert (run(model, replace(editor, compensate=False), latent, ("src", "src"), 6)[0].latent - latent).abs().max() > 1e-3
    assert (run(model, editor, latent, ("src", "tar"), 6)[0].latent - latent).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("editor", "calls", "rows", "guided"),
    [
        (FTEdit(), 5, 5, 6),
        (FTEdit(compensate=True), 5, 6, 8),
        (FTEdit(sweeps=1), 2, 2, 3),
        (FTEdit(target_guidance=1.0), 5, 5, 5),
        (FTEdit(source_guidance=1.5), 5, 5, 10),
    ],
)
def test_what_it_costs(editor: FTEdit, calls: int, rows: int, guided: int, golden: Golden, embedded: Embedded) -> None:
    plain = replace(editor, source_guidance=1.0, target_guidance=1.0)
    edit, meter = on_mixture(plain, 4)
    assert (meter.calls, meter.rows) == (4 * calls, 4 * rows * len(CASES))
    assert len(edit.path) == 5
    assert torch.equal(edit.path[0], LATENT)
    assert torch.equal(edit.path[-1], edit.latent)
    assert probe(plain, Euler(), 4, MixtureModel(), ("source", "target")) == (4 * calls, 4 * rows, 0)
    case, tensors = golden("ftedit_default")
    _, meter = run(embedded(case["model"], tensors), editor, tensors["x_src"], ("src", "tar"), 3)
    assert (meter.calls, meter.rows) == (3 * calls, 3 * guided)


@pytest.mark.parametrize("options", [{"sweeps": 0}, {"average_from": -1}, {"average_to": -1}, {"n_max": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"FTEdit.{next(iter(options))} must be at least"):
        FTEdit(**options)
    if "n_max" not in options:
        with pytest.raises(OptionError, match=f"FixedPoint.{next(iter(options))} must be at least"):
            FixedPoint(**options)


def test_options_come_from_text() -> None:
    assert build_editor("ftedit", {"sweeps": "2", "compensate": "yes"}) == FTEdit(sweeps=2, compensate=True)
    assert build_solver("fixed-point", {"sweeps": "2"}) == FixedPoint(2)
