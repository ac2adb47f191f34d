"""Uni-Edit and the inversions of its kind: the public codes' numbers, the mask in closed form, and what equal prompts give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.editors.base import Edit, Request
from fe.editors.inversion import Inversion
from fe.editors.uni_edit import UniEdit
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver, load_model
from fe.experiments.probe import probe
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel
from fe.ode import Tick, TimeGrid
from fe.options import OptionError
from fe.registry import SOLVERS
from fe.solvers.base import integrate
from fe.solvers.uni_inv import UniInv
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]

LATENT = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
STAR, SQUARE = ("a red star",) * 2, ("a large green square",) * 2


def no_noise(step: int, draw: int = 0) -> Tensor:
    raise AssertionError("this editor draws no noise")


def run(model: Any, editor: Any, request: Request, steps: int, solver: Any = None) -> tuple[Edit, Meter]:
    with metered(model.network) as meter, torch.no_grad():
        grid = model.grid(steps, request.latent.shape)
        edit = editor.edit(model, request, solver or UniInv(), grid, no_noise, keep_path=True)
    return edit, meter


@pytest.fixture
def flux(tiny_pipeline: Callable[..., Any]) -> FluxModel:
    return FluxModel(tiny_pipeline(guided=True))


@pytest.mark.parametrize(
    ("name", "editor"),
    [
        ("uniedit_readme", UniEdit()),
        ("uniedit_dif_flux", UniEdit(code="diffusers")),
        ("uniinv_recon", Inversion.reconstruction()),
    ],
)
def test_the_public_codes(name: str, editor: Any, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    model = embedded(case["model"], tensors)
    states: list[Tensor] = []

    def listen(module: object, inputs: object, asked: dict[str, Tensor]) -> None:
        states.append(asked["hidden_states"])

    handle = model.network.register_forward_pre_hook(listen, with_kwargs=True)
    edit, meter = run(model, editor, Request(tensors["x_src"], ("src",), ("tar",)), case["settings"]["N"])
    handle.remove()
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    assert meter.rows == case["nfe"]["batch_rows"]
    asked = case["nfe"]["inversion_calls"]
    torch.testing.assert_close(torch.stack(states[:asked]), tensors["inv_calls_x"], atol=1e-4, rtol=0)
    walked = torch.stack([x[:1] for x in states[asked:]])
    torch.testing.assert_close(walked, tensors["den_traj"][:-1], atol=1e-4, rtol=0)
    for state, up, down in zip(edit.path, tensors["inv_traj"].flip(0), tensors["den_traj"], strict=True):
        expected = tensors["x_src"] + FluxPipeline._unpack_latents(down - up, 64, 96, 8)
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=0)


def velocities(difference: Tensor) -> dict[str, Tensor]:
    """Constant velocities under "s", under "t", which differs by `difference` (h, w) in every channel, and under ""."""
    base = torch.full((3, 4, 4), 2.0)
    return {"s": base, "t": base + difference, "": torch.full((3, 4, 4), 0.5)}


@pytest.mark.parametrize("solver", ["uni-inv", "euler", "fireflow", "rk4"])
@pytest.mark.parametrize(("code", "packing", "columns"), [
    ("flux", 1, [0.0, 0.0, 0.0, 11.0]),  # 1 + 2 omega where the mask is 1
    ("flux", 2, [0.0, 0.0, 0.0, 11.0]),  # a place has one mask, but its entries differ as they did
    ("diffusers", 1, [0.0, 0.0, 0.0, 5.0]),  # the signed mean is lowest there: mask 0, omega
])  # fmt: skip
def test_the_mask_in_closed_form(
    solver: str, code: str, packing: int, columns: list[float], constant_model: Callable[..., Any]
) -> None:
    """The target's velocity is lower by 0.3 in the last column."""
    model = constant_model(velocities(torch.tensor([0.0, 0.0, 0.0, -0.3])), packing)
    latent = torch.zeros(1, 3, 4, 4)
    edit, _ = run(model, UniEdit(code=code, alpha=0.75), Request(latent, ("s",), ("t",)), 8, build_solver(solver))
    expected = 0.75 * (0.5 - 2.0 + 0.3 * torch.tensor(columns))  # from time 0.75 on
    torch.testing.assert_close(edit.latent, expected.expand(1, 3, 4, 4), atol=1e-4, rtol=0)


