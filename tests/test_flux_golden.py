"""The FLUX adapter, its time grids and the attention features against what the public implementations computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest
import torch
from diffusers import FluxPipeline
from einops import rearrange
from fe.attention_hooks.base import Part, Point
from fe.attention_hooks.store import FeatureStore, Inject, Record, Slot, Together
from fe.models.flux import FluxCondition, FluxModel
from fe.models.grids import flux_grid, shifted_grid
from fe.ode import TimeGrid
from fe.solvers.base import Solver, integrate
from fe.solvers.fireflow import FireFlow
from fe.solvers.rf_solver import RFSolver
from torch import Tensor

TOLERANCE = 1e-4  # absolute: an implementation from the formulas is within 1e-5, any mistake misses by 1e-2 or more
FLOWEDIT = ["flowedit_flux_default", "flowedit_flux_identity", "flowedit_flux_nmin3_navg2"]
PLAIN = [  # no injection, so every recorded call is a plain one
    "ff_fireflow_edit_plain",
    "ff_fireflow_recon",
    "ff_midpoint_recon",
    "ff_reflow_recon",
    "ff_rfsolver_recon",
]
INJECTED = [
    "ff_fireflow_add_q",
    "ff_fireflow_addq_addk_replv",
    "ff_fireflow_injv2",
    "ff_fireflow_readme",
    "ff_fireflow_replace_v",
    "ff_rfsolver_injv2",
    "ff_rfsolver_ratio",
    "rs_inject2",
]


class Golden(Protocol):
    def __call__(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]: ...


Models = Callable[[str], FluxModel]


def unpacked(tokens: Tensor) -> Tensor:
    """Tokens (B, 24, 16) as latents (B, 4, 8, 12), by diffusers' own function."""
    latents: Tensor = FluxPipeline._unpack_latents(tokens, 64, 96, 8)
    return latents


def conditions(tensors: dict[str, Tensor], prompts: list[str], guidances: list[float]) -> FluxCondition:
    """One row for each of `prompts` ("src" or "tar")."""
    return FluxCondition(
        torch.cat([tensors[f"{prompt}_txt"] for prompt in prompts]),
        torch.cat([tensors[f"{prompt}_pooled"] for prompt in prompts]),
        torch.tensor(guidances),
    )


