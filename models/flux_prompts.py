"""Prompts for FLUX: checked, and encoded once each by the pipeline's own two text encoders."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import FluxPipeline


def check_words(prompts: Sequence[str], vocabulary: Collection[str]) -> None:
    """Raise ValueError naming the words that are not in `vocabulary` (lower-case words) and those that are near them."""
    for prompt in prompts:
        words = re.findall(r"[^\s.,;:!?]+", prompt.lower())
        unknown = dict.fromkeys(word for word in words if word not in vocabulary)
        if unknown:
            named = ", ".join(f"{word!r}{_hint(word, vocabulary)}" for word in unknown)
            raise ValueError(f"the prompt {prompt!r} uses words that this model does not know: {named}")


def _hint(word: str, vocabulary: Collection[str]) -> str:
    near = difflib.get_close_matches(word, list(vocabulary), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def encode_prompts(pipeline: FluxPipeline, prompts: Sequence[str], longest: int) -> tuple[Tensor, Tensor]:
    """T5's embeddings (B, L, D) and CLIP's pooled embedding (B, P) of every prompt, each distinct one encoded once.

    L is `longest`, or the T5 tokenizer's own maximum where that is smaller: padding further would only cost.
    Raises ValueError if the pipeline has no text encoders or if a prompt has more than L tokens.
    """
    if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
        raise ValueError("this pipeline has no text encoders; load one that has, or make a FluxCondition from embeddings")
    distinct = list(dict.fromkeys(prompts))
    length = min(longest, pipeline.tokenizer_2.model_max_length)  # the maximum is a huge sentinel where none is known
    for prompt in distinct:
        tokens = len(pipeline.tokenizer_2(prompt).input_ids)
        if tokens > length:
            raise ValueError(f"the prompt {prompt!r} has {tokens} tokens and this model reads {length}; shorten it")
    with torch.no_grad():
        embeds, pooled, _ = pipeline.encode_prompt(
            prompt=distinct, prompt_2=None, device=pipeline.transformer.device, max_sequence_length=length
        )
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=embeds.device)
    return embeds[rows], pooled[rows]
