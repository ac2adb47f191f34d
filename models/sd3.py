"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206) as a velocity field, around a diffusers
StableDiffusion3Pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Point, Stream
from ..ode import TimeGrid
from ..options import option
from .attention import fused, parts_of
from .base import Model, check_rows, per_row
from .grids import check_scheduler, shifted_grid, twice_shifted_grid
from .guidance import GuidedCondition
from .loading import CLIP_TOKENIZERS, FLOW_SCHEDULERS, T5_TOKENIZERS, Layout
from .pictures import decode_latents, encode_pictures, usual_side
from .pipelines import PipelineLoader, pipeline_parts
from .prompts import check_tokens

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

TEXT_TOKENS: Final = 256  # what the pipeline gives T5 to read


class SD3Model(Model[GuidedCondition]):
    """The transformer, codec and text encoders of `pipeline`, on the device and in the dtypes that they have now.

    Latents are (B, C, h, w) with h and w multiples of the patch size: the codec's, shifted and scaled. A condition's text is
    the joint embedding (B, L, D) and the pooled one (B, P). `shift_twice`: sample on the grid of StableDiffusion3Pipeline,
    whose scheduler applies its shift to the range as well as to each knot; otherwise on a uniform grid shifted once.
    Raises ValueError if the pipeline's scheduler is not a plain flow-matching one of fixed shift, or if its transformer is not
    a plain SD3 one or is fused where that changes what it computes.
    """

    def __init__(self, pipeline: StableDiffusion3Pipeline, *, shift_twice: bool = True) -> None:
        _check_scheduler(pipeline.scheduler.config)
        _check_transformer(pipeline.transformer)
        self.pipeline = pipeline
        self.network: nn.Module = pipeline.transformer
        self.shift_twice = shift_twice
        self.dtype: torch.dtype = pipeline.transformer.dtype

    def parts(self) -> Mapping[str, nn.Module | str]:
        return pipeline_parts(self.pipeline)

    @property
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor) * int(self.pipeline.transformer.config.patch_size)

    @property
    def usual_side(self) -> int:
        return usual_side(self.pipeline, self.pipeline.transformer)

    def encode(self, pictures: Tensor) -> Tensor:
        longest = self.multiple * int(self.pipeline.transformer.config.pos_embed_max_size)
        if max(pictures.shape[-2:]) > longest:
            height, width = pictures.shape[-2:]
            raise ValueError(f"this model knows places up to {longest} pixels a side, got a picture of {width}x{height}")
        return encode_pictures(self.pipeline, pictures, self.multiple)

    def decode(self, latents: Tensor) -> Tensor:
        return decode_latents(self.pipeline, latents)

    def condition(self, prompts: Sequence[str], guidance: float) -> GuidedCondition:
        """One row for each prompt, guided away from the empty prompt where `guidance` is above 1.

        T5 reads up to 256 tokens of a prompt. The CLIP encoders read its first 77 and cut the rest off, as published; without
        T5 nobody would read the rest, and a longer prompt is refused.
        Raises ValueError for no prompts, a prompt that is too long or of unknown words alone, or a guidance that is not finite.
        """
        _check_transformer(self.pipeline.transformer)  # it may have been fused since,
        self.dtype = self.pipeline.transformer.dtype  # or moved to another dtype
        return GuidedCondition.of(prompts, guidance, self._encode)

    def velocity(self, t: float | Tensor, x: Tensor, condition: GuidedCondition) -> Tensor:
        self._check(x)
        check_rows(condition, x)
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
        _check_scheduler(self.pipeline.scheduler.config)  # it may have been changed since
        shift = self.pipeline.scheduler.config["shift"]
        return twice_shifted_grid(steps, shift) if self.shift_twice else shifted_grid(steps, shift)

    def points(self) -> Mapping[Point, nn.Module]:
        """q, k and v of the image tokens in every block, and in those of SD3.5 that have a second attention among image tokens
        alone, that one's too, as the stream "dual". v is (B, L, heads * head size), and so are q and k of a model without
        QK-norm; with it they are (B, heads, L, head size). Raises ValueError if the projections are fused."""
        found: dict[Point, nn.Module] = {}
        for index, block in enumerate(self.pipeline.transformer.transformer_blocks):
            attentions: dict[Stream, Any] = {"joint": block.attn}
            if block.use_dual_attention:
                attentions["dual"] = block.attn2
            for stream, attention in attentions.items():
                found.update({Point(stream, index, part): module for part, module in parts_of(attention).items()})
        return found

    def feature_bytes(self, latent_shape: Sequence[int]) -> Mapping[Point, int]:
        config, (height, width) = self.pipeline.transformer.config, latent_shape[-2:]
        tokens = (height // config.patch_size) * (width // config.patch_size)
        size = config.num_attention_heads * config.attention_head_dim * self.dtype.itemsize
        return dict.fromkeys(self.points(), tokens * size)

    def _encode(self, prompts: list[str]) -> Sequence[Tensor]:
        """The joint and the pooled embedding of each prompt."""
        pipeline = self.pipeline
        parts = [pipeline.text_encoder, pipeline.tokenizer, pipeline.text_encoder_2, pipeline.tokenizer_2]
        if pipeline.text_encoder_3 is not None:  # T5 may be absent
            parts.append(pipeline.tokenizer_3)
        if any(part is None for part in parts):
            raise ValueError(
                "this pipeline lacks text encoders or tokenizers; load one that has, or make a GuidedCondition from embeddings"
            )
        length, clip_length = TEXT_TOKENS, pipeline.tokenizer_max_length
        if pipeline.text_encoder_3 is not None:
            length = min(length, pipeline.tokenizer_3.model_max_length)  # padding further would only cost
            check_tokens(pipeline.tokenizer_3, prompts, length)
            clip_length = None
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
            check_tokens(tokenizer, prompts, clip_length)
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, pipeline._execution_device, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return embeds, pooled

    def _check(self, x: Tensor) -> None:
        config = self.pipeline.transformer.config
        channels, patch = config.in_channels, config.patch_size
        longest = patch * config.pos_embed_max_size
        if x.ndim != 4 or x.shape[1] != channels or any(side % patch or not 0 < side <= longest for side in x.shape[2:]):
            raise ValueError(
                f"latents are (B, {channels}, h, w) with h and w multiples of {patch} up to {longest}, got {tuple(x.shape)}"
            )


def _check_scheduler(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a scheduler's `config` is not that of a flow-matching one of fixed shift."""
    check_scheduler(config)
    if config["use_dynamic_shifting"]:
        raise ValueError("the scheduler's use_dynamic_shifting=True is not supported for SD3; only False is")


def _check_transformer(transformer: Any) -> None:
    """Raise ValueError if `transformer` cannot be evaluated as it was trained."""
    config = transformer.config
    if config.out_channels not in (None, config.in_channels):
        raise ValueError(
            f"a plain SD3 transformer gives as many channels as it takes, this one takes {config.in_channels} and gives "
            f"{config.out_channels}; use Stable Diffusion 3 or 3.5"
        )
    blocks = transformer.transformer_blocks
    if any(fused(block.attn) and (block.attn.norm_q is not None or block.use_dual_attention) for block in blocks):
        raise ValueError(
            "the fused projections of this transformer leave out its QK-norm and its second attention, so it does not compute "
            "what it was trained to; call unfuse_qkv_projections() first"
        )


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