def test_a_packed_place_has_one_mask(constant_model: Callable[..., Any]) -> None:
    """Places of 2 x 2 whose mean difference is 0, 0.3 and 0.6: the middle ones get mask 1/2, entry by entry."""
    difference = torch.tensor([[0.0, 0.0, 0.6, 0.0], [0.0, 0.0, 0.6, 0.0], [0.6, 0.6, 0.0, 0.0], [0.6, 0.6, 0.0, 0.0]])
    model, latent = constant_model(velocities(difference), 2), torch.zeros(1, 3, 4, 4)
    edit, _ = run(model, UniEdit(alpha=1.0, omega=1.0), Request(latent, ("s",), ("t",)), 4)
    mask = torch.tensor([[0.0, 0.5], [1.0, 0.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    expected = (0.5 - 2.0 - difference * (1.0 + 2.0 * mask)).expand(1, 3, 4, 4)
    torch.testing.assert_close(edit.latent, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("code", ["flux", "diffusers"])
def test_without_prompts_it_is_the_round_trip(code: str, flux: FluxModel) -> None:
    nothing = ("",) * 2
    request = Request(LATENT, nothing, nothing)
    edit, _ = run(flux, UniEdit(alpha=1.0, code=code), request, 6)
    plain, _ = run(flux, Inversion.reconstruction(), request, 6)
    torch.testing.assert_close(edit.latent, plain.latent, atol=1e-5, rtol=0)
    part, _ = run(flux, UniEdit(alpha=0.5, code=code), request, 6)
    torch.testing.assert_close(part.latent, run(flux, replace(Inversion.reconstruction(), n_max=3), request, 6)[0].latent)


def test_equal_prompts_leave_nothing_to_push(flux: FluxModel) -> None:
    """Then there is no mask (0/0 in the authors' code), and omega does not matter."""
    request = Request(LATENT, STAR, STAR)
    weak, strong = (run(flux, UniEdit(omega=omega), request, 8)[0].latent for omega in (0.0, 50.0))
    assert torch.isfinite(strong).all()
    torch.testing.assert_close(weak, strong, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(SOLVERS.builtin))
def test_cost(name: str, flux: FluxModel) -> None:
    solver = build_solver(name)
    spent = probe(UniEdit(), solver, 15, flux, (STAR[0], SQUARE[0]))
    up, down = solver.nfe(9), solver.generator.nfe(9)
    assert (spent.calls, spent.rows, spent.draws) == (up + down, up + 2 * down, 0)
    _, meter = run(flux, UniEdit(), Request(LATENT, STAR, SQUARE), 5, solver)
    assert meter.rows == 2 * (solver.nfe(3) + 2 * solver.generator.nfe(3))


@pytest.mark.parametrize(
    ("alpha", "code", "steps"), [(0.7, "flux", 4), (0.7, "diffusers", 3), (0.5, "flux", 2), (1.0, "flux", 5)]
)
def test_steps_are_rounded_as_in_each_code(alpha: float, code: str, steps: int, flux: FluxModel) -> None:
    spent = probe(UniEdit(alpha=alpha, code=code), UniInv(), 5, flux, (STAR[0], SQUARE[0]))
    assert spent.calls == 2 * steps + 1


def test_no_steps_leave_the_source(flux: FluxModel) -> None:
    edit, meter = run(flux, UniEdit(alpha=0.0), Request(LATENT, STAR, SQUARE), 5)
    assert torch.equal(edit.latent, LATENT)
    assert meter.calls == 0


def test_latents_that_are_no_pictures_are_refused(constant_model: Callable[..., Any]) -> None:
    model = constant_model({name: torch.zeros(5, 2) for name in ("s", "t", "")})
    with pytest.raises(ValueError, match="needs a model of pictures"):
        run(model, UniEdit(), Request(torch.zeros(1, 5, 2), ("s",), ("t",)), 3)


def test_options() -> None:
    assert build_editor("uni-edit", {"alpha": "0.8", "code": "diffusers"}) == UniEdit(alpha=0.8, code="diffusers")
    with pytest.raises(OptionError, match="alpha must be from 0 to 1, got 2"):
        UniEdit(alpha=2.0)


def test_uni_inv_from_a_zero_velocity() -> None:
    """It is the walk that is handed zeros as its state."""
    model, latent = MixtureModel(), torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(1)).double()
    field, grid = model.field(model.condition(("source",), 1.0)), TimeGrid.uniform(7, 0.0, 1.0)
    zero = integrate(UniInv(first="zero"), field, latent, grid)
    assert torch.equal(zero.x, integrate(UniInv(), field, latent, grid, torch.zeros_like(latent)).x)
    assert (zero.x - integrate(UniInv(), field, latent, grid).x).abs().max() > 1e-3
    with pytest.raises(OptionError, match="first must be one of network, zero, got 'one'"):
        UniInv(first="one")


def test_uni_inv_from_noise_minus_picture_is_told_points_on_the_line_to_the_noise() -> None:
    """DNAEdit's inversion: where the flow runs straight to the noise, every step asks on that line, and ends at the noise."""
    picture, noise = torch.zeros(1, 2), torch.tensor([[3.0, -1.0]])
    asked: list[Tensor] = []

    def straight(tick: Tick, x: Tensor) -> Tensor:
        asked.append(x / tick.t)
        return noise - picture

    end = integrate(UniInv(), straight, picture, TimeGrid.uniform(4, 0.0, 1.0), noise - picture)
    torch.testing.assert_close(torch.cat(asked), noise.expand(4, 2))
    torch.testing.assert_close(end.x, noise)


def test_a_model_of_few_words_reads_the_empty_prompt(tiny_scenes: str) -> None:
    model = load_model(tiny_scenes)
    latent = model.encode(torch.zeros(1, 3, model.side, model.side))
    scene = "a large {} heart at the right on a checkered cyan background"
    edit, _ = run(model, UniEdit(), Request(latent, (scene.format("yellow"),), (scene.format("red"),)), 2)
    assert torch.isfinite(edit.latent).all()
