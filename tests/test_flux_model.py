"""The FLUX adapter against diffusers' own pipeline, on a whole toy pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.experiments.meter import metered
from fe.models.flux import FluxCondition, FluxModel
from fe.ode import TimeGrid
from fe.solvers.base import integrate
from fe.solvers.euler import Euler
from torch import Tensor, nn

Pipelines = Callable[..., FluxPipeline]
PROMPTS = [
    "a large red star at the left on a plain blue background",
    "a small blue ring at the right on a dotted red background",
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24), (32, 12)])
def test_euler_on_our_grid_is_the_pipelines_own_generation(
    guided: bool, height: int, width: int, tiny_pipeline: Pipelines
) -> None:
    pipeline = tiny_pipeline(guided=guided)
    model, noise = FluxModel(pipeline), random(2, 4, height // 2, width // 2)
    tokens = FluxPipeline._pack_latents(noise, 2, 4, height // 2, width // 2)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPTS,
        height=height,
        width=width,
        num_inference_steps=6,
        guidance_scale=3.5,
        latents=tokens,
        max_sequence_length=16,
        output_type="latent",
    ).images
    field = model.field(model.condition(PROMPTS, 3.5))
    ours = integrate(Euler(), field, noise, model.grid(6, noise.shape)).x
    torch.testing.assert_close(ours, FluxPipeline._unpack_latents(theirs, height, width, 2), atol=1e-4, rtol=0)


def test_latents_are_shifted_and_scaled_modes(tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=True)
    model, pictures = FluxModel(pipeline), torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    latents = model.encode(pictures)
    distribution = pipeline.vae.encode(pipeline.image_processor.preprocess(pictures, 16, 24)).latent_dist
    torch.testing.assert_close(latents, (distribution.mean - 0.1159) * 0.3611)
    assert latents.shape == (2, 4, 8, 12)
    assert distribution.std.min() > 0.1  # so that a sample would not have passed
    decoded = pipeline.vae.decode(latents / 0.3611 + 0.1159).sample
    torch.testing.assert_close(model.decode(latents), pipeline.image_processor.postprocess(decoded, "pt"))


def test_low_precision_network_takes_and_gives_float32(tiny_pipeline: Pipelines) -> None:
    model = FluxModel(tiny_pipeline(guided=True, dtype=torch.bfloat16))
    latents = model.encode(torch.rand(1, 3, 16, 16))
    velocity = model.velocity(0.5, latents, model.condition(PROMPTS[:1], 2.0))
    assert [value.dtype for value in (latents, velocity, model.decode(latents))] == [torch.float32] * 3


def test_rows_have_their_own_time_prompt_and_guidance(tiny_pipeline: Pipelines) -> None:
    model, x = FluxModel(tiny_pipeline(guided=True)), random(2, 4, 8, 12)
    first, second = model.condition(PROMPTS[:1], 1.5), model.condition(PROMPTS[1:], 5.5)
    with metered(model.network) as meter:
        both = model.velocity(torch.tensor([0.9, 0.2]), x, first.joined(second))
    assert (meter.calls, meter.rows) == (1, 2)
    apart = torch.cat([model.velocity(0.9, x[:1], first), model.velocity(0.2, x[1:], second)])
    torch.testing.assert_close(both, apart, atol=1e-5, rtol=0)
    swapped = model.velocity(torch.tensor([0.2, 0.9]), x, first.joined(second))
    assert (swapped - both).abs().max() > 1e-2


def test_each_distinct_prompt_is_encoded_once(tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=True)
    model = FluxModel(pipeline)
    with metered(pipeline.text_encoder) as clip, metered(pipeline.text_encoder_2) as t5:
        condition = model.condition([PROMPTS[0], PROMPTS[1], PROMPTS[0]], 2.0)
    assert (clip.rows, t5.rows, len(condition)) == (2, 2, 3)
    assert torch.equal(condition.prompt_embeds[0], condition.prompt_embeds[2])
    assert not torch.equal(condition.prompt_embeds[0], condition.prompt_embeds[1])
    assert condition.guidance.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(("guided", "longest"), [(True, 512), (False, 256)])
def test_text_is_padded_to_the_tokenizers_maximum(guided: bool, longest: int, tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=guided)
    assert FluxModel(pipeline).condition(PROMPTS, 1.0).prompt_embeds.shape == (2, 16, 32)
    pipeline.tokenizer_2.model_max_length = int(1e30)  # what transformers writes where none is known
    assert FluxModel(pipeline).condition(PROMPTS, 1.0).prompt_embeds.shape == (2, longest, 32)


def test_schnell_takes_no_guidance(tiny_pipeline: Pipelines) -> None:
    model, x = FluxModel(tiny_pipeline(guided=False)), random(1, 4, 8, 12)
    low, high = (model.velocity(0.5, x, model.condition(PROMPTS[:1], guidance)) for guidance in (1.0, 5.0))
    assert torch.equal(low, high)
    assert model.grid(4, x.shape) == TimeGrid.uniform(4)
    guided = FluxModel(tiny_pipeline(guided=True))
    low, high = (guided.velocity(0.5, x, guided.condition(PROMPTS[:1], guidance)) for guidance in (1.0, 5.0))
    assert (low - high).abs().max() > 1e-3


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("guided", [True, False])
def test_exact_time_reaches_a_bfloat16_network(guided: bool, exact: bool, tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=guided, dtype=torch.bfloat16)
    model, x, embedding = FluxModel(pipeline, exact_time=exact), random(1, 4, 8, 12), pipeline.transformer.time_text_embed
    met: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        met.append(inputs[0].float())

    with embedding.time_proj.register_forward_pre_hook(note):
        model.velocity(0.9813, x, model.condition(PROMPTS[:1], 3.47))
    errors = [(value - wanted).abs().item() for value, wanted in zip(met, (981.3, 3470.0), strict=False)]
    assert len(errors) == (2 if guided else 1)
    assert all((error < 1e-3) if exact else (error > 1) for error in errors)
    assert not embedding._forward_pre_hooks


def test_exact_time_changes_nothing_in_float32(tiny_pipeline: Pipelines) -> None:
    pipeline, x = tiny_pipeline(guided=True), random(1, 4, 8, 12)
    exact, plain = FluxModel(pipeline), FluxModel(pipeline, exact_time=False)
    condition = exact.condition(PROMPTS[:1], 3.47)
    assert torch.equal(exact.velocity(0.9813, x, condition), plain.velocity(0.9813, x, condition))


def test_a_closed_vocabulary_names_unknown_words(tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=True)
    model = FluxModel(pipeline, vocabulary=("a", "red", "star"))
    model.condition(["A red star.", "a star"], 1.0)
    with pytest.raises(ValueError, match=r"'a redd zebra' uses words .* 'redd' \(did you mean red\?\), 'zebra'$"):
        model.condition(["a red star", "a redd zebra"], 1.0)
    FluxModel(pipeline).condition(["a redd zebra"], 1.0)


@pytest.mark.parametrize("guidance", [math.nan, math.inf])
def test_guidance_must_be_finite(guidance: float, tiny_pipeline: Pipelines) -> None:
    with pytest.raises(ValueError, match=f"finite number, got {guidance}"):
        FluxModel(tiny_pipeline(guided=True)).condition(PROMPTS, guidance)


def test_unfit_input_is_refused_in_one_sentence(tiny_pipeline: Pipelines) -> None:
    model, x = FluxModel(tiny_pipeline(guided=True)), random(1, 4, 8, 12)
    condition = model.condition(PROMPTS, 1.0)
    assert model.multiple == 4
    refused: list[tuple[str, Callable[[], object]]] = [
        ("multiples of 4 pixels, got 18x16", lambda: model.encode(torch.rand(1, 3, 16, 18))),
        ("multiples of 4 pixels, got 0x16", lambda: model.encode(torch.rand(1, 3, 16, 0))),
        (r"\(B, 3, H, W\), got \(1, 4, 16, 16\)", lambda: model.encode(torch.rand(1, 4, 16, 16))),
        ("has 2 rows and the latent 1", lambda: model.velocity(0.5, x, condition)),
        (r"got \(2, 4, 7, 12\)", lambda: model.velocity(0.5, random(2, 4, 7, 12), condition)),
        (r"got \(2, 24, 16\)", lambda: model.velocity(0.5, random(2, 24, 16), condition)),
        ("at least 1 step, got 0", lambda: model.grid(0, x.shape)),
        ("at least one prompt", lambda: model.condition([], 1.0)),
        ("has 21 tokens and this model reads 16", lambda: model.condition(["a " * 20], 1.0)),
        ("as many embeddings as guidances", lambda: FluxCondition(condition.prompt_embeds, condition.pooled, torch.ones(3))),
    ]
    for message, call in refused:
        with pytest.raises(ValueError, match=message):
            call()


def test_other_pipelines_are_refused(tiny_pipeline: Pipelines) -> None:
    pipeline = tiny_pipeline(guided=True)
    pipeline.scheduler.register_to_config(use_karras_sigmas=True)
    with pytest.raises(ValueError, match="use_karras_sigmas=True is not supported"):
        FluxModel(pipeline)
    pipeline = tiny_pipeline(guided=True)
    pipeline.transformer.register_to_config(in_channels=24, out_channels=16)  # as FLUX.1-Fill-dev has it
    with pytest.raises(ValueError, match="takes 24 and gives 16"):
        FluxModel(pipeline)
