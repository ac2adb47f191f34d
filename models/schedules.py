"""Whether the networks of a pipeline walk a flow at all, told from its index alone: before anything large is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NOISY: Final = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM",
        "DDIMParallel",
        "DDPM",
        "DDPMParallel",
        "DDPMWuerstchen",
        "EulerAncestralDiscrete",
        "EulerDiscrete",
        "HeunDiscrete",
        "KDPM2AncestralDiscrete",
        "KDPM2Discrete",
        "LCM",
        "LMSDiscrete",
        "PNDM",
        "TCD",
        "UnCLIP",
    )
)
"""Schedulers of diffusion models. Others (DPMSolverMultistep, UniPCMultistep) serve flows as well, if told so."""


def check_flow(index: Mapping[str, Any], source: str) -> None:
    """Raise ValueError (one sentence) if the pipeline of this `index`, at `source`, is a diffusion model."""
    scheduler = index.get("scheduler")
    name = scheduler[1] if isinstance(scheduler, list) and len(scheduler) == 2 else None
    if name in NOISY:
        raise ValueError(
            f"the model {source!r} is no flow: a {index.get('_class_name')} with a {name} has a network that predicts noise on "
            "a variance-preserving schedule, not a velocity from noise to image; use FLUX, SD3, InstaFlow or another pipeline "
            "with a FlowMatchEulerDiscreteScheduler"
        )
