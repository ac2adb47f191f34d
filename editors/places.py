"""Masks that a method finds by itself: how much the velocity under one prompt differs from another's, place by place."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional


def packed(x: Tensor, side: int) -> Tensor:
    """Latents (B, C, h, w) with each square of `side` entries as one place: (B, C * side^2, h / side, w / side).
    Raises ValueError if they are no pictures."""
    if x.ndim != 4:
        raise ValueError("a mask over places needs a model of pictures; this one's latents are none")
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=side, q=side)


def spread(mask: Tensor, side: int) -> Tensor:
    """A mask over places (B, 1, h, w) over the entries that each place packs: (B, 1, side * h, side * w)."""
    return mask.repeat_interleave(side, -2).repeat_interleave(side, -1)


def stretched(values: Tensor) -> Tensor:
    """Values (B, 1, h, w) mapped so that each row's smallest is 0 and its largest 1; all 0 in a row that is constant."""
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def quantile_stretched(values: Tensor, upper: float) -> Tensor:
    """Values (B, 1, h, w) mapped so that each row's quantile 1 - `upper` is 0 and its quantile `upper` 1."""
    flat = values.flatten(1)
    low, high = (flat.quantile(share, dim=1)[:, None, None, None] for share in (1.0 - upper, upper))
    return (values - low) / (high - low + 1e-8)


def closed(mask: Tensor, kernel: int) -> Tensor:
    """Morphological closing of (B, 1, h, w) by a square of odd side `kernel`: the maximum around every place, then the
    minimum, which fills holes narrower than the square."""

    def highest(values: Tensor) -> Tensor:
        return functional.max_pool2d(values, kernel, stride=1, padding=kernel // 2)

    return -highest(-highest(mask))
