"""SteerFlow: the public code's numbers, its formula in closed form, and its exact way back where nothing steers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.editors.base import Edit, Request
from fe.editors.places import closed, packed, quantile_stretched, spread
from fe.editors.steerflow import SteerFlow
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.experiments.probe import probe
from fe.models.flux import FluxModel
from fe.options import OptionError
from fe.registry import SOLVERS
from fe.solvers.uni_inv import UniInv
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]

LATENT = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
STAR, SQUARE = ("a red star",) * 2, ("a large green square",) * 2
SD3 = SteerFlow(alpha=5.5, quantile=0.95, temperature=15.0, cosine="whole", mask_from="text", target_guidance=6.5)


def no_noise(step: int, draw: int = 0) -> Tensor:
    raise AssertionError("this editor draws no noise")


def run(model: Any, editor: SteerFlow, request: Request, steps: int, solver: Any = None) -> tuple[Edit, Meter]:
    with metered(model.network) as meter, torch.no_grad():
        grid = model.grid(steps, request.latent.shape)
        edit = editor.edit(model, request, solver or UniInv(), grid, no_noise, keep_path=True)
    return edit, meter


@pytest.fixture
def flux(tiny_pipeline: Callable[..., Any]) -> FluxModel:
    return FluxModel(tiny_pipeline(guided=True))


def test_the_public_code(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("steer_flux_default")
    settings, model = case["settings"], embedded(case["model"], tensors)
    editor = SteerFlow(
        alpha=settings["alpha"],
        quantile=settings["quantile"],
        temperature=settings["temp"],
        kernel=settings["kernel"],
        target_guidance=settings["g"],
    )
    states: list[Tensor] = []

    def listen(module: object, inputs: object, asked: dict[str, Tensor]) -> None:
        states.append(asked["hidden_states"])

    handle = model.network.register_forward_pre_hook(listen, with_kwargs=True)
    edit, meter = run(model, editor, Request(tensors["x_src"], ("src",), ("tar",)), settings["N"])
    handle.remove()
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    assert (meter.calls, meter.rows) == (case["nfe"]["transformer_calls"], case["nfe"]["batch_rows"])
    torch.testing.assert_close(torch.stack(states[16:]), tensors["den_traj"][:-1], atol=1e-4, rtol=0)
    for state, up, down in zip(edit.path, tensors["inv_traj"].flip(0), tensors["den_traj"], strict=True):
        expected = tensors["x_src"] + FluxPipeline._unpack_latents(down - up, 96, 96, 8)
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(SOLVERS.builtin))
def test_without_steering_the_source_comes_back(name: str, flux: FluxModel) -> None:
    """Whatever the prompts and the solver: the way back retraces the stored states."""
    request = Request(LATENT, STAR, SQUARE)
    edit, _ = run(flux, SteerFlow(alpha=0.0), request, 6, build_solver(name))
    torch.testing.assert_close(edit.latent, LATENT, atol=1e-5, rtol=0)
    assert (run(flux, SteerFlow(), request, 6, build_solver(name))[0].latent - LATENT).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("cosine", "agreement"),
    [
        ("places", 0.5),  # 1 where the velocities agree, 0 where they are at right angles
        ("whole", 1.0 / (2.0 * math.sqrt(5.0))),
    ],
)
@pytest.mark.parametrize(("alpha", "steering"), [(1.0, 0.75), (2.0, 0.875)])  # in two steps: (1 - 2^-alpha)/2 + 1/2
def test_constant_velocities(
    cosine: str, agreement: float, alpha: float, steering: float, constant_model: Callable[..., Any]
) -> None:
    """Under the target, half of the picture moves three times as fast and in another channel than under the source."""
    source, target = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    source[0], target[0, :, :2], target[1, :, 2:] = 1.0, 1.0, 3.0
    model, latent = constant_model({"s": source, "t": target}), torch.zeros(1, 2, 4, 4)
    editor = SteerFlow(alpha=alpha, quantile=1.0, temperature=3.0, kernel=1, cosine=cosine)
    edit, _ = run(model, editor, Request(latent, ("s",), ("t",)), 2)
    expected = torch.zeros(1, 2, 4, 4)
    mask = 1.0 / (1.0 + math.exp(-1.5))  # at the upper quantile: sigmoid(3 / 2)
    expected[0, :, :, 2:] = -steering * agreement * mask * torch.tensor([-1.0, 3.0])[:, None, None]
    torch.testing.assert_close(edit.latent, expected, atol=1e-5, rtol=0)


def test_guidance_by_hand_is_the_model_s_own_where_that_is_by_rows(golden: Golden, embedded: Embedded) -> None:
    """With a mask of 1/2 everywhere, it does not matter which velocity the mask is made from; nor does the cost differ."""
    tensors = golden("flowedit_sd3_yaml")[1]
    model = embedded("sd3_a", tensors)
    request = Request(tensors["x_src"], ("src",), ("tar",))
    flat = replace(SD3, temperature=0.0)
    by_hand, hand_meter = run(model, flat, request, 30)
    own, own_meter = run(model, replace(flat, mask_from="guided"), request, 30)
    torch.testing.assert_close(by_hand.latent, own.latent, atol=1e-5, rtol=0)
    assert hand_meter.rows == own_meter.rows == 91
    masked, _ = run(model, SD3, request, 30)
    assert (masked.latent - run(model, replace(SD3, mask_from="guided"), request, 30)[0].latent).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(SOLVERS.builtin))
def test_cost(name: str, flux: FluxModel) -> None:
    solver = build_solver(name)
    up, down = solver.nfe(15), 15
    spent = probe(SteerFlow(), solver, 15, flux, (STAR[0], SQUARE[0]))
    assert (spent.calls, spent.rows, spent.draws) == (up + down, up + down, 0)
    assert probe(SteerFlow(mask_from="text"), solver, 15, flux, (STAR[0], SQUARE[0])).rows == up + 2 * down


def test_closing_fills_holes_and_leaves_the_rest() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 2:7, 2:7] = 1.0
    solid = mask.clone()
    mask[..., 4, 4] = 0.0
    torch.testing.assert_close(closed(mask, 3), solid)
    torch.testing.assert_close(closed(mask, 1), mask)
    torch.testing.assert_close(closed(0.25 + mask, 3), 0.25 + solid)


def test_quantiles_are_each_row_s_own() -> None:
    values = torch.stack((torch.arange(11.0), 5.0 * torch.arange(11.0)))[:, None, None]
    torch.testing.assert_close(quantile_stretched(values, 0.9), ((torch.arange(11.0) - 1.0) / 8.0).expand(2, 1, 1, 11))
    assert quantile_stretched(torch.ones(1, 1, 2, 2), 0.8).abs().max() == 0.0


def test_places_are_flux_tokens() -> None:
    latent = torch.randn(2, 4, 8, 12)
    tokens = FluxPipeline._pack_latents(latent, 2, 4, 8, 12)
    torch.testing.assert_close(packed(latent, 2).flatten(2).transpose(1, 2), tokens)
    assert torch.equal(packed(latent, 1), latent)
    mask = torch.rand(2, 1, 4, 6)
    assert torch.equal(packed(spread(mask, 2), 2), mask.expand(2, 4, 4, 6))


def test_options() -> None:
    assert build_editor("steerflow", {"cosine": "whole", "kernel": "3"}) == SteerFlow(cosine="whole", kernel=3)
    with pytest.raises(OptionError, match="kernel must be odd, so that it has a middle, got 4"):
        SteerFlow(kernel=4)
    with pytest.raises(OptionError, match=r"quantile must be from 0\.5 to 1, got 0\.2"):
        SteerFlow(quantile=0.2)
