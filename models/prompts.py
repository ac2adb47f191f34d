"""Prompts: checked before they are encoded, and each distinct one encoded once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor


def check_asked(prompts: Sequence[str], guidance: float) -> None:
    """Raise ValueError for no prompts, or a guidance that is not finite."""
    if not prompts:
        raise ValueError("a condition needs at least one prompt, got none")
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be a finite number, got {guidance}")


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


def check_tokens(tokenizer: Any, prompts: Sequence[str], longest: int | None) -> None:
    """Raise ValueError for a prompt of which `tokenizer` reads more than `longest` tokens, or no word at all. (None: of any
    length; its encoder reads the beginning of a long prompt, and another encoder all of it.)"""
    unknown = tokenizer.unk_token_id
    for prompt in prompts:
        ids = tokenizer(prompt).input_ids
        if longest is not None and len(ids) > longest:
            raise ValueError(f"the prompt {prompt!r} has {len(ids)} tokens and this model reads {longest}; shorten it")
        read = set(tokenizer(prompt, add_special_tokens=False).input_ids)
        if unknown in read and not any(_is_word(tokenizer.decode([token])) for token in read - {unknown}):
            raise ValueError(
                f"the model's tokenizer knows no word of the prompt {prompt!r}; its vocabulary is damaged or of another "
                "language, fetch the model again or use its own words"
            )


def _is_word(text: str) -> bool:
    """Rather than punctuation, or the mark that T5 puts before every word that it does not know."""
    return any(letter.isalnum() for letter in text)


def encode_each(prompts: Sequence[str], encode: Callable[[list[str]], Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """What `encode` makes of the distinct prompts (tensors with a row each), with a row for every one of `prompts`."""
    distinct = list(dict.fromkeys(prompts))
    with torch.no_grad():
        encoded = encode(distinct)
    rows = [distinct.index(prompt) for prompt in prompts]
    return tuple(tensor[rows] for tensor in encoded)
