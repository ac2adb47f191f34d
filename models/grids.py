"""The time grids that models sample on: uniform steps, shifted towards the noise end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..ode import TimeGrid


def flux_grid(
    steps: int,
    tokens: int,
    *,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_tokens: int = 256,
    max_tokens: int = 4096,
) -> TimeGrid:
    """The grid of FLUX.1-dev from 1 to 0 for a picture of `tokens` packed tokens (sides / 16 multiplied).

    mu runs linearly from `base_shift` at `base_tokens` to `max_shift` at `max_tokens` and on beyond; a uniform time s becomes
    e^mu / (e^mu + 1/s - 1). The same as FlowMatchEulerDiscreteScheduler with use_dynamic_shifting (Esser et al. 2024,
    arXiv 2403.03206). Raises ValueError if `steps` or `tokens` is under 1.
    """
    if tokens < 1:
        raise ValueError(f"a picture has at least 1 token, got {tokens}")
    mu = base_shift + (max_shift - base_shift) * (tokens - base_tokens) / (max_tokens - base_tokens)
    return shifted_grid(steps, math.exp(mu))


def shifted_grid(steps: int, shift: float) -> TimeGrid:
    """`steps` steps from 1 to 0 at shift * s / (1 + (shift - 1) s), s uniform; uniform itself for a shift of 1.
    Raises ValueError if `steps` is under 1."""
    if steps < 1:
        raise ValueError(f"a time grid needs at least 1 step, got {steps}")
    uniform = (1.0 - i / steps for i in range(steps + 1))
    return TimeGrid(tuple(shift * s / (1.0 + (shift - 1.0) * s) for s in uniform))


def twice_shifted_grid(steps: int, shift: float, first: float = 0.001) -> TimeGrid:
    """The grid that StableDiffusion3Pipeline really samples on: its scheduler shifts the range 1 to `first` before it spaces
    `steps` knots in it evenly, and shifts those once more; then comes 0. Raises ValueError if `steps` is under 1."""
    if steps < 1:
        raise ValueError(f"a time grid needs at least 1 step, got {steps}")

    def shifted(s: float) -> float:
        return shift * s / (1.0 + (shift - 1.0) * s)

    last = shifted(first)
    spaced = (1.0 + (last - 1.0) * i / max(1, steps - 1) for i in range(steps))
    return TimeGrid((*(shifted(s) for s in spaced), 0.0))


def scheduler_grid(steps: int, tokens: int, config: Mapping[str, Any]) -> TimeGrid:
    """The grid that a FluxPipeline whose scheduler has this `config` samples on."""
    if not config["use_dynamic_shifting"]:
        return shifted_grid(steps, config["shift"])
    return flux_grid(
        steps,
        tokens,
        base_shift=config["base_shift"],
        max_shift=config["max_shift"],
        base_tokens=config["base_image_seq_len"],
        max_tokens=config["max_image_seq_len"],
    )


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a scheduler's `config` is not that of a flow-matching one whose grid is the shifted one."""
    plain = {
        "num_train_timesteps": 1000,  # the time fed is 1000 t
        "time_shift_type": "exponential",
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "invert_sigmas": False,
    }
    if "use_dynamic_shifting" not in config:
        raise ValueError(
            "this pipeline needs a FlowMatchEulerDiscreteScheduler; its scheduler is another, or no flow-matching one at all"
        )
    for name, value in plain.items():
        if (config.get(name) or None) != (value or None):
            raise ValueError(f"the scheduler's {name}={config[name]!r} is not supported; only {value!r} is")
