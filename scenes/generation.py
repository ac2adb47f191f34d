"""Pictures that a pipeline draws from captions, and how near the 28 Euler steps come to the flow itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from diffusers import FluxPipeline
from scipy.integrate import solve_ivp
from torch import Tensor

from .network import Network, pack, token_ids
from .render import SIZE
from .text import MAX_TOKENS

STEPS: Final = 28
GUIDANCE: Final = 3.5
BATCH: Final = 64


def noises(pipeline: FluxPipeline, count: int, seed: int = 0) -> Tensor:
    """Packed latents (count, tokens, components) of pure noise, on the CPU."""
    channels = pipeline.vae.config.latent_channels
    side = SIZE // pipeline.vae_scale_factor
    return pack(torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed)))


@torch.no_grad()
def draw_latents(
    pipeline: FluxPipeline, captions: Sequence[str], noise: Tensor, guidance: float = GUIDANCE, explicit: bool = False
) -> Tensor:
    """Packed latents (B, tokens, components) of captions by 28 Euler steps from `noise` of that shape.

    Guidance goes into the network; `explicit` guidance costs a second row with the empty caption, and the network is told 1.
    """
    pipeline.set_progress_bar_config(disable=True)
    drawn = []
    for start in range(0, len(captions), BATCH):
        prompts = list(captions[start : start + BATCH])
        two_rows = {"negative_prompt": [""] * len(prompts), "true_cfg_scale": guidance, "guidance_scale": 1.0}
        drawn += pipeline(
            prompts,
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            max_sequence_length=MAX_TOKENS,
            latents=noise[start : start + BATCH].to(pipeline.device),
            output_type="latent",
            **(two_rows if explicit else {"guidance_scale": guidance}),
        ).images
    return torch.stack(drawn)


@torch.no_grad()
def decode(pipeline: FluxPipeline, latents: Tensor) -> Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1] of packed latents (B, tokens, components)."""
    unpacked = pipeline._unpack_latents(latents, SIZE, SIZE, pipeline.vae_scale_factor)
    pictures: Tensor = pipeline.vae.decode(unpacked / pipeline.vae.config.scaling_factor).sample
    return ((pictures + 1.0) / 2.0).clamp(0.0, 1.0)


def velocity_of(pipeline: FluxPipeline, captions: Sequence[str], guidance: float) -> Callable[[float, Tensor], Tensor]:
    """The velocity (B, tokens, components) at a time in [0, 1] and packed latents of that shape, for B captions."""
    prompts, pooled, _ = pipeline.encode_prompt(list(captions), max_sequence_length=MAX_TOKENS)
    text_ids, image_ids = (ids.to(pipeline.device) for ids in token_ids())

    network = Network(pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)

    def velocity(t: float, x: Tensor) -> Tensor:
        times, guidances = x.new_full((len(x),), t), x.new_full((len(x),), guidance)
        found: Tensor = network(x, times, guidances, prompts, pooled, text_ids, image_ids)
        return found

    return velocity


class Flow(NamedTuple):
    """Where the flow ends: packed latents (B, tokens, components); length over chord of each path, (B,); calls made."""

    latents: Tensor
    straightness: Tensor
    calls: int


@torch.no_grad()
def follow_flow(
    pipeline: FluxPipeline, captions: Sequence[str], noise: Tensor, guidance: float = GUIDANCE, tolerance: float = 1e-5
) -> Flow:
    """What `draw_latents` comes to with ever smaller steps.

    By the adaptive Runge-Kutta pair of Dormand and Prince (1980), order 5; the network computes in float32, which leaves no
    sense in tolerances under 1e-6.
    """
    velocity = velocity_of(pipeline, captions, guidance)

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        found = velocity(t, torch.from_numpy(x).float().reshape(noise.shape).to(noise.device))
        return found.double().cpu().numpy().ravel()

    begin = noise.double().cpu().numpy().ravel()
    solved = solve_ivp(slope, (1.0, 0.0), begin, method="RK45", rtol=tolerance, atol=tolerance)
    path = torch.from_numpy(solved.y.T).reshape(-1, len(noise), noise[0].numel())  # (states, B, numbers)
    length = path.diff(dim=0).norm(dim=2).sum(dim=0)
    return Flow(path[-1].float().reshape(noise.shape), length / (path[-1] - path[0]).norm(dim=1), solved.nfev)
