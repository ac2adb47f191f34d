"""Published architectures filled with random numbers: what they cost can be measured without any download.

Their results mean nothing; `Model.trained` is false. The text encoders are stand-ins: one thin layer, as wide as the real
ones and reading as many tokens, so that each prompt has embeddings of its own, of the right shape. Their memory and time are
not those of the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedTokenizer

from .architectures import Architecture, Part, counted
from .base import Setup
from .loading import Layout, quiet
from .room import check_room

SEED: Final = 0
SCALE: Final = 0.02
"""Standard deviation of the weights, as transformers are commonly started with."""
WORDS: Final = 512
"""Words that the stand-ins of the text encoders tell apart."""

_CLIP: Final = {
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_THIN: Final[Mapping[str, Mapping[str, Any]]] = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "T5EncoderModel": {"num_layers": 1, "num_heads": 1, "d_kv": 8, "d_ff": 8, "dropout_rate": 0.0},
}
_TOKENS: Final = {"CLIPTextModel": 77, "CLIPTextModelWithProjection": 77, "T5EncoderModel": 512}


class HashedWords(PreTrainedTokenizer):  # type: ignore[misc]  # transformers is not typed
    """A tokenizer that knows every word: each is one of WORDS tokens, which it shares with few others."""

    def __init__(self, tokens: int) -> None:
        super().__init__(bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=tokens)

    @property
    def vocab_size(self) -> int:
        return WORDS

    def get_vocab(self) -> dict[str, int]:
        return {"<s>": 0, "</s>": 1} | {f"word {i}": i for i in range(2, WORDS)}

    def build_inputs_with_special_tokens(self, words: list[int], pair: list[int] | None = None) -> list[int]:
        return [0, *words, 1]

    def _tokenize(self, text: str) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        marks = {"<s>": 0, "</s>": 1}
        return marks[token] if token in marks else 2 + int.from_bytes(sha256(token.encode()).digest()[:4]) % (WORDS - 2)

    def _convert_id_to_token(self, index: int) -> str:
        return f"word {index}"


def random_pipeline(architecture: Architecture, layout: Layout, setup: Setup) -> Any:
    """The pipeline of that architecture with random weights, on the setup's device, as `loading.load_pipeline` returns it."""
    import diffusers

    parts: dict[str, Any] = dict.fromkeys(layout.unused)
    with quiet():
        for name, part in architecture.networks.items():
            kind = part.kind.partition(":")[2]
            if kind in _THIN:
                parts[name] = stand_in(part).to(setup.device, setup.torch_dtype)
                parts[name.replace("text_encoder", "tokenizer")] = HashedWords(_TOKENS[kind])
            else:
                parts[name] = filled(part, torch.device(setup.device), torch.float32 if name == "vae" else setup.torch_dtype)
        return getattr(diffusers, architecture.pipeline)(scheduler=architecture.scheduler.build(), **parts)


def filled(part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network with random weights, which are made where and as they are needed: there is never a second copy of them.
    Scales of norms are 1, biases 0, everything else is normal with standard deviation SCALE. On the device "meta" there are
    shapes alone."""
    if device.type == "meta":
        with device:
            shapes: nn.Module = part.build()
        return shapes.to(dtype).eval().requires_grad_(False)
    with init_empty_weights(include_buffers=False):
        network: nn.Module = part.build()
    if device.type == "cpu":
        check_room(counted(network) * dtype.itemsize, f"a {type(network).__name__} of full size")
    generator = torch.Generator(device).manual_seed(SEED)
    for module in network.modules():
        for name, empty in module.named_parameters(recurse=False):
            values = torch.empty(empty.shape, device=device, dtype=dtype)
            setattr(module, name, nn.Parameter(_fill(values, name, generator), requires_grad=False))
    return network.to(device, dtype).eval()  # what is left to move are the buffers


def _fill(values: Tensor, name: str, generator: torch.Generator) -> Tensor:
    if values.ndim == 1:
        return values.fill_(1.0 if name == "weight" else 0.0)
    return values.normal_(0.0, SCALE, generator=generator)


def stand_in(part: Part) -> nn.Module:
    """A text encoder of the same class and width with one thin layer and its own few words, always with the same weights."""
    thin = _THIN[part.kind.partition(":")[2]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        encoder: nn.Module = replace(part, config={**part.config, **thin, "vocab_size": WORDS}).build()
    return encoder.eval().requires_grad_(False)
