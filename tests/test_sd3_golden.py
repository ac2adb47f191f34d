"""SD3 against what FlowEdit's public code computes on a tiny random network (tests/golden/README.md), and where that code has
no answer, against the network and the scheduler themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from fe.editors.base import Edit, KeyedNoise, Noise, Request
from fe.editors.flowedit import FlowEdit
from fe.experiments.meter import Meter, metered
from fe.models.sd3 import SD3Model
from fe.solvers.euler import Euler
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]
STEPS = 12
EDITOR = FlowEdit(n_max=8, source_guidance=3.5, target_guidance=13.5)


@pytest.fixture(scope="module")
def tensors(golden: Golden) -> dict[str, Tensor]:
    return golden("flowedit_sd3_yaml")[1]


@pytest.fixture
def model(embedded: Embedded, tensors: dict[str, Tensor]) -> Any:
    return embedded("sd3_a", tensors)


@torch.no_grad()
def run(model: Any, editor: FlowEdit, latent: Tensor, noise: Noise | None = None, target: str = "tar") -> tuple[Edit, Meter]:
    rows = len(latent)
    request = Request(latent, ("src",) * rows, (target,) * rows)
    draws = noise or KeyedNoise(0, tuple("abcd")[:rows], latent)
    with metered(model.network) as meter:
        return editor.edit(model, request, Euler(), model.grid(STEPS, latent.shape), draws, keep_path=True), meter


@torch.no_grad()
def sampled(model: Any, tensors: dict[str, Tensor], x: Tensor, steps: int, guidance: float) -> Tensor:
    """`x` taken through the last `steps` of all by diffusers' scheduler, with the network called as its pipeline does."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(STEPS - steps)
    for t in scheduler.timesteps[STEPS - steps :]:
        negative, text = (
            model.network(
                hidden_states=x,
                timestep=t.expand(len(x)),
                encoder_hidden_states=tensors[f"{name}_txt"].expand(len(x), -1, -1),
                pooled_projections=tensors[f"{name}_pooled"].expand(len(x), -1),
                return_dict=False,
            )[0]
            for name in ("neg", "tar")
        )
        x = scheduler.step(negative + guidance * (text - negative), t, x, return_dict=False)[0]
    return x


def test_flowedit(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("flowedit_sd3_yaml")
    settings, latent = case["settings"], tensors["x_src"]
    model = embedded(case["model"], tensors)
    editor = FlowEdit(n_max=settings["n_max"], source_guidance=3.5, target_guidance=13.5)
    request = Request(latent, ("src",), ("tar",))
    grid = model.grid(settings["T_steps"], latent.shape)
    torch.testing.assert_close(torch.tensor(grid.times), tensors["sigmas"], atol=1e-6, rtol=0)

    def noise(step: int, draw: int = 0) -> Tensor:
        return tensors["noise"][settings["n_max"] - step]

    with metered(model.network) as meter, torch.no_grad():
        edit = editor.edit(model, request, Euler(), grid, noise, keep_path=True)
    assert (meter.calls, meter.rows) == (33, 132)
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    for state, expected in zip(edit.path, tensors["traj"], strict=True):
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=0)


def test_every_published_call_is_a_velocity(model: Any, golden: Golden) -> None:
    """Rows of the public code: source negative, source, target negative, target; times from 0 to 1000."""
    _, tensors = golden("flowedit_sd3_yaml")
    both = model.condition(["src"], 3.5).joined(model.condition(["tar"], 13.5))
    for x, t, v in zip(tensors["calls_x"], tensors["calls_t"], tensors["calls_v"], strict=True):
        with torch.no_grad():
            velocity = model.velocity(t[[1, 3]] / 1000, x[[1, 3]], both)
        expected = v[[0, 2]] + torch.tensor([3.5, 13.5]).reshape(2, 1, 1, 1) * (v[[1, 3]] - v[[0, 2]])
        torch.testing.assert_close(velocity, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("n_max", "n_min"), [(8, 3), (5, 5), (12, 12), (12, 1)])
def test_the_last_steps_generate_with_two_rows_a_call(
    n_max: int, n_min: int, rows: int, model: Any, tensors: dict[str, Tensor]
) -> None:
    latent = torch.cat([tensors["x_src"], -tensors["x_src"]])[:rows]
    editor = replace(EDITOR, n_max=n_max, n_min=n_min)
    edit, meter = run(model, editor, latent)
    assert (meter.calls, meter.rows) == (n_max, rows * (4 * (n_max - n_min) + 2 * n_min))
    begun = run(model, replace(EDITOR, n_max=n_max), latent)[0].path[n_max - n_min]  # z where the last phase begins
    time = model.grid(STEPS, latent.shape).times[STEPS - n_min]
    noisy = begun + time * (KeyedNoise(0, tuple("ab")[:rows], latent)(n_min) - latent)
    torch.testing.assert_close(edit.latent, sampled(model, tensors, noisy, n_min, 13.5), atol=1e-4, rtol=1e-5)


