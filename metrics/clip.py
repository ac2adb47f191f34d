"""What CLIP sees: how well an edit agrees with the target prompt (CLIP-T), and how near it stays to the source (CLIP-I).

Radford et al. 2021, arXiv 2103.00020; as scores of pictures Hessel et al. 2021, arXiv 2104.08718. Cosines are given as they
are, from -1 to 1: papers often print them times 100.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..cases.base import Case
from ..options import check, option
from .base import Result
from .networks import (
    DEVICE_HELP,
    FEATURES,
    NetworkMetric,
    compute_device,
    cosines,
    from_folder,
    in_chunks,
    load_network,
    picture_features,
)
from .weights import CONFIG, WEIGHTS, hub_missing

CLIP_FILES = (CONFIG, WEIGHTS, "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
VIT_L = "openai/clip-vit-large-patch14"
"""The CLIP that papers on editing report."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model on its device. Embeddings are unit rows (B, D), float32 on the CPU."""

    model: str
    device: torch.device
    network: Any
    tokenizer: Any
    processor: Any

    @staticmethod
    def load(model: str = VIT_L, device: str = "auto") -> Clip:
        """The model of a hub id or folder, which is looked for on this machine only; loaded once. Raises ValueError (one
        sentence) if it is not here, if it is no CLIP model, or if its tokenizer has no words."""
        return _load(model, compute_device(device))

    @property
    def longest(self) -> int:
        """The most tokens of a prompt that it reads, with the start and the end: 77 of OpenAI's models."""
        positions: int = self.network.config.text_config.max_position_embeddings
        tokens: int = self.tokenizer.model_max_length
        return min(tokens, positions)

    def images(self, pictures: Sequence[Tensor]) -> Tensor:
        """Embeddings of pictures (3, H, W) in [0, 1], which the model's own preprocessing is given as 8-bit ones: the shorter
        side is resized to what the model takes, and the middle cut out."""
        return _rows(picture_features(("clip", self.model, str(self.device)), pictures, self._images))

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of prompts. What is longer than the model reads is cut off (see `tokens`). Raises ValueError for a prompt
        of which the tokenizer knows no word."""
        keys = [("clip text", self.model, str(self.device), prompt) for prompt in prompts]
        return _rows(FEATURES.recall(keys, lambda places: in_chunks([prompts[place] for place in places], self._texts)))

    def tokens(self, prompt: str) -> int:
        """How many tokens a prompt has, with the start and the end."""
        return len(self.tokenizer(prompt, verbose=False)["input_ids"])

    def _images(self, pixels: Sequence[Tensor]) -> Tensor:
        inputs = self.processor(images=list(pixels), input_data_format="channels_first", return_tensors="pt")
        return _embedding(self.network.get_image_features(pixel_values=inputs["pixel_values"].to(self.device)))

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        for prompt in prompts:
            self._known(prompt)
        # always of the same length, so that no other prompt of the batch has a say in the rounding
        inputs = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.device)
        features = self.network.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return _embedding(features)

    def _known(self, prompt: str) -> None:
        tokens = self.tokenizer(prompt, add_special_tokens=False, truncation=True, max_length=self.longest)["input_ids"]
        if prompt.strip() and set(tokens) <= {self.tokenizer.unk_token_id}:
            raise ValueError(
                f"the tokenizer of {self.model} knows no word of the prompt {prompt!r}; its files are not this model's"
            )


@lru_cache(maxsize=4)
def _load(model: str, device: torch.device) -> Clip:
    from transformers import AutoTokenizer, CLIPModel

    tokenizer = from_folder(AutoTokenizer.from_pretrained, model, CLIP_FILES)
    processor = from_folder(_processor().from_pretrained, model, CLIP_FILES)
    network = load_network(CLIPModel.from_pretrained, model, device)
    known, wanted = len(tokenizer), network.config.text_config.vocab_size
    if known < wanted // 2:  # it loads without complaint when its vocabulary is empty, and every prompt then reads the same
        raise ValueError(f"the tokenizer of {model} knows {known} of {wanted} tokens; fetch tokenizer.json of the model again")
    return Clip(model, device, network, tokenizer, processor)


def _processor() -> Any:
    """CLIP's preprocessing by Pillow, by which published numbers were made. In transformers 5 it has a name of its own, and the
    usual one stands for torchvision's, which resizes to another 8-bit level here and there."""
    try:
        from transformers import CLIPImageProcessorPil
    except ImportError:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor
    return CLIPImageProcessorPil


def _embedding(output: Any) -> Tensor:
    """The projected embedding as unit rows: transformers 4 gives the tensor, 5 an object that holds it."""
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return normalize(embedding.float(), dim=-1)


def _rows(features: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(features)) if features else torch.empty(0, 0)


@dataclass(frozen=True)
class ClipMetric(NetworkMetric):
    """A metric of what a CLIP model sees."""

    model: str = option(VIT_L, "the CLIP model: a hub id OWNER/NAME, or a folder")
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        return hub_missing(self.model, CLIP_FILES)


@dataclass(frozen=True)
class ClipT(ClipMetric):
    """The cosine of the edited picture's and the target prompt's CLIP embeddings, from -1 to 1. Prompts longer than the model
    reads (77 tokens) are cut off, and told as a warning."""

    label: ClassVar[str] = "CLIP-T"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        clip = Clip.load(self.model, self.device)
        for case in cases:
            _warn_of_length(clip, case.id, case.target)
        edited = clip.images([result.picture for result in results])
        return cosines(edited, clip.texts([case.target for case in cases]))


@dataclass(frozen=True)
class ClipI(ClipMetric):
    """The cosine of the edited and the source picture's CLIP embeddings, from -1 to 1: the higher, the more of the source was
    kept; the source itself has 1."""

    label: ClassVar[str] = "CLIP-I"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        clip = Clip.load(self.model, self.device)
        sources = clip.images([case.picture for case in cases])
        return cosines(clip.images([result.picture for result in results]), sources)


@lru_cache(maxsize=4096)  # once a case, whatever the number of rows
def _warn_of_length(clip: Clip, name: str, prompt: str) -> None:
    if (tokens := clip.tokens(prompt)) > clip.longest:
        warnings.warn(
            f"{name}: the prompt has {tokens} tokens, of which {clip.model} reads {clip.longest}; the rest is cut off",
            stacklevel=3,
        )