def check_calls(model: FluxModel, tensors: dict[str, Tensor], prefix: str, condition: FluxCondition) -> None:
    """All recorded calls as rows of one, each with its own time."""
    x, t, v = (tensors[f"{prefix}calls_{name}"].flatten(0, 1) for name in "xtv")
    with torch.no_grad():
        torch.testing.assert_close(model.velocity(t, unpacked(x), condition), unpacked(v), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", FLOWEDIT)
def test_velocity_reproduces_every_call_of_flowedit(name: str, golden: Golden, golden_model: Models) -> None:
    case, tensors = golden(name)
    settings, calls = case["settings"], len(tensors["calls_x"])
    pairs = (settings["n_max"] - settings["n_min"]) * settings["n_avg"]
    prompts = ["src", "tar"] * pairs + ["tar"] * (calls - 2 * pairs)
    guidances = {"src": settings["src_guidance_scale"], "tar": settings["tar_guidance_scale"]}
    condition = conditions(tensors, prompts, [guidances[prompt] for prompt in prompts])
    check_calls(golden_model(case["model"]), tensors, "", condition)


@pytest.mark.parametrize(("name", "phase"), [(name, "inv") for name in PLAIN + INJECTED] + [(name, "den") for name in PLAIN])
def test_velocity_reproduces_every_plain_call(name: str, phase: str, golden: Golden, golden_model: Models) -> None:
    case, tensors = golden(name)
    calls = len(tensors[f"{phase}_calls_x"])
    prompt = "src" if phase == "inv" or case["same_prompt"] else "tar"
    guidance = case["guidance_inversion"] if phase == "inv" else case["guidance_denoise"]
    condition = conditions(tensors, [prompt] * calls, [guidance] * calls)
    check_calls(golden_model(case["model"]), tensors, f"{phase}_", condition)


def test_flux_grid_equals_the_published_schedules(golden_schedules: dict[str, list[dict[str, Any]]]) -> None:
    for entry in golden_schedules["bfl_get_schedule"]:
        steps, tokens = entry["num_steps"], entry["image_seq_len"]
        grid = flux_grid(steps, tokens) if entry["shift"] else shifted_grid(steps, 1.0)
        assert grid.times == pytest.approx(entry["timesteps"], abs=1e-6)


@pytest.mark.parametrize(("schedule", "name"), [("flux_dev_flowedit", "flux_a"), ("flux_schnell_flowedit", "flux_s")])
def test_model_grid_equals_the_pipelines(
    schedule: str, name: str, golden_schedules: dict[str, list[dict[str, Any]]], golden_model: Models
) -> None:
    shapes = {24: (1, 4, 8, 12), 256: (1, 4, 32, 32), 1024: (1, 4, 64, 64), 4096: (1, 4, 128, 128)}
    for entry in golden_schedules[schedule]:
        grid = golden_model(name).grid(entry["num_steps"], shapes[entry["image_seq_len"]])
        assert grid.times == pytest.approx(entry["sigmas"], abs=1e-6)


def walk_inverting(case: dict[str, Any], tensors: dict[str, Tensor], model: FluxModel, parts: tuple[Part, ...]) -> FeatureStore:
    """The features of the case's blocks over the whole inversion."""
    store = FeatureStore()
    points = chosen(case, model, parts)
    condition = conditions(tensors, ["src"], [case["guidance_inversion"]])
    with torch.no_grad():
        field = model.field(condition, Record(store, points))
        integrate(solver(case), field, tensors["x_src"], TimeGrid(tuple(case["timesteps_exact"])).reversed())
    return store


def solver(case: dict[str, Any]) -> Solver[Any]:
    solvers: dict[str, Solver[Any]] = {"fireflow": FireFlow(), "rf_solver": RFSolver()}
    return solvers[case["solver"]]


def chosen(case: dict[str, Any], model: FluxModel, parts: tuple[Part, ...]) -> list[Point]:
    blocks = range(case["start_layer_index"], case["end_layer_index"] + 1)
    return [point for point in model.points() if point.stream == "single" and point.block in blocks and point.part in parts]


@pytest.mark.parametrize("name", ["ff_fireflow_injv2", "ff_rfsolver_injv2"])
def test_recorded_features_equal_the_published(name: str, golden: Golden, golden_model: Models) -> None:
    case, tensors = golden(name)
    store = walk_inverting(case, tensors, golden_model(case["model"]), ("v",))
    times: list[float] = case["timesteps_exact"]
    expected = {key: value for key, value in tensors.items() if key.startswith("feature.")}
    assert len(expected) == case["n_cached_features"]
    for key, value in expected.items():
        time, second, block, stream, part = key.removeprefix("feature.").split("_")
        high = times.index(float(time))
        slot = Slot(
            (times[high + 1], times[high]), "midpoint" if second == "True" else "knot", 0, Point("single", int(block), "v")
        )
        assert (stream, part) == ("single", "V")
        heads = rearrange(store[slot], "b l (h d) -> b h l d", h=2)
        torch.testing.assert_close(heads, value, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["ff_rfsolver_ratio", "ff_fireflow_addq_addk_replv", "rs_inject2"])
def test_injection_reproduces_the_published_generation(name: str, golden: Golden, golden_model: Models) -> None:
    case, tensors = golden(name)
    model = golden_model(case["model"])
    parts: dict[str, Part] = {"q": "q", "k": "k", "v": "v"}
    changes = [change.split("_") for change in case["editing_strategy"].split()]
    store = walk_inverting(case, tensors, model, tuple(parts[part] for _, part in changes))
    ratios = dict(zip("qkv", case["qkv_ratio"], strict=True))
    hooks = [
        Inject(store, chosen(case, model, (parts[part],)), "add" if how == "add" else "replace", ratios[part], "keep")
        for how, part in changes
    ]
    grid, inject = TimeGrid(tuple(case["timesteps_exact"])), case["inject_step"]
    condition = conditions(tensors, ["tar"], [case["guidance_denoise"]])
    with torch.no_grad():
        first = grid.truncated(grid.steps, grid.steps - inject)
        begun = integrate(solver(case), model.field(condition, Together(hooks)), unpacked(tensors["z"]), first)
        done = integrate(solver(case), model.field(condition), begun.x, grid.truncated(grid.steps - inject), begun.state)
    torch.testing.assert_close(done.x, tensors["output"], atol=TOLERANCE, rtol=0)
    # FireFlow's first generating evaluation has no recorded partner; every evaluation of RF-Solver's has one.
    evaluations = inject if case["solver"] == "fireflow" else 2 * inject
    for hook in hooks:
        assert hook.hits == evaluations * len(hook.points)
        assert hook.misses == (len(hook.points) if case["solver"] == "fireflow" else 0)
