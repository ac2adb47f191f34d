"""FLUX.1 (Black Forest Labs 2024) as a velocity field, around a diffusers FluxPipeline: FLUX.1-dev, FLUX.1-schnell and
anything else of that layout."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from ..attention_hooks.base import Part, Point, Stream
from ..ode import TimeGrid
from .base import Loader, Model
from .flux_grid import check_scheduler, scheduler_grid
from .flux_loading import load_pipeline
from .flux_prompts import check_words, encode_prompts

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
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor) * 2

    @property
    def side(self) -> int:
        return self._side

    def encode(self, pictures: Tensor) -> Tensor:
        vae = self._codec()
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"pictures are (B, 3, H, W), got {tuple(pictures.shape)}")
        height, width = pictures.shape[2:]
        if height < self.multiple or width < self.multiple or height % self.multiple or width % self.multiple:
            raise ValueError(f"picture sides must be multiples of {self.multiple} pixels, got {width}x{height}")
        with torch.no_grad():
            latents: Tensor = vae.encode((pictures * 2.0 - 1.0).to(vae.device, vae.dtype)).latent_dist.mode().float()
        scaled: Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
        return scaled

    def decode(self, latents: Tensor) -> Tensor:
        vae = self._codec()
        unscaled = latents.float() / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        with torch.no_grad():
            pictures: Tensor = vae.decode(unscaled.to(vae.device, vae.dtype)).sample.float()
        return (pictures / 2.0 + 0.5).clamp(0.0, 1.0)

    def condition(self, prompts: Sequence[str], guidance: float) -> FluxCondition:
        """One row for each prompt, all at `guidance`, the scale that the network was distilled for (schnell ignores it).
        Raises ValueError for no prompts, unknown words, a prompt that is too long, or a guidance that is not finite."""
        if not prompts:
            raise ValueError("a condition needs at least one prompt, got none")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance must be a finite number, got {guidance}")
        if self.vocabulary is not None:
            check_words(prompts, self.vocabulary)
        longest = 512 if self.guided else 256  # as the two models were trained
        embeds, pooled = encode_prompts(self.pipeline, prompts, longest)
        return FluxCondition(embeds, pooled, torch.full((len(prompts),), guidance, device=embeds.device))

    def velocity(self, t: float | Tensor, x: Tensor, condition: FluxCondition) -> Tensor:
        rows, height, width = self._check(x)
        if len(condition) != rows:
            raise ValueError(f"the condition has {len(condition)} rows and the latent {rows}; they must be equal")
        times = _per_row(t, x)
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
        Raises ValueError if `steps` is under 1."""
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
                attention = block.attn
                if attention.fused_projections:
                    raise ValueError("attention points need separate projections; call unfuse_qkv_projections() first")
                parts: dict[Part, nn.Module] = {"q": attention.norm_q, "k": attention.norm_k, "v": attention.to_v}
                found.update({Point(stream, index, part): module for part, module in parts.items()})
        return found

    def _check(self, x: Tensor) -> tuple[int, int, int]:
        channels = self.pipeline.transformer.config.in_channels // 4
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"latents are (B, {channels}, h, w) with h and w even, got {tuple(x.shape)}")
        return x.shape[0], x.shape[2], x.shape[3]

    def _codec(self) -> Any:
        if self.pipeline.vae is None:
            raise ValueError("this pipeline has no codec (vae), so it has no pictures; load one that has")
        return self.pipeline.vae

    @contextmanager
    def _exact(self, times: Tensor, guidance: Tensor | None) -> Iterator[None]:
        """Inside, the time embedding is fed float32 numbers instead of what the transformer made of them in its own dtype."""
        if self.dtype in (torch.float32, torch.float64) or not self.exact_time:
            yield
            return
        scales = [times * 1000.0] if guidance is None else [times * 1000.0, guidance * 1000.0]

        def feed(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (*scales, inputs[-1])

        handle = self.pipeline.transformer.time_text_embed.register_forward_pre_hook(feed)
        try:
            yield
        finally:
            handle.remove()


def _per_row(t: float | Tensor, x: Tensor) -> Tensor:
    """The time of every row of `x`, float32."""
    if isinstance(t, Tensor):
        return t.to(x.device, torch.float32).expand(x.shape[0])
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """(0, row, column) of every packed token, as FluxPipeline numbers them."""
    counts = (1, height, width)
    return torch.cartesian_prod(*(torch.arange(count, dtype=torch.float32, device=device) for count in counts))


class FluxLoader(Loader):
    """Any model in FluxPipeline's layout, from a folder or a hub id."""

    @classmethod
    def load(cls, source: str | None, *, device: str, dtype: str, local_only: bool = True) -> FluxModel:
        if source is None:
            raise ValueError("the model 'flux' needs a folder or hub id: write flux:FOLDER or flux:OWNER/NAME")
        return FluxModel(load_pipeline(source, device=device, dtype=dtype, local_only=local_only))


class FluxDevLoader(Loader):
    """FLUX.1-dev, 12 B parameters with embedded guidance."""

    @classmethod
    def load(cls, source: str | None, *, device: str, dtype: str, local_only: bool = True) -> FluxModel:
        return FluxLoader.load(source or "black-forest-labs/FLUX.1-dev", device=device, dtype=dtype, local_only=local_only)


class FluxSchnellLoader(Loader):
    """FLUX.1-schnell, distilled to a few steps, without guidance."""

    @classmethod
    def load(cls, source: str | None, *, device: str, dtype: str, local_only: bool = True) -> FluxModel:
        return FluxLoader.load(source or "black-forest-labs/FLUX.1-schnell", device=device, dtype=dtype, local_only=local_only)
