"""Prompts are held to what a tokenizer can read, by the tokenizers of transformers themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import FluxPipeline
from fe.models.flux import FluxModel
from fe.models.prompts import check_tokens
from fe.scenes.text import clip_tokenizer
from transformers import CLIPTokenizer

CAPTION = "a large red star at the left on a plain blue background"


def test_a_clip_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    """Its unknown token is its end token, and each letter becomes one."""
    (tmp_path / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    empty = CLIPTokenizer.from_pretrained(tmp_path)
    assert empty.unk_token_id == empty.eos_token_id
    with pytest.raises(ValueError, match="knows no word of the prompt 'a red star'; its vocabulary is damaged"):
        check_tokens(empty, ["", "a red star"], 77)
    check_tokens(empty, ["", " "], 77)  # an empty prompt has no words to know


def test_length_counts_the_marks_and_may_be_left_open() -> None:
    tokenizer = clip_tokenizer()
    check_tokens(tokenizer, [CAPTION], 14)
    with pytest.raises(ValueError, match="has 14 tokens and this model reads 13; shorten it"):
        check_tokens(tokenizer, [CAPTION], 13)
    check_tokens(tokenizer, [3 * CAPTION], None)


def test_one_known_word_is_enough() -> None:
    check_tokens(clip_tokenizer(), ["a zebra"], 16)
    with pytest.raises(ValueError, match="knows no word of the prompt 'zebras gallop'"):
        check_tokens(clip_tokenizer(), ["zebras gallop"], 16)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_flux_refuses_either_tokenizer_without_words(name: str, tiny_pipeline: Callable[..., FluxPipeline]) -> None:
    pipeline = tiny_pipeline(guided=True)
    getattr(pipeline, name).add_tokens(["zebras", "gallop"])  # known to the other of the two
    other = {"tokenizer": "tokenizer_2", "tokenizer_2": "tokenizer"}[name]
    with pytest.raises(ValueError, match="knows no word of the prompt 'zebras gallop'"):
        FluxModel(pipeline).condition(["zebras gallop"], 1.0)
    assert getattr(pipeline, other)("zebras", add_special_tokens=False).input_ids == [getattr(pipeline, other).unk_token_id]


def test_flux_reads_on_with_t5_where_clip_cuts(tiny_pipeline: Callable[..., FluxPipeline]) -> None:
    fifteen = "a large red star and a small blue ring at the left on plain background"
    assert len(FluxModel(tiny_pipeline(guided=True)).condition([fifteen], 1.0)) == 1
