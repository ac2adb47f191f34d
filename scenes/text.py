"""Toy text encoders with a closed vocabulary: a CLIP for the pooled embedding and a T5 that carries word order.

The tokenizers are word-level `PreTrainedTokenizerFast` objects stored in one tokenizer.json each: unlike CLIPTokenizer
and T5Tokenizer they cannot load with an empty vocabulary, and they read alike under transformers 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from .attributes import VOCABULARY

MAX_TOKENS: Final = 16
"""Tokens of a prompt: the longest caption has twelve words and two marks."""
CLIP_SPECIAL: Final = ("<|startoftext|>", "<|endoftext|>", "<unk>")
T5_SPECIAL: Final = ("<pad>", "</s>", "<unk>")


def _word_level(special: Sequence[str], template: str) -> Tokenizer:
    ids = {token: i for i, token in enumerate((*special, *VOCABULARY))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[.,;:!?]"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [(token, ids[token]) for token in special if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    return tokenizer


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Start, words, end, then ends up to 16 tokens; unknown words become <unk>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_word_level(CLIP_SPECIAL, "<|startoftext|> $A <|endoftext|>"),
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Words, end, then padding up to 16 tokens; unknown words become <unk>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_word_level(T5_SPECIAL, "$A </s>"),
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def clip_encoder(width: int, layers: int = 1) -> CLIPTextModel:
    """A CLIP text model with random weights; its pooled output is (B, width)."""
    config = CLIPTextConfig(
        vocab_size=len(CLIP_SPECIAL) + len(VOCABULARY),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=0,
        eos_token_id=1,  # not 2: transformers reads 2 as "an old checkpoint" and pools at the largest token id
        pad_token_id=1,
    )
    return CLIPTextModel(config)


def t5_encoder(width: int, layers: int = 2) -> T5EncoderModel:
    """A T5 encoder with random weights; its output is (B, 16, width)."""
    config = T5Config(
        vocab_size=len(T5_SPECIAL) + len(VOCABULARY),
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=max(1, width // 32),
        relative_attention_num_buckets=32,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        use_cache=False,
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config)
