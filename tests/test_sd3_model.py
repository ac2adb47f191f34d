"""The SD3 adapter against diffusers' own pipeline, on whole toy pipelines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from fe.experiments.meter import metered
from fe.models.guidance import GuidedCondition
from fe.models.sd3 import SD3Model
from fe.ode import TimeGrid
from fe.solvers.base import integrate
from fe.solvers.euler import Euler
from torch import Tensor

Pipelines = Callable[..., StableDiffusion3Pipeline]
PROMPTS = [
    "a large red star at the left on a plain blue background",
    "a small blue ring at the right on a dotted red background",
]
LONG = "a large red star and a small blue ring at the left on plain background"  # 15 words: CLIP reads 14 of them, T5 15
KINDS = [(dual, t5) for dual in (False, True) for t5 in (False, True)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def text_length(t5: bool) -> int:
    """What the pipeline must be told to read as many tokens as the adapter: without T5 there are 256 rows of zeros."""
    return 16 if t5 else 256


@pytest.mark.parametrize(("dual", "t5"), KINDS)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_euler_on_our_grid_is_the_pipelines_own_generation(dual: bool, t5: bool, guidance: float, tiny_sd3: Pipelines) -> None:
    pipeline, noise = tiny_sd3(dual=dual, t5=t5), random(2, 4, 8, 12)
    model = SD3Model(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPTS,
        height=16,
        width=24,
        num_inference_steps=6,
        guidance_scale=guidance,
        latents=noise,
        max_sequence_length=text_length(t5),
        output_type="latent",
    ).images
    field = model.field(model.condition(PROMPTS, guidance))
    ours = integrate(Euler(), field, noise, model.grid(6, noise.shape)).x
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1


def test_a_plain_grid_on_request(tiny_sd3: Pipelines) -> None:
    pipeline, noise = tiny_sd3(), random(1, 4, 8, 8)
    model = SD3Model(pipeline, shift_twice=False)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        PROMPTS[:1],
        height=16,
        width=16,
        sigmas=[1.0, 0.8, 0.6, 0.4, 0.2],
        num_inference_steps=5,
        guidance_scale=4.0,
        latents=noise,
        max_sequence_length=16,
        output_type="latent",
    ).images
    field = model.field(model.condition(PROMPTS[:1], 4.0))
    ours = integrate(Euler(), field, noise, model.grid(5, noise.shape)).x
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    other = integrate(Euler(), field, noise, SD3Model(pipeline).grid(5, noise.shape)).x
    assert (other - ours).abs().max() > 0.01


@pytest.mark.parametrize(("dual", "t5"), KINDS)
def test_velocity_is_the_network_guided_by_hand(dual: bool, t5: bool, tiny_sd3: Pipelines) -> None:
    pipeline, x = (
        tiny_sd3(dual=dual, t5=t5, dtype=torch.float64),
        random(2, 4, 8, 12).double(),
    )  # so that rounding hides nothing
    model = SD3Model(pipeline)
    text, negative, pooled, negative_pooled = pipeline.encode_prompt(
        PROMPTS, None, None, max_sequence_length=text_length(t5), do_classifier_free_guidance=True
    )
    time = torch.full((2,), 750.0)
    with_text = pipeline.transformer(x, text, pooled, time).sample
    without = pipeline.transformer(x, negative, negative_pooled, time).sample
    assert (with_text - without).abs().max() > 1e-3
    for guidance, expected in ((5.0, without + 5.0 * (with_text - without)), (1.0, with_text), (0.3, with_text)):
        velocity = model.velocity(0.75, x, model.condition(PROMPTS, guidance))
        torch.testing.assert_close(velocity, expected, atol=1e-9, rtol=0)


def test_latents_are_shifted_and_scaled_modes(tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    model, pictures = SD3Model(pipeline), torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    latents = model.encode(pictures)
    distribution = pipeline.vae.encode(pipeline.image_processor.preprocess(pictures, 16, 24)).latent_dist
    torch.testing.assert_close(latents, (distribution.mean - 0.0609) * 1.5305)
    assert latents.shape == (2, 4, 8, 12)
    assert distribution.std.min() > 0.1  # so that a sample would not have passed
    decoded = pipeline.vae.decode(latents / 1.5305 + 0.0609).sample
    torch.testing.assert_close(model.decode(latents), pipeline.image_processor.postprocess(decoded, "pt"))


def test_rows_have_their_own_time_prompt_and_guidance(tiny_sd3: Pipelines) -> None:
    model, x = SD3Model(tiny_sd3(dual=True)), random(3, 4, 8, 12)
    rows = [(0.9, PROMPTS[0], 3.5), (0.2, PROMPTS[1], 1.0), (0.5, PROMPTS[1], 13.5)]
    conditions = [model.condition([prompt], guidance) for _, prompt, guidance in rows]
    joined = conditions[0].joined(conditions[1]).joined(conditions[2])
    with metered(model.network) as meter:
        together = model.velocity(torch.tensor([time for time, _, _ in rows]), x, joined)
    assert (meter.calls, meter.rows) == (1, 5)
    assert model.calls(joined) == [[0, 1, 2, 0, 2]]
    apart = [model.velocity(rows[row][0], x[row : row + 1], conditions[row]) for row in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)
    assert (model.velocity(torch.tensor([0.2, 0.5, 0.9]), x, joined) - together).abs().max() > 1e-2


def test_the_states_precision_is_kept(tiny_sd3: Pipelines) -> None:
    model, x = SD3Model(tiny_sd3()), random(1, 4, 8, 8)
    condition = model.condition(PROMPTS[:1], 5.0)
    exact = model.velocity(0.5, x.double(), condition)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), model.velocity(0.5, x, condition), atol=1e-5, rtol=1e-5)
    rough = SD3Model(tiny_sd3(dtype=torch.bfloat16))
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    latents, velocity = rough.encode(pictures), rough.velocity(0.5, x, rough.condition(PROMPTS[:1], 5.0))
    assert [value.dtype for value in (latents, velocity, rough.decode(latents))] == [torch.float32] * 3
    assert 0 < (velocity - exact).abs().max() < 0.1 * exact.abs().max()


def test_each_distinct_prompt_is_encoded_once(tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    model = SD3Model(pipeline)
    with (
        metered(pipeline.text_encoder) as clip,
        metered(pipeline.text_encoder_2) as other,
        metered(pipeline.text_encoder_3) as t5,
    ):
        condition = model.condition([PROMPTS[0], PROMPTS[1], PROMPTS[0]], 2.0)
    assert (clip.rows, other.rows, t5.rows, len(condition)) == (3, 3, 3, 3)  # two prompts, and the empty one
    embeds, pooled = condition.text
    assert torch.equal(embeds[0], embeds[2])
    assert torch.equal(pooled[0], pooled[2])
    assert not torch.equal(embeds[0], embeds[1])
    assert not torch.equal(pooled[0], pooled[1])


def test_text_is_padded_to_the_tokenizers_maximum(tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    assert SD3Model(pipeline).condition(PROMPTS, 1.0).text[0].shape == (2, 16 + 16, 64)
    pipeline.tokenizer_3.model_max_length = int(1e30)  # what transformers writes where none is known
    assert SD3Model(pipeline).condition(PROMPTS, 1.0).text[0].shape == (2, 16 + 256, 64)
    without = SD3Model(tiny_sd3(t5=False)).condition(PROMPTS, 1.0).text[0]
    assert without.shape == (2, 16 + 256, 64)
    assert not without[:, 16:].any()


def test_a_long_prompt_is_cut_for_clip_where_t5_reads_on(tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    model, cut = SD3Model(pipeline), " ".join(LONG.split()[:-1])
    whole, beginning = model.condition([LONG], 1.0).text, model.condition([cut], 1.0).text
    assert torch.equal(whole[1], beginning[1])  # pooled, CLIP's alone
    assert torch.equal(whole[0][:, :16], beginning[0][:, :16])
    assert (whole[0][:, 16:] - beginning[0][:, 16:]).abs().max() > 1e-2
    expected = pipeline.encode_prompt(LONG, None, None, do_classifier_free_guidance=False, max_sequence_length=16)
    torch.testing.assert_close(whole, (expected[0], expected[2]))


@pytest.mark.parametrize("tokenizer", [True, False])
def test_a_long_prompt_is_refused_without_t5(tokenizer: bool, tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3(t5=tokenizer)
    pipeline.register_modules(text_encoder_3=None)  # people often leave its tokenizer in place
    model = SD3Model(pipeline)
    with pytest.raises(ValueError, match="has 17 tokens and this model reads 16; shorten it"):
        model.condition([LONG], 1.0)
    model.condition([" ".join(LONG.split()[:-1])], 1.0)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2", "tokenizer_3"])
@pytest.mark.parametrize("special", ["<unk>", "end"])
def test_a_tokenizer_that_knows_no_word_is_refused(name: str, special: str, tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    tokenizer = getattr(pipeline, name)
    state = tokenizer.backend_tokenizer
    vocabulary = {word: index for word, index in state.get_vocab().items() if index < 3}
    unknown = "<unk>" if special == "<unk>" else tokenizer.eos_token  # CLIP's own unknown token is its end token
    from tokenizers.models import WordLevel

    state.model = WordLevel(vocabulary, unk_token=unknown)
    tokenizer.unk_token = unknown
    with pytest.raises(ValueError, match="knows no word of the prompt 'a red star'; its vocabulary is damaged"):
        SD3Model(pipeline).condition(["a red star"], 1.0)


def test_fused_projections_that_leave_out_the_norm_are_refused(tiny_sd3: Pipelines) -> None:
    pipeline, x = tiny_sd3(dual=True), random(1, 4, 8, 8)
    model = SD3Model(pipeline)
    before = model.velocity(0.5, x, model.condition(PROMPTS[:1], 5.0))
    pipeline.transformer.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"leave out its QK-norm .*; call unfuse_qkv_projections\(\) first"):
        SD3Model(pipeline)
    pipeline.transformer.unfuse_qkv_projections()
    again = SD3Model(pipeline)
    assert torch.equal(again.velocity(0.5, x, again.condition(PROMPTS[:1], 5.0)), before)
    assert len(again.points()) == 9


def test_fused_projections_without_a_norm_work_but_have_no_points(tiny_sd3: Pipelines) -> None:
    pipeline, x = tiny_sd3(), random(1, 4, 8, 8)
    model = SD3Model(pipeline)
    before = model.velocity(0.5, x, model.condition(PROMPTS[:1], 5.0))
    pipeline.transformer.fuse_qkv_projections()
    fused = SD3Model(pipeline)
    torch.testing.assert_close(fused.velocity(0.5, x, fused.condition(PROMPTS[:1], 5.0)), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"separate projections; call unfuse_qkv_projections\(\) first"):
        fused.points()
    pipeline.transformer.unfuse_qkv_projections()
    assert len(fused.points()) == 6


def test_unfit_input_is_refused_in_one_sentence(tiny_sd3: Pipelines) -> None:
    model, x = SD3Model(tiny_sd3()), random(1, 4, 8, 12)
    condition = model.condition(PROMPTS, 1.0)
    empty = SD3Model(StableDiffusion3Pipeline(**{**tiny_sd3().components, "text_encoder": None, "vae": None}))
    mute = SD3Model(StableDiffusion3Pipeline(**{**tiny_sd3().components, "tokenizer_3": None}))
    assert model.multiple == 4
    refused: list[tuple[str, Callable[[], object]]] = [
        ("multiples of 4 pixels, got 18x16", lambda: model.encode(torch.rand(1, 3, 16, 18))),
        ("multiples of 4 pixels, got 0x16", lambda: model.encode(torch.rand(1, 3, 16, 0))),
        ("up to 64 pixels a side, got a picture of 68x16", lambda: model.encode(torch.rand(1, 3, 16, 68))),
        (r"\(B, 3, H, W\), got \(1, 4, 16, 16\)", lambda: model.encode(torch.rand(1, 4, 16, 16))),
        ("has 2 rows and the latent 1", lambda: model.velocity(0.5, x, condition)),
        (r"multiples of 2 up to 32, got \(2, 4, 7, 12\)", lambda: model.velocity(0.5, random(2, 4, 7, 12), condition)),
        (r"multiples of 2 up to 32, got \(2, 4, 8, 34\)", lambda: model.velocity(0.5, random(2, 4, 8, 34), condition)),
        (r"latents are \(B, 4, h, w\).*got \(2, 16, 8, 12\)", lambda: model.velocity(0.5, random(2, 16, 8, 12), condition)),
        (r"got \(2, 24, 16\)", lambda: model.velocity(0.5, random(2, 24, 16), condition)),
        ("at least 1 step, got 0", lambda: model.grid(0, x.shape)),
        ("at least one prompt", lambda: model.condition([], 1.0)),
        ("has 21 tokens and this model reads 16", lambda: model.condition(["a " * 20], 1.0)),
        ("guidance must be a finite number, got nan", lambda: model.condition(PROMPTS, math.nan)),
        ("lacks text encoders or tokenizers; load one", lambda: empty.condition(PROMPTS, 1.0)),
        ("lacks text encoders or tokenizers; load one", lambda: mute.condition(PROMPTS, 1.0)),
        ("has no codec", lambda: empty.encode(torch.rand(1, 3, 16, 16))),
    ]
    for message, call in refused:
        with pytest.raises(ValueError, match=message):
            call()
    assert isinstance(condition, GuidedCondition)


def test_other_pipelines_are_refused(tiny_sd3: Pipelines) -> None:
    for settings in ({"use_karras_sigmas": True}, {"use_dynamic_shifting": True}):
        pipeline = tiny_sd3()
        pipeline.scheduler.register_to_config(**settings)
        with pytest.raises(ValueError, match=f"{next(iter(settings))}=True is not supported"):
            SD3Model(pipeline)
    pipeline = tiny_sd3()
    pipeline.transformer.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="takes 9 and gives 4"):
        SD3Model(pipeline)


def test_the_grid_follows_the_schedulers_shift(tiny_sd3: Pipelines) -> None:
    pipeline = tiny_sd3()
    pipeline.scheduler = type(pipeline.scheduler)(shift=1.0)
    assert SD3Model(pipeline, shift_twice=False).grid(4, (1, 4, 8, 8)) == TimeGrid.uniform(4)
