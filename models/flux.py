"""FLUX.1 (Black Forest Labs 2024) as a velocity field, around a diffusers FluxPipeline: FLUX.1-dev, FLUX.1-schnell and
anything else of that layout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from ..attention_hooks.base import Point, Stream
from ..ode import TimeGrid
from ..options import option
from .attention import parts_of
from .base import Model, check_rows, per_row
from .grids import check_scheduler, scheduler_grid
from .loading import CLIP_TOKENIZERS, FLOW_SCHEDULERS, T5_TOKENIZERS, Layout
from .pictures import decode_latents, encode_pictures
from .pipelines import PipelineLoader, pipeline_parts
from .preparing import compiled_whole
from .prompts import check_asked, check_tokens, check_words, encode_each

if TYPE_CHECKING:
    from diffusers import FluxPipeline


@dataclass(frozen=True)
class FluxCondition:
    """Prompts as FLUX reads them, one a row: T5's `prompt_embeds` (B, L, D), CLIP's `pooled` embedding (B, P), and
    `guidance` (B,) in float32, which a model without guidance embedding (schnell) does not look at.

    Raises ValueError if the rows differ.
    """

    prompt_embeds: Tensor
    pooled: Tensor
    guidance: Tensor

    def __post_init__(self) -> None:
        if not len(self.prompt_embeds) == len(self.pooled) == len(self.guidance):
            raise ValueError(
                f"a condition needs as many embeddings as guidances, got {len(self.prompt_embeds)} prompt embeddings, "
                f"{len(self.pooled)} pooled embeddings and {len(self.guidance)} guidances"
            )

    def __len__(self) -> int:
        return len(self.guidance)

    def joined(self, other: Self) -> Self:
        """The rows of this condition followed by those of `other`."""
        return type(self)(
            torch.cat([self.prompt_embeds, other.prompt_embeds]),
            torch.cat([self.pooled, other.pooled]),
            torch.cat([self.guidance, other.guidance]),
        )


class FluxModel(Model[FluxCondition]):
    """The transformer, codec and text encoders of `pipeline`, on the device and in the dtypes that they have now.

    Latents are (B, C, h, w) with h and w even: the codec's, shifted and scaled; packing into 2x2 tokens happens inside.
    `vocabulary`: the only words that prompts may use, for a model whose text encoders know no others (None: any).
    `side`: of the only pictures it was trained on, squares (0: it was trained on many sizes).
    `exact_time`: feed time and guidance in float32 to a network of another dtype. Without it the transformer rounds them as
    published, in bfloat16 to multiples of 4 in 1000 near the noise end.
    Raises ValueError if the pipeline's scheduler or transformer is not a plain FLUX one.
    """

    def __init__(
        self, pipeline: FluxPipeline, *, vocabulary: Collection[str] | None = None, side: int = 0, exact_time: bool = True
    ) -> None:
        config = pipeline.transformer.config
        if config.patch_size != 1 or config.out_channels not in (None, config.in_channels):
            raise ValueError(
                f"a plain FLUX transformer gives as many channels as it takes, this one takes {config.in_channels} and gives "
                f"{config.out_channels} (a fill, depth or canny model?); use FLUX.1-dev or FLUX.1-schnell"
            )
        check_scheduler(pipeline.scheduler.config)
        self.pipeline = pipeline
        self.network: nn.Module = pipeline.transformer
        self.vocabulary = None if vocabulary is None else tuple(vocabulary)
        self.exact_time = exact_time
        self._side = side
        self.dtype: torch.dtype = pipeline.transformer.dtype  # diffusers walks over all modules to find it: once is enough

    @property
    def guided(self) -> bool:
        """Whether the network has a guidance embedding (dev) or none (schnell)."""
        return bool(self.pipeline.transformer.config.guidance_embeds)

    @property
    def text_tokens(self) -> int:
        """How many tokens T5 is given to read; shorter prompts are padded."""
        longest, tokenizer = 512 if self.guided else 256, self.pipeline.tokenizer_2  # as the two models were trained
        return longest if tokenizer is None else min(longest, tokenizer.model_max_length)  # padding further would only cost

    def parts(self) -> Mapping[str, nn.Module | str]:
        return pipeline_parts(self.pipeline)

    @property
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor) * 2

    @property
    def packing(self) -> int:
        return 2

    @property
    def side(self) -> int:
        return self._side

    def encode(self, pictures: Tensor) -> Tensor:
        return encode_pictures(self.pipeline, pictures, self.multiple)

    def decode(self, latents: Tensor) -> Tensor:
        return decode_latents(self.pipeline, latents)

    def condition(self, prompts: Sequence[str], guidance: float) -> FluxCondition:
        """One row for each prompt, all at `guidance`, the scale that the network was distilled for (schnell ignores it).
        Raises ValueError for no prompts, unknown words, a prompt that is too long, or a guidance that is not finite."""
        check_asked(prompts, guidance)
        if self.vocabulary is not None:
            check_words(prompts, self.vocabulary)
        parts = self.pipeline.components
        if any(parts[f"{kind}{end}"] is None for kind in ("text_encoder", "tokenizer") for end in ("", "_2")):
            raise ValueError(
                "this pipeline lacks text encoders or tokenizers; load one that has, or make a FluxCondition from embeddings"
            )
        self.dtype = self.pipeline.transformer.dtype  # it may have been moved to another since
        length = self.text_tokens
        check_tokens(self.pipeline.tokenizer_2, prompts, length)
        check_tokens(self.pipeline.tokenizer, prompts, None)  # the pooled embedding is of a long prompt's beginning

        def encode(distinct: list[str]) -> Sequence[Tensor]:
            device = self.pipeline._execution_device
            embeds, pooled, _ = self.pipeline.encode_prompt(distinct, None, device=device, max_sequence_length=length)
            return embeds, pooled

        embeds, pooled = encode_each(prompts, encode)
        return FluxCondition(embeds, pooled, torch.full((len(prompts),), guidance, device=embeds.device))

    def velocity(self, t: float | Tensor, x: Tensor, condition: FluxCondition) -> Tensor:
        height, width = self._check(x)
        check_rows(condition, x)
        times = per_row(t, x)
        guidance = condition.guidance.to(x.device, torch.float32) if self.guided else None
        with self._exact(times, guidance):
            tokens: Tensor = self.network(
                hidden_states=rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2).to(self.dtype),
                timestep=times,
                guidance=guidance,
                encoder_hidden_states=condition.prompt_embeds.to(x.device, self.dtype),
                pooled_projections=condition.pooled.to(x.device, self.dtype),
                img_ids=_places(height // 2, width // 2, x.device),
                txt_ids=torch.zeros(condition.prompt_embeds.shape[1], 3, device=x.device),
                return_dict=False,
            )[0]
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height // 2, p=2, q=2).to(x.dtype)

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        """FLUX's shifted grid for the latent's size, as the pipeline's scheduler is configured (uniform for schnell).
        Raises ValueError if `steps` is under 1, or the scheduler was changed for one of another kind."""
        check_scheduler(self.pipeline.scheduler.config)
        height, width = latent_shape[-2:]
        return scheduler_grid(steps, (height // 2) * (width // 2), self.pipeline.scheduler.config)

    def points(self) -> Mapping[Point, nn.Module]:
        """q, k (B, L, heads, head size) and v (B, L, heads * head size) of every block. In "single" blocks L is text then image
        tokens, in "joint" blocks image tokens only. Raises ValueError if the projections are fused: v has no module then."""
        transformer = self.pipeline.transformer
        streams: dict[Stream, Iterable[Any]] = {
            "joint": transformer.transformer_blocks,
            "single": transformer.single_transformer_blocks,
        }
        found: dict[Point, nn.Module] = {}
        for stream, blocks in streams.items():
            for index, block in enumerate(blocks):
                found.update({Point(stream, index, part): module for part, module in parts_of(block.attn).items()})
        return found

    def feature_bytes(self, latent_shape: Sequence[int]) -> Mapping[Point, int]:
        config, (height, width) = self.pipeline.transformer.config, latent_shape[-2:]
        places = (height // 2) * (width // 2)
        tokens = {"joint": places, "single": places + self.text_tokens}
        size = config.num_attention_heads * config.attention_head_dim * self.dtype.itemsize
        return {point: tokens[point.stream] * size for point in self.points()}

    def _check(self, x: Tensor) -> tuple[int, int]:
        channels = self.pipeline.transformer.config.in_channels // 4
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"latents are (B, {channels}, h, w) with h and w even, got {tuple(x.shape)}")
        return x.shape[2], x.shape[3]

    @contextmanager
    def _exact(self, times: Tensor, guidance: Tensor | None) -> Iterator[None]:
        """Inside, the time embedding is fed float32 numbers instead of what the transformer made of them in its own dtype.
        Raises ValueError where that would be left out without a word."""
        if self.dtype in (torch.float32, torch.float64) or not self.exact_time:
            yield
            return
        if compiled_whole(self.network):
            raise ValueError(
                "a transformer that was compiled as a whole cannot be fed exact times; compile its blocks "
                "(compile_repeated_blocks()), or pass exact_time=False"
            )
        scales = [times * 1000.0] if guidance is None else [times * 1000.0, guidance * 1000.0]

        def feed(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (*scales, inputs[-1])

        handle = self.pipeline.transformer.time_text_embed.register_forward_pre_hook(feed)
        try:
            yield
        finally:
            handle.remove()


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """(0, row, column) of every packed token, as FluxPipeline numbers them."""
    counts = (1, height, width)
    return torch.cartesian_prod(*(torch.arange(count, dtype=torch.float32, device=device) for count in counts))


LAYOUT: Final = Layout(
    pipelines=("FluxPipeline",),
    networks={
        "transformer": ("diffusers:FluxTransformer2DModel",),
        "vae": ("diffusers:AutoencoderKL", "fe.scenes.codec:PatchCodec"),
        "text_encoder": ("transformers:CLIPTextModel",),
        "text_encoder_2": ("transformers:T5EncoderModel",),
    },
    others={"scheduler": FLOW_SCHEDULERS, "tokenizer": CLIP_TOKENIZERS, "tokenizer_2": T5_TOKENIZERS},
)


@dataclass(frozen=True)
class FluxLoader(PipelineLoader):
    """Any model in FluxPipeline's layout, from a folder or a hub id."""

    layout = LAYOUT
    exact_time: bool = option(True, "feed time and guidance in float32 to a network of another dtype")

    def wrap(self, pipeline: Any) -> FluxModel:
        return FluxModel(pipeline, exact_time=self.exact_time)


@dataclass(frozen=True)
class FluxDevLoader(FluxLoader):
    """FLUX.1-dev, 12 B parameters with embedded guidance."""

    home = "black-forest-labs/FLUX.1-dev"


@dataclass(frozen=True)
class FluxKreaLoader(FluxLoader):
    """FLUX.1-Krea-dev, of FLUX.1-dev's layout and size."""

    home = "black-forest-labs/FLUX.1-Krea-dev"


@dataclass(frozen=True)
class FluxSchnellLoader(FluxLoader):
    """FLUX.1-schnell, distilled to a few steps, without guidance."""

    home = "black-forest-labs/FLUX.1-schnell"
