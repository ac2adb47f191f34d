"""Pictures to latents and back, through the codec (VAE) of a diffusers pipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .base import USUAL_SIDE


def encode_pictures(pipeline: Any, pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] to latents float32, on the device that the pipeline computes on: the mode of the codec's
    distribution, shifted and scaled as its configuration says.
    Raises ValueError if there is no codec, or if H or W is no multiple of `multiple`."""
    vae = codec_of(pipeline)
    check_pictures(pictures, multiple)
    with torch.no_grad():
        given = (pictures * 2.0 - 1.0).to(pipeline._execution_device, vae.dtype)  # an offloaded codec lies on another device
        latents: Tensor = vae.encode(given).latent_dist.mode().float()
    scaled: Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled


def check_pictures(pictures: Tensor, multiple: int) -> None:
    """Raise ValueError unless these are pictures (B, 3, H, W) whose sides are multiples of `multiple`."""
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures are (B, 3, H, W), got {tuple(pictures.shape)}")
    height, width = pictures.shape[2:]
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise ValueError(f"picture sides must be multiples of {multiple} pixels, got {width}x{height}")


def decode_latents(pipeline: Any, latents: Tensor) -> Tensor:
    """Latents to pictures (B, 3, H, W) in [0, 1], float32. Raises ValueError if there is no codec."""
    vae = codec_of(pipeline)
    unscaled = latents.float() / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    with torch.no_grad():
        pictures: Tensor = vae.decode(unscaled.to(pipeline._execution_device, vae.dtype)).sample.float()
    return (pictures / 2.0 + 0.5).clamp(0.0, 1.0)


def usual_side(pipeline: Any, network: Any) -> int:
    """Side in pixels of the squares that `pipeline` draws by itself: what its `network` says that it was trained on."""
    latents = network.config.get("sample_size")
    return latents * int(pipeline.vae_scale_factor) if isinstance(latents, int) else USUAL_SIDE


def latent_masks(masks: Tensor, latents: Tensor) -> Tensor:
    """Masks of pixels (B, 1, H, W) in [0, 1] on the grid of `latents` (B, C, h, w): the mean of the pixels that each place
    covers, (B, 1, h, w) with the latents' dtype and device. Raises ValueError for other shapes and for values beyond [0, 1]."""
    if latents.ndim != 4:
        raise ValueError("a mask needs a model of pictures; this one's latents are none")
    if masks.ndim != 4 or masks.shape[:2] != (len(latents), 1):
        raise ValueError(f"masks are ({len(latents)}, 1, H, W), one a picture, got {tuple(masks.shape)}")
    if not (masks.min() >= 0.0 and masks.max() <= 1.0):
        raise ValueError(f"masks are in [0, 1], got values from {float(masks.min()):g} to {float(masks.max()):g}")
    return functional.interpolate(masks.to(latents), latents.shape[2:], mode="area")


def codec_of(pipeline: Any) -> Any:
    """The codec of a diffusers pipeline. Raises ValueError if it has none."""
    codec = pipeline.components.get("vae")
    if codec is None:
        raise ValueError("this pipeline has no codec (vae), so it has no pictures; load one that has")
    return codec
