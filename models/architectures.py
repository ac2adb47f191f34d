"""The published models' networks as data: what they are built from, so that one can be counted, or filled with random
numbers, without any download.

Written down from the configurations that the models are published with; `tests/test_random_weights.py` holds the numbers of
parameters to the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from torch import nn

FLOW_SCHEDULER: Final = "diffusers:FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Part:
    """One part of a pipeline: its class as "library:Class", and the configuration that it is built with."""

    kind: str
    config: Mapping[str, Any]

    def build(self) -> Any:
        """The part itself, on the device and in the dtype that torch builds on at present."""
        library, _, name = self.kind.partition(":")
        kind = getattr(import_module(library), name)
        if library == "diffusers":
            return kind(**self.config)
        return kind(kind.config_class(**self.config))


@dataclass(frozen=True)
class Architecture:
    """A published pipeline: its diffusers class, its networks by the names that the pipeline gives them, its scheduler."""

    pipeline: str
    networks: Mapping[str, Part]
    scheduler: Part


def counted(network: nn.Module) -> int:
    """How many numbers a network's checkpoint holds: parameters, and the buffers that are saved with them; shared ones once."""
    saved = network.state_dict()
    buffers = [buffer for name, buffer in network.named_buffers() if name in saved]
    return sum(tensor.numel() for tensor in (*network.parameters(), *buffers))


_CLIP_L: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
}
_CLIP_G: Final = _CLIP_L | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_T5_XXL: Final = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
}
T5: Final = Part("transformers:T5EncoderModel", _T5_XXL)
"""T5-v1.1-XXL's encoder (Raffel et al. 2020, arXiv 1910.10683)."""


def _vae(channels: int, sample_size: int, **config: Any) -> Part:
    blocks = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": channels,
        "sample_size": sample_size,
    }
    return Part("diffusers:AutoencoderKL", blocks | config)


def _flux(guidance: bool) -> Architecture:
    transformer = {
        "attention_head_dim": 128,
        "guidance_embeds": guidance,
        "in_channels": 64,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 19,
        "num_single_layers": 38,
        "patch_size": 1,
        "pooled_projection_dim": 768,
    }
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if guidance else {"shift": 1.0, "use_dynamic_shifting": False}
    return Architecture(
        "FluxPipeline",
        {
            "transformer": Part("diffusers:FluxTransformer2DModel", transformer),
            "vae": _vae(16, 1024, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
            "text_encoder": Part("transformers:CLIPTextModel", _CLIP_L),
            "text_encoder_2": T5,
        },
        Part(
            FLOW_SCHEDULER, shift | {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
        ),
    )


def _sd3(layers: int, places: int, **config: Any) -> Architecture:
    """As many heads as layers, as the family is scaled; `places`: the largest side in tokens."""
    transformer = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": layers,
        "num_attention_heads": layers,
        "attention_head_dim": 64,
        "caption_projection_dim": 64 * layers,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": places,
    }
    return Architecture(
        "StableDiffusion3Pipeline",
        {
            "transformer": Part("diffusers:SD3Transformer2DModel", transformer | config),
            "vae": _vae(16, 1024, shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
            "text_encoder": Part("transformers:CLIPTextModelWithProjection", _CLIP_L),
            "text_encoder_2": Part("transformers:CLIPTextModelWithProjection", _CLIP_G),
            "text_encoder_3": T5,
        },
        Part(FLOW_SCHEDULER, {"shift": 3.0}),
    )


def _sd15() -> Architecture:
    unet = {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    }
    scheduler = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
    return Architecture(
        "StableDiffusionPipeline",
        {
            "unet": Part("diffusers:UNet2DConditionModel", unet),
            "vae": _vae(4, 512, scaling_factor=0.18215),
            "text_encoder": Part("transformers:CLIPTextModel", _CLIP_L),
        },
        Part("diffusers:PNDMScheduler", scheduler),
    )


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "black-forest-labs/FLUX.1-dev": _flux(guidance=True),
    "black-forest-labs/FLUX.1-Krea-dev": _flux(guidance=True),
    "black-forest-labs/FLUX.1-schnell": _flux(guidance=False),
    "stabilityai/stable-diffusion-3-medium-diffusers": _sd3(24, 192),
    "stabilityai/stable-diffusion-3.5-medium": _sd3(24, 384, qk_norm="rms_norm", dual_attention_layers=tuple(range(13))),
    "stabilityai/stable-diffusion-3.5-large": _sd3(38, 192, qk_norm="rms_norm"),
    "XCLiu/2_rectified_flow_from_sd_1_5": _sd15(),
    "XCLiu/instaflow_0_9B_from_sd_1_5": _sd15(),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _sd15(),
}
"""By the hub id that a model is published under."""
