"""The generic adapter on every kind of pipeline: its velocity against direct network calls, with the kind's own signs, times
and guidance written out; Euler over its grid against the pipeline's own sampling; its cost; its codec."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange
from fe.experiments.meter import metered
from fe.models.driven import DrivenModel
from fe.solvers.base import integrate
from fe.solvers.euler import Euler
from torch import Tensor

KINDS = ("lumina2", "qwen_image", "z_image", "sana", "aura_flow", "chroma", "cogview4", "flux2_klein")
PROMPTS = ("a red circle", "a blue square on grey")
GUIDANCES = (1.0, 3.0)

Direct = Callable[[Any, float, Tensor, Any, float], Tensor]


def guided(text: Tensor, negative: Callable[[], Tensor], guidance: float) -> Tensor:
    """Classifier-free guidance, as the paper writes it."""
    return text if guidance == 1.0 else (away := negative()) + guidance * (text - away)


def rescaled(mixed: Tensor, text: Tensor) -> Tensor:
    """`mixed` with the norm that `text` has along the last dimension."""
    norms = [torch.linalg.vector_norm(value, dim=-1, keepdim=True) for value in (text, mixed)]
    result: Tensor = mixed * (norms[0] / norms[1])
    return result


def tokens(x: Tensor) -> Tensor:
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def spatial(packed: Tensor, like: Tensor) -> Tensor:
    return rearrange(packed, "b (h w) (c p q) -> b c (h p) (w q)", h=like.shape[2] // 2, p=2, q=2)


def places(height: int, width: int, axes: int) -> Tensor:
    """(0, row, column, 0 ...) of every token."""
    found = torch.zeros(height, width, axes)
    found[..., 1] = torch.arange(height)[:, None]
    found[..., 2] = torch.arange(width)[None, :]
    return found.reshape(-1, axes)


def lumina2(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told 1 - t, it gives image - noise, and a guided velocity keeps the norm of the text's, row of pixels by row."""
    ((embeds, mask, negative, negative_mask),) = texts

    def call(text: Tensor, where: Tensor) -> Tensor:
        output: Tensor = pipeline.transformer(x, torch.full((len(x),), 1.0 - t), text, where, return_dict=False)[0]
        return -output

    text = call(embeds, mask)
    mixed = guided(text, lambda: call(negative, negative_mask), guidance)
    return mixed if guidance == 1.0 else rescaled(mixed, text)


