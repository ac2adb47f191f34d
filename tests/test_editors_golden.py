"""The editors against what the methods' public codes compute on tiny random networks (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.editors.base import Edit, Editor, Request
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_solver
from fe.models.flux import FluxModel
from fe.solvers.base import Solver
from torch import Tensor

SOLVERS = {"fireflow": "fireflow", "rf_solver": "rf-solver", "rf_midpoint": "midpoint", "reflow": "euler"}
FLOWEDIT = ["flowedit_flux_default", "flowedit_flux_identity", "flowedit_flux_nmin3_navg2"]
ROUND_TRIPS = ["ff_fireflow_recon", "ff_midpoint_recon", "ff_reflow_recon", "ff_rfsolver_recon"]
EDITS = [
    "ff_fireflow_edit_plain",
    "ff_fireflow_add_q",
    "ff_fireflow_addq_addk_replv",
    "ff_fireflow_injv2",
    "ff_fireflow_readme",
    "ff_fireflow_replace_v",
    "ff_rfsolver_injv2",
    "ff_rfsolver_ratio",
    "rs_inject2",
]

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]


@dataclass
class Calls:
    """What the network was given and gave back, call by call."""

    x: list[Tensor] = field(default_factory=list)
    t: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)

    def __call__(self, module: object, args: object, kwargs: dict[str, Tensor], output: tuple[Tensor, ...]) -> None:
        self.x.append(kwargs["hidden_states"].clone())
        self.t.append(kwargs["timestep"].clone())
        self.v.append(output[0].clone())


@dataclass(frozen=True)
class Replayed:
    """Noise in the order it was recorded in: every draw of a step, from step n_max on, then one at n_min."""

    draws: Tensor
    n_max: int
    n_avg: int

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        packed = self.draws[(self.n_max - step) * self.n_avg + draw]
        return unpacked(packed)


def unpacked(tokens: Tensor) -> Tensor:
    """Tokens (B, 24, 16) of the golden latents' size to latents (B, 4, 8, 12), by diffusers' own function."""
    latents: Tensor = FluxPipeline._unpack_latents(tokens, 64, 96, 8)
    return latents


def run(
    model: FluxModel, editor: Editor, solver: Solver[Any], steps: int, tensors: dict[str, Tensor], target: str, noise: Any
) -> tuple[Edit, Calls, Meter]:
    calls, latent = Calls(), tensors["x_src"]
    request = Request(latent, ("src",) * len(latent), (target,) * len(latent))
    handle = model.network.register_forward_hook(calls, with_kwargs=True)
    try:
        with metered(model.network) as meter, torch.no_grad():
            edit = editor.edit(model, request, solver, model.grid(steps, latent.shape), noise, keep_path=True)
    finally:
        handle.remove()
    return edit, calls, meter


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def no_noise(step: int, draw: int = 0) -> Tensor:
    raise AssertionError("this editor draws no noise")


def flowedit(settings: dict[str, Any], paired: bool) -> FlowEdit:
    return FlowEdit(
        n_max=settings["n_max"],
        n_min=settings["n_min"],
        n_avg=settings["n_avg"],
        source_guidance=settings["src_guidance_scale"],
        target_guidance=settings["tar_guidance_scale"],
        paired=paired,
    )


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", FLOWEDIT)
def test_flowedit(name: str, paired: bool, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    settings = case["settings"]
    model = embedded(case["model"], tensors)
    editor = flowedit(settings, paired)
    noise = Replayed(tensors["noise"], settings["n_max"], settings["n_avg"])
    edit, calls, meter = run(model, editor, build_solver("euler"), settings["T_steps"], tensors, "tar", noise)

    close(edit.latent, tensors["output"])
    walked = settings["n_max"] - settings["n_min"]
    for state, packed in zip(edit.path[: walked + 1], tensors["traj"], strict=False):
        close(state, unpacked(packed))
    assert len(edit.path) == settings["n_max"] + 1
    assert torch.equal(edit.path[0], tensors["x_src"])
    assert torch.equal(edit.path[-1], edit.latent)

    assert meter.rows == case["nfe"]["batch_rows"]
    pairs = walked * settings["n_avg"] if paired else 0
    assert meter.calls == case["nfe"]["transformer_calls"] - pairs
    close(torch.cat(calls.x), tensors["calls_x"].flatten(0, 1))
    close(torch.cat(calls.t), tensors["calls_t"].flatten())
    close(torch.cat(calls.v), tensors["calls_v"].flatten(0, 1))


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip(name: str, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    model = embedded(case["model"], tensors)
    solver = build_solver(SOLVERS[case["solver"]])
    editor = Inversion.reconstruction()
    checked(case, tensors, *run(model, editor, solver, case["num_steps"], tensors, "src", no_noise))


def injection(case: dict[str, Any], memory: str) -> Injection:
    """The case's settings as options. The public code's `reuse_v` means "replace v, unscaled", whatever else is asked for."""
    q_ratio, k_ratio, v_ratio = (1.0, 1.0, 1.0) if case["reuse_v"] else case["qkv_ratio"]
    strategy = "replace_v" if case["reuse_v"] else case["editing_strategy"]
    return Injection(
        inject=case["inject_step"],
        strategy=strategy.replace(" ", "+"),
        first_block=case["start_layer_index"],
        last_block=case["end_layer_index"],
        q_ratio=q_ratio,
        k_ratio=k_ratio,
        v_ratio=v_ratio,
        source_guidance=case["guidance_inversion"],
        target_guidance=case["guidance_denoise"],
        memory=memory,
    )


@pytest.mark.parametrize("name", EDITS)
def test_injection(name: str, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    model = embedded(case["model"], tensors)
    solver = build_solver(SOLVERS[case["solver"]])
    edit, calls, meter = run(model, injection(case, "stored"), solver, case["num_steps"], tensors, "tar", no_noise)
    checked(case, tensors, edit, calls, meter)
    first_knots = 1 if case["solver"] == "fireflow" and case["inject_step"] else 0
    per_call = case["n_cached_features"] // max(1, case["inject_step"] * (1 if case["solver"] == "fireflow" else 2))
    assert edit.counts["injected"] == case["n_cached_features"]
    assert edit.counts["missed"] == first_knots * per_call


@pytest.mark.parametrize("name", EDITS)
def test_injection_in_batch(name: str, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    model = embedded(case["model"], tensors)
    solver = build_solver(SOLVERS[case["solver"]])
    edit, calls, meter = run(model, injection(case, "in-batch"), solver, case["num_steps"], tensors, "tar", no_noise)
    close(edit.latent, tensors["output"])
    injected_calls = case["inject_step"] * (1 if case["solver"] == "fireflow" else 2)
    assert meter.calls == case["nfe"]["transformer_calls"]
    assert meter.rows == case["nfe"]["batch_rows"] + injected_calls * case["batch"]
    assert edit.counts["injected"] == case["n_cached_features"]
    assert sorted({len(x) for x in calls.x}) == ([case["batch"], 2 * case["batch"]] if injected_calls else [case["batch"]])


def checked(case: dict[str, Any], tensors: dict[str, Tensor], edit: Edit, calls: Calls, meter: Meter) -> None:
    """Result, every call of both directions, and the cost."""
    close(edit.latent, tensors["output"])
    assert torch.equal(edit.path[0], tensors["x_src"])
    assert torch.equal(edit.path[-1], edit.latent)
    assert len(edit.path) == case["num_steps"] + 1
    recorded = [torch.cat((tensors[f"inv_calls_{part}"], tensors[f"den_calls_{part}"])).flatten(0, 1) for part in "xtv"]
    for made, expected in zip((calls.x, calls.t, calls.v), recorded, strict=True):
        close(torch.cat(made), expected)
    assert (meter.calls, meter.rows) == (case["nfe"]["transformer_calls"], case["nfe"]["batch_rows"])
    inverted, generated = tensors["inv_traj"], tensors["den_traj"]
    for state, up, down in zip(edit.path, inverted.flip(0), generated, strict=True):
        close(state, tensors["x_src"] + unpacked(down - up))
