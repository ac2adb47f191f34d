"""Time grids against the scheduler that diffusers' pipelines sample with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from fe.models.grids import check_scheduler, flux_grid, shifted_grid, twice_shifted_grid
from fe.ode import TimeGrid

STEPS = [1, 2, 3, 7, 28, 50, 333]


def sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, **settings: Any) -> list[float]:
    scheduler.set_timesteps(steps, **settings)
    values: list[float] = scheduler.sigmas.tolist()
    return values


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.5])
def test_shifting_twice_is_what_the_scheduler_does_by_itself(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    assert twice_shifted_grid(steps, shift).times == pytest.approx(sigmas(scheduler, steps), abs=1e-6)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.5])
def test_shifting_once_is_what_the_scheduler_does_to_a_uniform_grid(steps: int, shift: float) -> None:
    given = np.linspace(1.0, 1.0 / steps, steps)
    expected = sigmas(FlowMatchEulerDiscreteScheduler(shift=shift), steps, sigmas=given)
    assert shifted_grid(steps, shift).times == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (2176, 0.825)])
def test_flux_shifts_by_size(steps: int, tokens: int, mu: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    expected = sigmas(scheduler, steps, sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu)
    assert flux_grid(steps, tokens).times == pytest.approx(expected, abs=1e-6)


def test_a_shift_of_one_is_uniform_and_the_two_sd3_grids_differ() -> None:
    assert shifted_grid(7, 1.0).times == pytest.approx(TimeGrid.uniform(7).times)
    once, twice = shifted_grid(28, 3.0).times, twice_shifted_grid(28, 3.0).times
    assert max(abs(a - b) for a, b in zip(once, twice, strict=True)) > 0.05
    assert 0 < twice[-2] < 0.01 < once[-2]  # the last step of the pipeline's own grid is nearly empty


@pytest.mark.parametrize("grid", [shifted_grid, twice_shifted_grid])
def test_a_grid_has_a_step(grid: Any) -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        grid(0, 3.0)


def test_a_picture_has_a_token() -> None:
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        flux_grid(4, 0)


def test_schedulers_with_other_grids_are_refused() -> None:
    check_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    others: list[dict[str, Any]] = [
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"invert_sigmas": True},
        {"shift_terminal": 0.02},
        {"time_shift_type": "linear"},
        {"num_train_timesteps": 500},
    ]
    for other in others:
        ((name, value),) = other.items()
        with pytest.raises(ValueError, match=f"the scheduler's {name}={value!r} is not supported"):
            check_scheduler(FlowMatchEulerDiscreteScheduler(**other).config)
    with pytest.raises(ValueError, match="no flow-matching one"):
        check_scheduler({"beta_start": 0.1})
