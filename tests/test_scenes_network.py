"""The pipeline as a whole: saved and loaded by FluxPipeline, its tokenizers and encoders, and the training's own attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from fe.scenes.attention import ExplicitAttention
from fe.scenes.attributes import VOCABULARY, words
from fe.scenes.network import Shape, build_codec, build_network, load_pipeline, save_pipeline, token_ids
from fe.scenes.text import MAX_TOKENS, clip_tokenizer, t5_tokenizer
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

STAR = "a large red star at the left on a striped blue background"
SWAP = "a large blue star at the left on a striped red background"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FluxPipeline:
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(build_network(Shape(64, 1, 1, 64)), build_codec(pictures=200), folder)
    assert not list(folder.rglob("*.bin"))
    assert list(folder.rglob("*.safetensors"))
    loaded = load_pipeline(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("which", ["tokenizer", "tokenizer_2"])
def test_loaded_tokenizers_know_every_word(pipeline: FluxPipeline, which: str) -> None:
    tokenizer: PreTrainedTokenizerFast = getattr(pipeline, which)
    fresh = clip_tokenizer() if which == "tokenizer" else t5_tokenizer()
    assert tokenizer.get_vocab() == fresh.get_vocab()
    assert tokenizer.model_max_length == MAX_TOKENS
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    assert all(tokenizer.convert_tokens_to_ids(word) not in (unknown, None) for word in VOCABULARY)
    ids = tokenizer([STAR, ""], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    assert ids.shape == (2, MAX_TOKENS)
    assert unknown not in ids


@pytest.mark.parametrize("which", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("prompt", ["a Red  star.", "a red dog", "x-y; star!", ""])
def test_tokenizers_split_as_the_word_list_does(pipeline: FluxPipeline, which: str, prompt: str) -> None:
    tokenizer: PreTrainedTokenizerFast = getattr(pipeline, which)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == [word if word in VOCABULARY else "<unk>" for word in words(prompt)]


def test_swapped_colours_give_other_embeddings(pipeline: FluxPipeline) -> None:
    with torch.no_grad():
        prompts, pooled, text_ids = pipeline.encode_prompt([STAR, SWAP, ""], max_sequence_length=MAX_TOKENS)
    assert prompts.shape == (3, MAX_TOKENS, 64)
    assert pooled.shape == (3, 64)
    assert text_ids.shape == (MAX_TOKENS, 3)
    sums = prompts.sum(dim=1)  # a bag of words would give the swap the same sum
    assert (sums[0] - sums[1]).abs().max() > 1e-2
    assert prompts.isfinite().all()
    assert pooled.isfinite().all()


def test_the_pipeline_draws(pipeline: FluxPipeline) -> None:
    assert pipeline.vae_scale_factor == 4
    assert pipeline.transformer.config.guidance_embeds
    generator = torch.Generator().manual_seed(0)
    images = pipeline(
        STAR, height=64, width=64, num_inference_steps=2, max_sequence_length=MAX_TOKENS, output_type="pt", generator=generator
    ).images
    assert images.shape == (1, 3, 64, 64)
    assert images.isfinite().all()


def test_places_are_those_of_the_pipeline() -> None:
    text, image = token_ids()
    assert torch.equal(image, FluxPipeline._prepare_latent_image_ids(1, 8, 8, torch.device("cpu"), torch.float32))
    assert text.shape == (MAX_TOKENS, 3)
    assert not text.any()


def test_explicit_attention_is_diffusers_attention() -> None:
    network = build_network(Shape(64, 1, 2, 64))
    generator = torch.Generator().manual_seed(0)
    x, prompts = torch.randn(3, 64, 72, generator=generator), torch.randn(3, 16, 64, generator=generator)
    arguments = (x, torch.rand(3, generator=generator), torch.ones(3), prompts, prompts[:, 0], *token_ids())
    with torch.no_grad():
        theirs = network(*arguments)
        network.transformer.set_attn_processor(ExplicitAttention())
        torch.testing.assert_close(network(*arguments), theirs, rtol=0.0, atol=1e-5)


def test_the_saved_index_names_no_path(tmp_path: Path) -> None:
    save_pipeline(build_network(Shape(32, 1, 1, 32)), build_codec(pictures=100), tmp_path)
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert texts
    assert not any(str(tmp_path) in text or "_name_or_path" in text for text in texts)


def test_saving_keeps_every_weight_and_writes_names_that_old_transformers_reads(tmp_path: Path) -> None:
    network = build_network(Shape(32, 1, 1, 32))
    save_pipeline(network, build_codec(pictures=100), tmp_path)
    loaded = load_pipeline(tmp_path)
    for one, other in (
        (network.transformer, loaded.transformer),
        (network.clip, loaded.text_encoder),
        (network.t5, loaded.text_encoder_2),
    ):
        theirs = other.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())
    names = load_file(tmp_path / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    assert "PreTrainedTokenizerFast" in (tmp_path / "tokenizer" / "tokenizer_config.json").read_text()
