"""Pictures to the latents of any diffusers pipeline, and the proof that they are the ones that it decodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def encode(pipeline: Any, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, C, h, w) float32: the mode of the codec's distribution, shifted and scaled
    as its configuration says."""
    latents = _moments(pipeline, pictures).float()
    if getattr(pipeline, "_patchify_latents", None) is not None:  # Flux2: 2x2 patches as channels, then a batch norm
        latents = pipeline._patchify_latents(latents)
        norm = pipeline.vae.bn
        variance = norm.running_var.float() + pipeline.vae.config.batch_norm_eps
        normed: Tensor = (latents - _channels(norm.running_mean, latents)) / _channels(variance.sqrt(), latents)
        return normed
    config = pipeline.vae.config
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        return (latents - _channels(mean, latents)) / _channels(deviation, latents)
    scaled: Tensor = (latents - (config.get("shift_factor") or 0.0)) * config.get("scaling_factor", 1.0)
    return scaled


def round_trip(pipeline: Any, pictures: Tensor) -> Tensor:
    """The pictures through the codec alone and back, in [0, 1], float32."""
    moments = _moments(pipeline, pictures)
    with torch.no_grad():
        decoded: Tensor = pipeline.vae.decode(moments.unsqueeze(2) if _of_videos(pipeline.vae) else moments, return_dict=False)[
            0
        ]
    pictures = decoded.squeeze(2) if decoded.ndim == 5 else decoded
    return (pictures.float() / 2.0 + 0.5).clamp(0.0, 1.0)


def _moments(pipeline: Any, pictures: Tensor) -> Tensor:
    """What the codec itself makes of pictures (B, 3, H, W) in [0, 1], as (B, C, h, w)."""
    vae = pipeline.vae
    signed = (pictures * 2.0 - 1.0).to(pipeline._execution_device, vae.dtype)
    with torch.no_grad():
        found = vae.encode(signed.unsqueeze(2) if _of_videos(vae) else signed, return_dict=False)[0]
    latents: Tensor = found if isinstance(found, Tensor) else found.mode()  # some autoencoders have no distribution
    return latents.squeeze(2) if latents.ndim == 5 else latents


def _of_videos(vae: Any) -> bool:
    return any(isinstance(module, nn.Conv3d) for module in vae.modules())


def _channels(values: Any, like: Tensor) -> Tensor:
    """One value a channel, to be combined with latents."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
