"""Golden data (see `tests/golden/README.md`) and small real models for tests."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from fe.models.base import Model
from fe.models.flux import FluxCondition, FluxModel
from fe.models.guidance import GuidedCondition
from fe.models.sd3 import SD3Model
from fe.ode import TimeGrid
from fe.scenes.text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPPreTrainedModel, CLIPTextModelWithProjection

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what it puts into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the commands of the tests could not be interrupted
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
def golden_network() -> Callable[[str], tuple[nn.Module, dict[str, Any]]]:
    """A golden network by name, with the configuration it was built from."""

    @cache
    def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
        path = GOLDEN / "models" / name
        config = json.loads(path.with_suffix(".json").read_text())
        kind = getattr(diffusers, config.get("_class", "FluxTransformer2DModel"))
        network: nn.Module = kind(**{key: value for key, value in config.items() if not key.startswith("_")})
        network.load_state_dict(load_file(path.with_suffix(".safetensors")))
        return network.eval().requires_grad_(False), config

    return build


@pytest.fixture(scope="session")
def golden_model(golden_network: Callable[[str], tuple[nn.Module, dict[str, Any]]]) -> Callable[[str], Any]:
    """A golden network by name (flux_a, flux_b, flux_s, sd3_a) as a model, without codec and text encoders."""

    @cache
    def build(name: str) -> FluxModel | SD3Model:
        network, config = golden_network(name)
        if name.startswith("sd3"):
            scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
            parts = dict.fromkeys(f"{what}{end}" for what in ("text_encoder", "tokenizer") for end in ("", "_2", "_3"))
            return SD3Model(StableDiffusion3Pipeline(transformer=network, scheduler=scheduler, vae=None, **parts))
        scheduler = FlowMatchEulerDiscreteScheduler(**(DEV_SCHEDULER if config["guidance_embeds"] else SCHNELL_SCHEDULER))
        parts = dict.fromkeys(f"{what}{end}" for what in ("text_encoder", "tokenizer") for end in ("", "_2"))
        return FluxModel(FluxPipeline(transformer=network, scheduler=scheduler, vae=None, **parts))

    return build


class EmbeddedFlux(FluxModel):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """A FLUX model whose prompts name the embeddings that were recorded with a case."""

    tensors: dict[str, Tensor]

    def condition(self, prompts: Sequence[str], guidance: float) -> FluxCondition:
        text, pooled = recorded_prompt(self.tensors, prompts)
        return FluxCondition(text, pooled, torch.full((len(text),), guidance))


class EmbeddedSD3(SD3Model):  # type: ignore[misc]
    """The same for SD3; the negative prompt is the empty one."""

    tensors: dict[str, Tensor]

    def condition(self, prompts: Sequence[str], guidance: float) -> GuidedCondition:
        text = recorded_prompt(self.tensors, prompts)
        return GuidedCondition(text, recorded_prompt(self.tensors, [""] * len(prompts)), (guidance,) * len(prompts))


def recorded_prompt(tensors: dict[str, Tensor], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The embeddings (B, ...) that a case recorded for its one prompt of that name: "src", "tar" or "" for the empty one."""
    assert len(set(prompts)) == 1
    names = {"": ("null", "neg")}.get(prompts[0], (prompts[0],))
    name = next(name for name in names if f"{name}_txt" in tensors)
    text, pooled = tensors[f"{name}_txt"], tensors[f"{name}_pooled"]
    return text.expand(len(prompts), -1, -1), pooled.expand(len(prompts), -1)


@pytest.fixture(scope="session")
def embedded(golden_model: Callable[[str], Any]) -> Callable[[str, dict[str, Tensor]], Any]:
    """A golden model by name that reads the prompts "src", "tar" and "" as the embeddings among a case's tensors."""

    def build(name: str, tensors: dict[str, Tensor]) -> EmbeddedFlux | EmbeddedSD3:
        plain = golden_model(name)
        model = (EmbeddedSD3 if name.startswith("sd3") else EmbeddedFlux)(plain.pipeline)
        model.tensors = tensors
        return model

    return build


def cast(pipeline: Any, dtype: torch.dtype) -> Any:
    """`pipeline` in `dtype`. CLIP of transformers 4 computes in float64 only while that is the default."""
    if dtype == torch.float64:
        for encoder in (part for part in pipeline.components.values() if isinstance(part, CLIPPreTrainedModel)):
            encoder.register_forward_pre_hook(lambda *_: torch.set_default_dtype(torch.float64))
            encoder.register_forward_hook(lambda *_: torch.set_default_dtype(torch.float32), always_call=True)
    return pipeline.to(dtype)


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


