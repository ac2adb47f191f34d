"""UNets of Stable Diffusion 1.5's layout as velocity fields, around a diffusers StableDiffusionPipeline: InstaFlow and
2-rectified flow (Liu et al. 2023, arXiv 2309.06380), and the diffusion models that they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Part, Point
from ..ode import TimeGrid
from ..options import check, option
from .attention import parts_of
from .base import Model, check_rows
from .guidance import GuidedCondition
from .loading import CLIP_TOKENIZERS, Layout
from .parameterisation import PREDICTIONS, parameterisation
from .pictures import decode_latents, encode_pictures, usual_side
from .pipelines import PipelineLoader, pipeline_parts
from .prompts import check_tokens

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PARTS: Final[tuple[Part, ...]] = ("q", "k", "v")


class UNetModel(Model[GuidedCondition]):
    """The UNet, codec and text encoder of `pipeline`, on the device and in the dtypes that they have now.

    Latents are (B, C, h, w) of any size: the codec's, scaled. A condition's text is the embedding (B, L, D) alone.
    `predicts`: what the network was trained to give (see `parameterisation`): "velocity", a flow's (InstaFlow, 2-rectified
    flow); "epsilon", noise (Stable Diffusion 1.5), so that Euler steps are DDIM's; "v-vp", a diffusion's v.
    Raises ValueError if the UNet is not a plain one, or the pipeline's scheduler does not fit what it predicts.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, *, predicts: str = "velocity") -> None:
        _check_unet(pipeline.unet.config)
        self.parameterisation = parameterisation(predicts, pipeline.scheduler.config)
        self.pipeline = pipeline
        self.network: nn.Module = pipeline.unet
        self.dtype: torch.dtype = pipeline.unet.dtype

    def parts(self) -> Mapping[str, nn.Module | str]:
        return pipeline_parts(self.pipeline)

    @property
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor)  # the UNet itself takes latents of any size

    @property
    def usual_side(self) -> int:
        return usual_side(self.pipeline, self.pipeline.unet)

    def encode(self, pictures: Tensor) -> Tensor:
        return encode_pictures(self.pipeline, pictures, self.multiple)

    def decode(self, latents: Tensor) -> Tensor:
        return decode_latents(self.pipeline, latents)

    def condition(self, prompts: Sequence[str], guidance: float) -> GuidedCondition:
        """One row for each prompt, guided away from the empty prompt where `guidance` is above 1.
        Raises ValueError for no prompts, one that is too long or of unknown words alone, or a guidance that is not finite."""
        self.dtype = self.pipeline.unet.dtype  # it may have been moved to another since
        return GuidedCondition.of(prompts, guidance, self._encode)

    def velocity(self, t: float | Tensor, x: Tensor, condition: GuidedCondition) -> Tensor:
        self._check(x)
        check_rows(condition, x)
        owners, (embeds,) = condition.owners, condition.network_rows
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").expand(len(x)).contiguous()
        timestep, state = self.parameterisation.feed(times, x)
        output: Tensor = self.network(
            state[owners].to(self.dtype),
            timestep[owners].to(x.device, torch.float32),
            encoder_hidden_states=embeds.to(x.device, self.dtype),
            return_dict=False,
        )[0]
        return self.parameterisation.velocity(times, x, condition.combined(output.to(x.dtype)))

    def calls(self, condition: GuidedCondition) -> Sequence[Sequence[int]]:
        return [condition.owners]

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        """Uniform from 1 to 0 for a flow; DDIM's knots for a diffusion model, from below 1 to 0, where the scheduler's
        configuration lays them. Raises ValueError if `steps` is under 1, or more than the noise levels of a diffusion model."""
        return self.parameterisation.grid(steps)

    def start(self, t: float, noise: Tensor) -> Tensor:
        return self.parameterisation.start(t, noise)

    def points(self) -> Mapping[Point, nn.Module]:
        """q, k and v (B, L, heads * head size) of every self-attention, as "self" blocks in the order in which they run; L is
        the number of places at that depth of the UNet. Raises ValueError if the projections are fused."""
        found: dict[Point, nn.Module] = {}
        for index, (_, attention) in enumerate(self._self_attentions()):
            found.update({Point("self", index, part): module for part, module in parts_of(attention).items()})
        return found

    def feature_bytes(self, latent_shape: Sequence[int]) -> Mapping[Point, int]:
        found: dict[Point, int] = {}
        for index, (halvings, attention) in enumerate(self._self_attentions()):
            height, width = (-(-side // 2**halvings) for side in latent_shape[-2:])
            size = height * width * attention.inner_dim * self.dtype.itemsize
            found.update({Point("self", index, part): size for part in PARTS})
        return found

    def _self_attentions(self) -> Iterator[tuple[int, Any]]:
        """Each with how often the latents were halved on the way to it."""
        unet = self.pipeline.unet
        down, up = enumerate(unet.down_blocks), zip(reversed(range(len(unet.up_blocks))), unet.up_blocks, strict=True)
        middle = (len(unet.down_blocks) - 1, unet.mid_block)
        for halvings, stage in (*down, middle, *up):  # not the order in which the UNet registers them
            if stage is not None:
                yield from ((halvings, module) for name, module in stage.named_modules() if name.endswith("attn1"))

    def _encode(self, prompts: list[str]) -> Sequence[Tensor]:
        """The embedding of each prompt."""
        pipeline = self.pipeline
        if pipeline.text_encoder is None or pipeline.tokenizer is None:
            raise ValueError(
                "this pipeline has no text encoder or no tokenizer; load one that has, or make a GuidedCondition of embeddings"
            )
        check_tokens(pipeline.tokenizer, prompts, pipeline.tokenizer.model_max_length)
        embeds, _ = pipeline.encode_prompt(prompts, pipeline._execution_device, 1, do_classifier_free_guidance=False)
        return (embeds,)

    def _check(self, x: Tensor) -> None:
        channels = self.pipeline.unet.config.in_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"latents are (B, {channels}, h, w), got {tuple(x.shape)}")


def _check_unet(config: Any) -> None:
    """Raise ValueError if a UNet of this `config` wants to be fed more than time, state and text."""
    if config.in_channels != config.out_channels:
        raise ValueError(
            f"a plain UNet gives as many channels as it takes, this one takes {config.in_channels} and gives "
            f"{config.out_channels} (an inpainting or instruction model?); use a text-to-image model"
        )
    for name in ("time_cond_proj_dim", "addition_embed_type", "class_embed_type", "encoder_hid_dim_type"):
        if config[name] is not None:
            raise ValueError(
                f"this UNet reads more than time and text ({name} is {config[name]!r}); use InstaFlow, 2-rectified flow or "
                "another text-to-image model of Stable Diffusion 1.5's layout"
            )


LAYOUT: Final = Layout(
    pipelines=("StableDiffusionPipeline", "RectifiedFlowPipeline"),
    networks={
        "unet": ("diffusers:UNet2DConditionModel",),
        "vae": ("diffusers:AutoencoderKL",),
        "text_encoder": ("transformers:CLIPTextModel",),
    },
    others={
        "scheduler": tuple(
            f"diffusers:{name}Scheduler"
            for name in (
                "PNDM",
                "DDIM",
                "DDPM",
                "LCM",
                "DEISMultistep",
                "DPMSolverMultistep",
                "DPMSolverSinglestep",
                "EulerAncestralDiscrete",
                "EulerDiscrete",
                "FlowMatchEulerDiscrete",
                "HeunDiscrete",
                "LMSDiscrete",
                "UniPCMultistep",
            )
        ),
        "tokenizer": CLIP_TOKENIZERS,
    },
    unused=("safety_checker", "feature_extractor"),
)


@dataclass(frozen=True)
class InstaFlowLoader(PipelineLoader):
    """InstaFlow, one step, 0.9 B parameters; or any UNet in StableDiffusionPipeline's layout, from a folder or a hub id."""

    layout = LAYOUT
    home = "XCLiu/instaflow_0_9B_from_sd_1_5"
    predicts: str = option("velocity", "what the network was trained to give", choices=PREDICTIONS)

    def __post_init__(self) -> None:
        check(self)

    def wrap(self, pipeline: Any) -> UNetModel:
        return UNetModel(pipeline, predicts=self.predicts)


@dataclass(frozen=True)
class RectifiedFlow2Loader(InstaFlowLoader):
    """2-rectified flow, the straightened Stable Diffusion 1.5 that InstaFlow is distilled from, for up to 25 steps."""

    home = "XCLiu/2_rectified_flow_from_sd_1_5"


@dataclass(frozen=True)
class SD15Loader(InstaFlowLoader):
    """Stable Diffusion 1.5 seen as a flow: Euler steps are DDIM's, and inversion with them is DDIM inversion."""

    home = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    predicts: str = option("epsilon", "what the network was trained to give", choices=PREDICTIONS)