def test_all_steps_generated_is_the_schedulers_own_sampling_from_noise(model: Any, tensors: dict[str, Tensor]) -> None:
    latent = tensors["x_src"]
    edit, _ = run(model, replace(EDITOR, n_max=STEPS, n_min=STEPS), latent)
    noise = KeyedNoise(0, ("a",), latent)(STEPS)
    torch.testing.assert_close(edit.latent, sampled(model, tensors, noise, STEPS, 13.5), atol=1e-4, rtol=1e-5)


def test_draws_are_averaged(model: Any, tensors: dict[str, Tensor]) -> None:
    latent = tensors["x_src"]
    draws = KeyedNoise(0, ("a",), latent)
    mean, meter = run(model, replace(EDITOR, n_avg=3), latent)
    assert (meter.calls, meter.rows) == (3 * 8, 3 * 8 * 4)
    firsts = []
    for wanted in range(3):

        def noise(step: int, draw: int = 0, wanted: int = wanted) -> Tensor:
            return draws(step, wanted)

        firsts.append(run(model, EDITOR, latent, noise)[0].path[1])
    assert torch.stack(firsts).std(0).max() > 1e-3
    torch.testing.assert_close(mean.path[1], torch.stack(firsts).mean(0), atol=1e-5, rtol=0)


def test_cases_of_a_batch_do_not_meet(model: Any, tensors: dict[str, Tensor]) -> None:
    latent = torch.cat([tensors["x_src"], tensors["x_src"].flip(-1)])
    editor = replace(EDITOR, n_min=2, n_avg=2)
    both, meter = run(model, editor, latent)
    assert meter.rows == 2 * (2 * 6 * 4 + 2 * 2)
    for row, name in enumerate("ab"):
        alone, _ = run(model, editor, latent[row : row + 1], KeyedNoise(0, (name,), latent[:1]))
        torch.testing.assert_close(both.latent[row : row + 1], alone.latent, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("source", "target", "rows"), [(1.0, 1.0, 2), (0.0, 1.0, 2), (1.0, 13.5, 3), (3.5, 1.0, 3), (3.5, 13.5, 4)]
)
@pytest.mark.parametrize("n_min", [0, 3])
def test_guidance_of_one_or_less_costs_one_row(
    source: float, target: float, rows: int, n_min: int, model: Any, tensors: dict[str, Tensor]
) -> None:
    editor = replace(EDITOR, n_min=n_min, source_guidance=source, target_guidance=target)
    edit, meter = run(model, editor, tensors["x_src"])
    assert meter.rows == (8 - n_min) * rows + n_min * (2 if target > 1 else 1)
    # A hair above 1 the velocity is as good as the prompt's own, and is had with both rows.
    guided = replace(editor, source_guidance=max(source, 1 + 1e-6), target_guidance=max(target, 1 + 1e-6))
    same, dearer = run(model, guided, tensors["x_src"])
    assert dearer.rows == (8 - n_min) * 4 + n_min * 2
    torch.testing.assert_close(edit.latent, same.latent, atol=1e-4, rtol=1e-5)


def test_equal_prompts_and_guidances_leave_the_source_alone(model: Any, tensors: dict[str, Tensor]) -> None:
    edit, _ = run(model, replace(EDITOR, target_guidance=3.5), tensors["x_src"], target="src")
    torch.testing.assert_close(edit.latent, tensors["x_src"], atol=1e-5, rtol=0)


def test_the_grid_is_the_published_one(golden_schedules: dict[str, list[dict[str, Any]]], model: SD3Model) -> None:
    for entry in golden_schedules["sd3_flowedit"]:
        times = model.grid(entry["num_steps"], (1, 4, 8, 12)).times
        assert times == pytest.approx(entry["sigmas"], abs=1e-6)
        assert [1000 * t for t in times[:-1]] == pytest.approx(entry["timesteps"], abs=1e-3)


def test_every_recorded_schedule_has_its_test(golden_schedules: dict[str, list[dict[str, Any]]]) -> None:
    """The first three are held in test_flux_golden.py."""
    assert sorted(golden_schedules) == ["bfl_get_schedule", "flux_dev_flowedit", "flux_schnell_flowedit", "sd3_flowedit"]
