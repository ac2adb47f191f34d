"""Golden data (what the public implementations compute on tiny random networks) and small real models for tests.

`tests/golden/README.md` says what the data are and where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from fe.models.flux import FluxModel
from safetensors.torch import load_file
from torch import Tensor

torch.set_num_threads(1)  # with several threads on a busy machine these tiny networks take far longer

GOLDEN = Path(__file__).parent / "golden"
DEV_SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}
SCHNELL_SCHEDULER = {"shift": 1.0, "use_dynamic_shifting": False}

GoldenCase = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], GoldenCase]:
    """A golden case by name: its settings and its tensors (read anew for every call, so tests may change them)."""

    def read(name: str) -> GoldenCase:
        path = GOLDEN / "cases" / name
        return json.loads(path.with_suffix(".json").read_text()), load_file(path.with_suffix(".safetensors"))

    return read


@pytest.fixture(scope="session")
def golden_schedules() -> dict[str, list[dict[str, Any]]]:
    """Recorded time grids."""
    schedules: dict[str, list[dict[str, Any]]] = json.loads((GOLDEN / "cases" / "schedules.json").read_text())
    return schedules


@pytest.fixture(scope="session")
def golden_model() -> Callable[[str], FluxModel]:
    """A golden network by name (flux_a, flux_b, flux_s) as a model, without codec and text encoders."""

    @cache
    def build(name: str) -> FluxModel:
        path = GOLDEN / "models" / name
        config = json.loads(path.with_suffix(".json").read_text())
        transformer = FluxTransformer2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
        transformer.load_state_dict(load_file(path.with_suffix(".safetensors")))
        scheduler = FlowMatchEulerDiscreteScheduler(**(DEV_SCHEDULER if config["guidance_embeds"] else SCHNELL_SCHEDULER))
        return FluxModel(
            FluxPipeline(
                scheduler=scheduler,
                vae=None,
                text_encoder=None,
                tokenizer=None,
                text_encoder_2=None,
                tokenizer_2=None,
                transformer=transformer.eval(),
            )
        )

    return build
