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
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from fe.models.flux import FluxModel
from fe.scenes.text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
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


def build_tiny_pipeline(*, guided: bool, dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """A whole FluxPipeline of toy size with random weights: 2x2-pixel latents, text of 16 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guided,
            axes_dims_rope=(4, 6, 6),
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        clip, t5 = clip_encoder(32), t5_encoder(32)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(DEV_SCHEDULER if guided else SCHNELL_SCHEDULER)),
        vae=vae.eval(),
        text_encoder=clip.eval(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5.eval(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer.eval(),
    ).to(dtype)


@pytest.fixture
def tiny_pipeline() -> Callable[..., FluxPipeline]:
    """`build_tiny_pipeline`: a new toy pipeline at every call, always with the same weights."""
    return build_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guided toy pipeline as `FluxPipeline.save_pretrained` writes it; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("flux") / "tiny"
    build_tiny_pipeline(guided=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`--model` for a scenes model of toy size with random weights: quick, and with the real words and sizes."""
    from fe.scenes.network import Shape, build_codec, build_network, save_pipeline

    folder = tmp_path_factory.mktemp("scenes") / "tiny"
    save_pipeline(build_network(Shape(width=32, double_blocks=1, single_blocks=1, text_width=32)), build_codec(200), folder)
    return f"scenes:{folder}"