def qwen_image(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told t, it gives the velocity; a guided one keeps the norm of the text's, token by token."""

    def call(text: Any) -> Tensor:
        shape = [[(1, x.shape[2] // 2, x.shape[3] // 2)]] * len(x)
        embeds, mask = text
        given: dict[str, Any] = {"img_shapes": shape, "return_dict": False}
        if "txt_seq_lens" in inspect.signature(pipeline.transformer.forward).parameters:  # of older versions of diffusers
            given["txt_seq_lens"] = [embeds.shape[1]] * len(x)
        output: Tensor = pipeline.transformer(tokens(x), embeds, mask, torch.full((len(x),), t), **given)[0]
        return output

    text = call(texts[0])
    mixed = guided(text, lambda: call(texts[1]), guidance)
    return spatial(mixed if guidance == 1.0 else rescaled(mixed, text), x)


def z_image(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told 1 - t, it gives image - noise, from lists of frames (C, 1, h, w)."""

    def call(text: list[Tensor]) -> Tensor:
        frames = list(x[:, :, None])
        output = pipeline.transformer(frames, torch.full((len(x),), 1.0 - t), text, return_dict=False)[0]
        return -torch.stack(output)[:, :, 0]

    return guided(call(texts[0][0]), lambda: call(texts[0][1]), guidance)


def sana(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told 1000 t, it gives the velocity."""
    ((embeds, mask, negative, negative_mask),) = texts

    def call(text: Tensor, where: Tensor) -> Tensor:
        times = torch.full((len(x),), 1000.0 * t)
        output: Tensor = pipeline.transformer(x, text, times, encoder_attention_mask=where, return_dict=False)[0]
        return output

    return guided(call(embeds, mask), lambda: call(negative, negative_mask), guidance)


def aura_flow(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told t, it gives the velocity."""
    ((embeds, _, negative, _),) = texts

    def call(text: Tensor) -> Tensor:
        output: Tensor = pipeline.transformer(x, text, torch.full((len(x),), t), return_dict=False)[0]
        return output

    return guided(call(embeds), lambda: call(negative), guidance)


def chroma(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told t, it gives the velocity; its mask covers text and image."""
    ((embeds, ids, mask, negative, negative_ids, negative_mask),) = texts
    height, width = x.shape[2] // 2, x.shape[3] // 2

    def call(text: Tensor, where: Tensor, seen: Tensor) -> Tensor:
        output: Tensor = pipeline.transformer(
            hidden_states=tokens(x),
            encoder_hidden_states=text,
            timestep=torch.full((len(x),), t),
            img_ids=places(height, width, 3),
            txt_ids=where,
            attention_mask=torch.cat([seen, torch.ones(len(x), height * width, dtype=torch.bool)], dim=1),
            return_dict=False,
        )[0]
        return output

    return spatial(guided(call(embeds, ids, mask), lambda: call(negative, negative_ids, negative_mask), guidance), x)


def cogview4(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """It gives the velocity; told is the time before the shift mu: t = mu u / (1 + (mu - 1) u)."""
    size = torch.tensor([[8.0 * x.shape[2], 8.0 * x.shape[3]]]).repeat(len(x), 1)
    mu = 0.25 + 0.75 * math.sqrt(x.shape[2] * x.shape[3] / 4 / 256)
    unshifted = t / (mu - (mu - 1.0) * t)

    def call(text: Tensor) -> Tensor:
        times = torch.full((len(x),), 1000.0 * unshifted)
        output: Tensor = pipeline.transformer(x, text, times, size, size, torch.zeros(len(x), 2), return_dict=False)[0]
        return output

    ((embeds, negative),) = texts
    return guided(call(embeds), lambda: call(negative), guidance)


def flux2_klein(pipeline: Any, t: float, x: Tensor, texts: Any, guidance: float) -> Tensor:
    """Told t, it gives the velocity, a token for each place of latents that are 2x2 patches of the codec's."""

    def call(text: Any) -> Tensor:
        output: Tensor = pipeline.transformer(
            hidden_states=rearrange(x, "b c h w -> b (h w) c"),
            encoder_hidden_states=text[0],
            timestep=torch.full((len(x),), t),
            img_ids=places(x.shape[2], x.shape[3], 4).expand(len(x), -1, -1),
            txt_ids=text[1],
            return_dict=False,
        )[0]
        return rearrange(output, "b (h w) c -> b c h w", h=x.shape[2])

    return guided(call(texts[0]), lambda: call(texts[1]), guidance)


DIRECT: dict[str, Direct] = {
    direct.__name__: direct for direct in (lumina2, qwen_image, z_image, sana, aura_flow, chroma, cogview4, flux2_klein)
}


@pytest.fixture(scope="module")
def model_of(kinds: Callable[[str], Any]) -> Callable[[str], DrivenModel]:
    built: dict[str, DrivenModel] = {}
    return lambda name: built.get(name) or built.setdefault(name, DrivenModel(kinds(name)))


def state(model: DrivenModel, rows: int = 2) -> Tensor:
    """Noise for pictures that are wider than high."""
    channels, height, width = model.encode(torch.zeros(1, 3, 2 * model.multiple, 3 * model.multiple)).shape[1:]
    return torch.randn(rows, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_velocity_is_the_networks_own(model_of: Callable[[str], DrivenModel], name: str, guidance: float) -> None:
    model = model_of(name)
    x = state(model)
    condition = model.condition(PROMPTS, guidance)
    for t in (model.grid(5, x.shape).times[2], 0.0):
        expected = DIRECT[name](model.pipeline, t, x, condition.parts[0].texts, guidance)
        assert expected.std() > 0.01
        torch.testing.assert_close(model.velocity(t, x, condition), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_guidance_and_prompts_matter(model_of: Callable[[str], DrivenModel], name: str) -> None:
    model = model_of(name)
    x = state(model)[:1].repeat(2, 1, 1, 1)
    plain, strong = (model.velocity(0.5, x, model.condition(PROMPTS, guidance)) for guidance in (1.0, 8.0))
    assert (plain[0] - plain[1]).abs().max() > 1e-4
    assert (plain - strong).abs().max() > 1e-4


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_euler_is_the_pipelines_own_sampling(model_of: Callable[[str], DrivenModel], name: str, guidance: float) -> None:
    """Under its real scheduler, with the guidance in its own way of counting."""
    model = model_of(name)
    pipeline, x = model.pipeline, state(model)
    seen = []

    def keep(self: Any, index: int, time: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(given["latents"])
        return given

    asked = {"qwen_image": {"true_cfg_scale": guidance}, "z_image": {"guidance_scale": guidance - 1.0}}
    pipeline(
        prompt=list(PROMPTS),
        height=2 * model.multiple,
        width=3 * model.multiple,
        num_inference_steps=5,
        latents=tokens(x) if name in ("qwen_image", "chroma") else x,
        callback_on_step_end=keep,
        max_sequence_length=48 if name != "qwen_image" else 96,
        output_type="pt",
        **asked.get(name, {"guidance_scale": guidance}),
        **({"negative_prompt": [" "] * 2} if name == "qwen_image" and guidance > 1.0 else {}),
        **({"use_resolution_binning": False} if name == "sana" else {}),
    )
    ours = integrate(Euler(), model.field(model.condition(PROMPTS, guidance)), x, model.grid(5, x.shape)).x
    own = seen[-1].mT.reshape(x.shape) if name == "flux2_klein" else seen[-1]
    own = spatial(own, x) if name in ("qwen_image", "chroma") else own
    assert len(seen) == 5
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_calls_are_the_calls_that_are_made(model_of: Callable[[str], DrivenModel], name: str, guidance: float) -> None:
    model = model_of(name)
    condition = model.condition(PROMPTS, 1.0).joined(model.condition(PROMPTS[:1], guidance))
    with metered(model.network) as meter:
        model.velocity(0.5, state(model, rows=3), condition)
    foretold = model.calls(condition)
    assert (meter.calls, meter.rows) == (len(foretold), sum(map(len, foretold)))
    assert {row for rows in foretold for row in rows} == {0, 1, 2}
    if guidance == 1.0:
        assert [list(rows) for rows in foretold] == [[0, 1], [2]]


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_pictures_come_back_as_from_the_codec(model_of: Callable[[str], DrivenModel], name: str) -> None:
    """Through the pipeline's own decoding and back, as through the codec alone."""
    model = model_of(name)
    vae = model.pipeline.vae
    pictures = torch.rand(2, 3, 2 * model.multiple, 3 * model.multiple, generator=torch.Generator().manual_seed(2))
    signed = 2.0 * pictures - 1.0
    signed = signed[:, :, None] if name == "qwen_image" else signed
    found = vae.encode(signed, return_dict=False)[0]
    own = vae.decode(found if name == "sana" else found.mode(), return_dict=False)[0]
    own = own[:, :, 0] if name == "qwen_image" else own
    latents = model.encode(pictures)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(model.decode(latents), (own / 2.0 + 0.5).clamp(0.0, 1.0), rtol=0, atol=1e-5)