@pytest.fixture
def tiny(tiny_pipeline: Callable[..., FluxPipeline]) -> FluxModel:
    """The guided toy pipeline as a model."""
    return FluxModel(tiny_pipeline(guided=True))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of noise, 48 pixels wide and 35 high, as a PNG file."""
    values = np.random.default_rng(0).integers(0, 256, (35, 48, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guided toy pipeline as `FluxPipeline.save_pretrained` writes it; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("flux") / "tiny"
    build_tiny_pipeline(guided=True).save_pretrained(folder)
    return folder


def build_tiny_unet(dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """A whole StableDiffusionPipeline of toy size with random weights: Stable Diffusion 1.5's layout and scheduler, 2x2-pixel
    latents, text of 16 tokens, attention among image tokens in four blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(16, 32),
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.18215,
        )
        clip = clip_encoder(32)
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=clip.eval(),
        tokenizer=clip_tokenizer(),
        unet=unet.eval(),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            set_alpha_to_one=False,
            skip_prk_steps=True,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return cast(pipeline, dtype)


@pytest.fixture
def tiny_unet() -> Callable[..., StableDiffusionPipeline]:
    """`build_tiny_unet`: a new toy pipeline at every call, always with the same weights."""
    return build_tiny_unet


@pytest.fixture(scope="session")
def tiny_unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy UNet pipeline as `save_pretrained` writes it; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("unet") / "tiny"
    build_tiny_unet().save_pretrained(folder)
    return folder


def build_tiny_sd3(*, dual: bool = False, t5: bool = True, dtype: torch.dtype = torch.float32) -> StableDiffusion3Pipeline:
    """A whole StableDiffusion3Pipeline of toy size with random weights: pictures of up to 64x64 pixels in multiples of 4, text
    of 16 tokens. `dual`: like SD3.5-medium, with QK-norm and a second attention in one of two blocks. `t5`: with it or not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=64,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            pos_embed_max_size=16,
            qk_norm="rms_norm" if dual else None,
            dual_attention_layers=(0,) if dual else (),
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        clips = [CLIPTextModelWithProjection(clip_encoder(32, layers=2).config) for _ in range(2)]
        encoder = t5_encoder(64)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae.eval(),
        text_encoder=clips[0].eval(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clips[1].eval(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoder.eval() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )
    return cast(pipeline, dtype)


@pytest.fixture
def tiny_sd3() -> Callable[..., StableDiffusion3Pipeline]:
    """`build_tiny_sd3`: a new toy pipeline at every call, always with the same weights."""
    return build_tiny_sd3


@pytest.fixture(scope="session")
def tiny_sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy SD3 pipeline (with T5) as `save_pretrained` writes it; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("sd3") / "tiny"
    build_tiny_sd3().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class ConstantCondition:
    """The velocity of every row (B, C, h, w)."""

    velocities: Tensor

    def __len__(self) -> int:
        return len(self.velocities)

    def joined(self, other: ConstantCondition) -> ConstantCondition:
        return ConstantCondition(torch.cat((self.velocities, other.velocities)))


class ConstantModel(Model[ConstantCondition]):  # type: ignore[misc, type-arg]
    """Every prompt names a velocity (C, h, w) that is the same at all times and states, so that every solver is exact and what
    an editor must give can be said in closed form."""

    multiple = 1

    def __init__(self, velocities: dict[str, Tensor], packing: int) -> None:
        self.network = nn.Identity()
        self.velocities, self._packing = velocities, packing

    @property
    def packing(self) -> int:
        return self._packing

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def condition(self, prompts: Sequence[str], guidance: float) -> ConstantCondition:
        return ConstantCondition(torch.stack([self.velocities[prompt] for prompt in prompts]))

    def velocity(self, t: float | Tensor, x: Tensor, condition: ConstantCondition) -> Tensor:
        velocities: Tensor = self.network(condition.velocities).to(x)
        return velocities

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        return TimeGrid.uniform(steps)

    def points(self) -> dict[Any, nn.Module]:
        return {}


@pytest.fixture
def constant_model() -> Callable[..., ConstantModel]:
    """`constant_model(velocities by prompt, packing=1)`: see ConstantModel."""
    return lambda velocities, packing=1: ConstantModel(velocities, packing)


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`--model` for a scenes model of toy size with random weights: quick, and with the real words and sizes."""
    from fe.scenes.network import Shape, build_codec, build_network, save_pipeline

    folder = tmp_path_factory.mktemp("scenes") / "tiny"
    save_pipeline(build_network(Shape(32, 1, 1, 32)), build_codec(pictures=200), folder)
    return f"scenes:{folder}"
