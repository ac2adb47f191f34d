"""RF-Inversion: the public code's numbers, where its pulls lead, and the law of its stochastic form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.cases.mixture import MixtureCases, modes
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.inversion import Inversion
from fe.editors.rf_inversion import RFInversion
from fe.experiments.meter import metered
from fe.experiments.names import build_editor, build_solver
from fe.experiments.probe import probe
from fe.models.grids import flux_grid
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from fe.registry import SOLVERS
from fe.solvers.euler import Euler
from fe.solvers.fixed_point import FixedPoint
from fe.solvers.uni_inv import UniInv
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]

CASES = MixtureCases(points=100).take(2)
LATENT = torch.stack([case.picture for case in CASES])
NOISE = KeyedNoise(0, tuple(case.id for case in CASES), LATENT)
PLAIN = RFInversion(grid="consistent", invert_with="source", source_guidance=1.0, target_guidance=1.0)
WITHIN = ["euler", "midpoint", "rf-solver", "fireflow", "alf"]


def run(editor: Any, solver: str, steps: int = 12, target: str = "target") -> tuple[Edit, list[Tensor]]:
    """The edit on the mixture, and every state that the network was asked at."""
    model, seen = MixtureModel(), list[Tensor]()
    request = Request(LATENT, ("source",) * 2, (target,) * 2)
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    edit = editor.edit(model, request, build_solver(solver), model.grid(steps, LATENT.shape), NOISE, keep_path=True)
    return edit, seen


@pytest.mark.parametrize("name", ["rfinv_default", "rfinv_decay", "rfinv_plain"])
def test_the_public_code(name: str, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    settings, model = case["settings"], embedded(case["model"], tensors)
    editor = RFInversion(
        gamma=settings["gamma"],
        eta=settings["eta"],
        start=settings["start"],
        stop=settings["stop"],
        decay=settings["power"] if settings["decay"] else 0.0,
        source_guidance=settings["g_src"],
        target_guidance=settings["g"],
    )
    typical = FluxPipeline._unpack_latents(tensors["y1"], 64, 96, 8)
    states, times = list[Tensor](), list[Tensor]()

    def listen(module: object, inputs: object, asked: dict[str, Tensor]) -> None:
        states.append(asked["hidden_states"])
        times.append(asked["timestep"])

    handle = model.network.register_forward_pre_hook(listen, with_kwargs=True)
    request, grid = Request(tensors["x_src"], ("src",), ("tar",)), model.grid(settings["T"], tensors["x_src"].shape)
    with metered(model.network) as meter, torch.no_grad():
        edit = editor.edit(model, request, Euler(), grid, lambda step, draw=0: typical)
    handle.remove()
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    assert (meter.calls, meter.rows) == (case["nfe"]["transformer_calls"], case["nfe"]["batch_rows"])
    walked = torch.cat((tensors["inv_traj"][:-1], tensors["den_traj"][:-1]))
    torch.testing.assert_close(torch.stack(states), walked, atol=1e-4, rtol=0)
    told = torch.cat((tensors["inv_calls_t"], tensors["den_calls_t"]))
    torch.testing.assert_close(torch.stack(times), told, atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", WITHIN)
def test_without_pulls_it_is_editing_by_inversion(solver: str) -> None:
    edit, _ = run(replace(PLAIN, gamma=0.0, eta=0.0), solver)
    plain, _ = run(Inversion(target_guidance=1.0), solver)
    torch.testing.assert_close(edit.latent, plain.latent, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack(edit.path), torch.stack(plain.path), atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_whole_pull_up_ends_at_the_noise(solver: str) -> None:
    _, seen = run(replace(PLAIN, gamma=1.0), solver)
    torch.testing.assert_close(seen[build_solver(solver).nfe(12)], NOISE(12), atol=1e-4, rtol=0)


@pytest.mark.parametrize("grid", ["published", "consistent"])
def test_a_whole_pull_down_ends_at_the_source(grid: str) -> None:
    for editor in (replace(PLAIN, grid=grid, eta=1.0, stop=1.0), replace(PLAIN, grid=grid, eta=1.0, start=0.9, stop=1.0)):
        edit, _ = run(editor, "euler")
        torch.testing.assert_close(edit.latent, LATENT, atol=1e-5, rtol=0)


def test_the_pull_holds_the_edit_to_the_source() -> None:
    distances = [
        float((run(replace(PLAIN, eta=eta, stop=0.5), "euler", target="printed-target")[0].latent - LATENT).square().mean())
        for eta in (0.0, 0.5, 1.0)
    ]
    assert distances[0] > distances[1] > distances[2] > 0.0


def test_the_window_counts_steps_from_the_noise_end_and_fades() -> None:
    """int(start N) to int(stop N) - 1: with 12 steps 0.1 to 0.6 is 1 to 6."""
    whole = replace(PLAIN, gamma=0.0, eta=1.0)
    outside, _ = run(replace(whole, eta=0.0), "euler")
    for start, stop, pulled in ((0.1, 0.6, True), (0.0, 0.083, False), (0.5, 0.5, False), (0.0, 0.084, True)):
        edit, _ = run(replace(whole, start=start, stop=stop), "euler")
        assert torch.equal(edit.latent, outside.latent) is not pulled
    faded, _ = run(replace(whole, stop=1.0, decay=1e6), "euler")  # nothing is left of it but at the first step
    first, _ = run(replace(whole, stop=1 / 12), "euler")
    torch.testing.assert_close(faded.latent, first.latent, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("grid", "off"), [("published", 0.258), ("consistent", 0.0)])
def test_the_published_times_are_not_those_reached(grid: str, off: float) -> None:
    """By how much, on the grid of FLUX for 1024 x 1024 pixels: the network sees another time than the noise that there is."""
    model, told, knots = MixtureModel(), list[float](), flux_grid(28, 4096)
    model.network.register_forward_pre_hook(lambda module, inputs: told.append(float(inputs[1][0])))
    request = Request(LATENT, ("source",) * 2, ("target",) * 2)
    replace(PLAIN, grid=grid).edit(model, request, Euler(), knots, NOISE)
    reached = [1.0 - t for t in knots.times[:-1]] if grid == "published" else knots.times[:0:-1]
    assert max(abs(a - b) for a, b in zip(told[:28], reached, strict=True)) == pytest.approx(off, abs=1e-3)
    assert told[28:] == pytest.approx(knots.times[:-1], abs=1e-6)


def test_the_stochastic_form_draws_from_the_target() -> None:
    """From typical noise and without a pull, each mode gets half of the points, with its own spread."""
    cases = MixtureCases(points=1000).take(2)
    latent = torch.stack([case.picture for case in cases])
    model, noise = MixtureModel(), KeyedNoise(1, tuple(case.id for case in cases), latent)
    request = Request(latent, ("source",) * 2, ("target",) * 2)
    editor = replace(PLAIN, gamma=1.0, eta=0.0, sde=True)
    points = editor.edit(model, request, Euler(), model.grid(200, latent.shape), noise).latent.flatten(0, 1)
    offsets = points[:, None] - modes("target").float()
    nearest = offsets.square().sum(-1).argmin(1)
    spread = offsets[torch.arange(len(points)), nearest].std(0)
    assert nearest.float().mean() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(spread, torch.ones(2), atol=0.08, rtol=0)
    still = replace(editor, sde=False).edit(model, request, Euler(), model.grid(200, latent.shape), noise).latent
    assert (points - still.flatten(0, 1)).abs().mean() > 0.5  # by other ways than the flow's


def test_draws_of_the_stochastic_form_are_numbered_as_their_steps() -> None:
    asked: list[int] = []

    def noise(step: int, draw: int = 0) -> Tensor:
        asked.append(step)
        return torch.zeros_like(LATENT)

    model = MixtureModel()
    request = Request(LATENT, ("source",) * 2, ("target",) * 2)
    replace(PLAIN, sde=True).edit(model, request, Euler(), model.grid(4, LATENT.shape), noise)
    assert asked == [4, 3, 2, 1]


def test_n_max_inverts_the_last_steps_only() -> None:
    edit, seen = run(replace(PLAIN, n_max=5), "euler")
    assert len(seen) == 10
    assert len(edit.path) == 6
    whole, _ = run(replace(PLAIN, n_max=50), "euler")
    assert torch.equal(whole.latent, run(PLAIN, "euler")[0].latent)


def test_paths_are_given_where_they_are_without_noise() -> None:
    edit, _ = run(PLAIN, "midpoint")
    assert torch.equal(edit.path[0], LATENT)
    assert torch.equal(edit.path[-1], edit.latent)
    assert run(replace(PLAIN, grid="published"), "euler")[0].path == ()
    assert run(replace(PLAIN, sde=True), "euler")[0].path == ()


@pytest.mark.parametrize("name", sorted(SOLVERS.builtin))
def test_solvers_that_need_a_value_at_the_ends_are_refused_before_anything_runs(name: str) -> None:
    for editor, allowed in (
        (PLAIN, WITHIN),
        (replace(PLAIN, sde=True), ["euler"]),
        (replace(PLAIN, grid="published"), ["euler"]),
    ):
        if name in allowed:
            assert torch.isfinite(run(editor, name)[0].latent).all()
            continue
        with pytest.raises(ValueError, match=f"{SOLVERS[name].__name__} .*; use (the solver )?euler"):
            probe(editor, build_solver(name), 4, MixtureModel(), ("source", "target"))


@pytest.mark.parametrize("solver", [UniInv(first="zero"), FixedPoint(sweeps=1)])
def test_one_evaluation_a_step_is_not_enough_to_be_euler(solver: Any) -> None:
    with pytest.raises(ValueError, match="use the solver euler"):
        probe(replace(PLAIN, grid="published"), solver, 4, MixtureModel(), ("source", "target"))


def test_options() -> None:
    assert build_editor("rf-inversion", {"grid": "consistent", "sde": "yes"}) == RFInversion(grid="consistent", sde=True)
    with pytest.raises(OptionError, match=r"start must not exceed stop, got 0.5 and 0.25"):
        RFInversion(start=0.5)
    with pytest.raises(OptionError, match="gamma must be from 0 to 1, got 2"):
        RFInversion(gamma=2.0)
