"""The attention modules of diffusers' networks, as places where features are met."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..attention_hooks.base import Part


def parts_of(attention: Any) -> dict[Part, nn.Module]:
    """The modules whose outputs are q, k and v: q and k after their norm, where they have one.
    Raises ValueError if one product gives all three: then v has no module."""
    if fused(attention):
        raise ValueError("attention points need separate projections; call unfuse_qkv_projections() first")
    return {"q": attention.norm_q or attention.to_q, "k": attention.norm_k or attention.to_k, "v": attention.to_v}


def fused(attention: Any) -> bool:
    """Whether one product gives q, k and v together. In the class that most networks share, unfusing leaves
    `fused_projections` up and puts back the processor, whose kind has another name for every network."""
    from diffusers.models.attention_processor import Attention  # takes seconds: only where a network is at hand

    shared = isinstance(attention, Attention)
    return bool(attention.fused_projections) and (not shared or "Fused" in type(attention.processor).__name__)
