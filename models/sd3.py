"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206) as a velocity field, around a diffusers
StableDiffusion3Pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Part, Point, Stream
from ..ode import TimeGrid
from ..options import option
from .base import Model, per_row
from .grids import check_scheduler, shifted_grid, twice_shifted_grid
from .guidance import GuidedCondition
from .loading import CLIP_TOKENIZERS, FLOW_SCHEDULERS, T5_TOKENIZERS, Layout
from .pictures import decode_latents, encode_pictures
from .pipelines import PipelineLoader
from .prompts import check_tokens, encode_each

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

TEXT_TOKENS: Final = 256  # what the pipeline gives T5 to read


class SD3Model(Model[GuidedCondition]):
    """The transformer, codec and text encoders of `pipeline`, on the device and in the dtypes that they have now.

    Latents are (B, C, h, w): the codec's, shifted and scaled. A condition's text is the joint embedding (B, L, D) and the
    pooled one (B, P). `shift_twice`: sample on the grid of StableDiffusion3Pipeline, whose scheduler applies its shift to
    the range as well as to each knot; otherwise on a uniform grid shifted once.
    Raises ValueError if the pipeline's scheduler is not a plain flow-matching one.
    """

    def __init__(self, pipeline: StableDiffusion3Pipeline, *, shift_twice: bool = True) -> None:
        check_scheduler(pipeline.scheduler.config)
        self.pipeline = pipeline
        self.network: nn.Module = pipeline.transformer
        self.shift_twice = shift_twice
        self.dtype: torch.dtype = pipeline.transformer.dtype

    @property
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor) * int(self.pipeline.transformer.config.patch_size)

    def encode(self, pictures: Tensor) -> Tensor:
        return encode_pictures(self.pipeline.vae, pictures, self.multiple)

    def decode(self, latents: Tensor) -> Tensor:
        return decode_latents(self.pipeline.vae, latents)

    def condition(self, prompts: Sequence[str], guidance: float) -> GuidedCondition:
        """One row for each prompt, guided away from the empty prompt where `guidance` is above 1.
        Raises ValueError for no prompts, a prompt that cannot be read, or a guidance that is not finite."""
        if not prompts:
            raise ValueError("a condition needs at least one prompt, got none")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, got {guidance}")
        embeds, pooled = encode_each([*prompts, *[""] * len(prompts)], self._encode)
        rows = len(prompts)
        return GuidedCondition((embeds[:rows], pooled[:rows]), (embeds[rows:], pooled[rows:]), (guidance,) * rows)

    def velocity(self, t: float | Tensor, x: Tensor, condition: GuidedCondition) -> Tensor:
        if len(condition) != len(x):
            raise ValueError(f"the condition has {len(condition)} rows and the latent {len(x)}; they must be equal")
        owners = condition.owners
        embeds, pooled = condition.network_rows
        output: Tensor = self.network(
            hidden_states=x[owners].to(self.dtype),
            timestep=1000.0 * per_row(t, x)[owners],
            encoder_hidden_states=embeds.to(x.device, self.dtype),
            pooled_projections=pooled.to(x.device, self.dtype),
            return_dict=False,
        )[0]
        return condition.combined(output.to(x.dtype))

    def calls(self, condition: GuidedCondition) -> Sequence[Sequence[int]]:
        return [condition.owners]

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        shift = self.pipeline.scheduler.config["shift"]
        return twice_shifted_grid(steps, shift) if self.shift_twice else shifted_grid(steps, shift)

    def points(self) -> Mapping[Point, nn.Module]:
        """q, k and v of the image tokens (B, L, ...) in every block, and in those of SD3.5 that have a second attention among
        image tokens alone, that one's too, as the stream "dual". Raises ValueError if the projections are fused."""
        found: dict[Point, nn.Module] = {}
        for index, block in enumerate(self.pipeline.transformer.transformer_blocks):
            attentions: dict[Stream, Any] = {"joint": block.attn}
            if block.use_dual_attention:
                attentions["dual"] = block.attn2
            for stream, attention in attentions.items():
                if attention.fused_projections:
                    raise ValueError("attention points need separate projections; call unfuse_qkv_projections() first")
                parts: dict[Part, nn.Module] = {
                    "q": attention.norm_q or attention.to_q,
                    "k": attention.norm_k or attention.to_k,
                    "v": attention.to_v,
                }
                found.update({Point(stream, index, part): module for part, module in parts.items()})
        return found

    def _encode(self, prompts: list[str]) -> Sequence[Tensor]:
        """The joint and the pooled embedding of each prompt."""
        pipeline = self.pipeline
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise ValueError("this pipeline has no text encoders; load one that has")
        length = TEXT_TOKENS
        if pipeline.tokenizer_3 is not None:
            length = min(length, pipeline.tokenizer_3.model_max_length)  # padding further would only cost
            check_tokens(pipeline.tokenizer_3, prompts, length)
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, pipeline._execution_device, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return embeds, pooled


@dataclass(frozen=True)
class SD3Loader(PipelineLoader):
    """Any model in StableDiffusion3Pipeline's layout, from a folder or a hub id."""

    layout = Layout(
        pipelines=("StableDiffusion3Pipeline",),
        networks={
            "transformer": ("diffusers:SD3Transformer2DModel",),
            "vae": ("diffusers:AutoencoderKL", "fe.scenes.codec:PatchCodec"),
            "text_encoder": ("transformers:CLIPTextModelWithProjection",),
            "text_encoder_2": ("transformers:CLIPTextModelWithProjection",),
            "text_encoder_3": ("transformers:T5EncoderModel",),
        },
        others={
            "scheduler": FLOW_SCHEDULERS,
            "tokenizer": CLIP_TOKENIZERS,
            "tokenizer_2": CLIP_TOKENIZERS,
            "tokenizer_3": T5_TOKENIZERS,
        },
        optional=frozenset({"text_encoder_3", "tokenizer_3"}),
    )
    shift_twice: bool = option(True, "the pipeline's own time grid; a plain shifted one if false")

    def wrap(self, pipeline: Any) -> SD3Model:
        return SD3Model(pipeline, shift_twice=self.shift_twice)


@dataclass(frozen=True)
class SD3MediumLoader(SD3Loader):
    """Stable Diffusion 3 medium, 2 B parameters."""

    home = "stabilityai/stable-diffusion-3-medium-diffusers"


@dataclass(frozen=True)
class SD35MediumLoader(SD3Loader):
    """Stable Diffusion 3.5 medium, 2.5 B parameters, with a second image attention in its first blocks."""

    home = "stabilityai/stable-diffusion-3.5-medium"


@dataclass(frozen=True)
class SD35LargeLoader(SD3Loader):
    """Stable Diffusion 3.5 large, 8 B parameters."""

    home = "stabilityai/stable-diffusion-3.5-large"
