"""Pictures from captions: what is counted, by painters who do exactly as asked or exactly not, and the exact flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.scenes import captions, words
from fe.scenes.attributes import KINDS, Nuisance, Scene, parse
from fe.scenes.counterfactual import edit_case
from fe.scenes.generation import decode, draw_latents, follow_flow, noises
from fe.scenes.judge import Judge
from fe.scenes.network import Shape, build_codec, build_network, build_pipeline, pack
from fe.scenes.render import render
from torch import Tensor

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pipeline() -> FluxPipeline:
    return build_pipeline(build_network(Shape(32, 1, 1, 32)), build_codec(pictures=500))


def painter(pipeline: FluxPipeline, paint: Callable[[Scene], Scene]) -> Callable[..., Tensor]:
    """In place of the network: the drawn picture of what `paint` makes of each caption."""

    def drawn(_pipeline: FluxPipeline, asked: Sequence[str], noise: Tensor, *_: Any) -> Tensor:
        scenes = [paint(parse(caption)) for caption in asked]
        pictures = render(scenes, [Nuisance.from_seed(seed) for seed in range(len(scenes))])
        return pack(pipeline.vae.latents(pictures * 2.0 - 1.0) * pipeline.vae.config.scaling_factor)

    return drawn


def swapped(scene: Scene) -> Scene:
    return replace(scene, colour=scene.background, background=scene.colour)


def test_a_painter_who_does_as_asked_is_right_everywhere(pipeline: FluxPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "draw_latents", painter(pipeline, lambda scene: scene))
    found = captions.examine(pipeline, Judge.load(), 24)
    for shares in (found.asked, found.seen, found.held_out):
        assert all(share.n == 24 and share.right >= 23 for share in shares.values())
    assert (found.kept_apart.right, found.kept_apart.n) == (24, 24)


def test_a_painter_who_swaps_the_colours_confuses_them_and_nothing_else(
    pipeline: FluxPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "draw_latents", painter(pipeline, swapped))
    found = captions.examine(pipeline, Judge.load(), 24)
    assert found.kept_apart.right == 0
    assert found.asked["colour"].right == found.asked["background"].right == 0
    assert found.asked["position"].right >= 23


def test_a_painter_of_another_colour_is_wrong_but_not_confused(pipeline: FluxPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(scene: Scene) -> Scene:
        other = next(colour for colour in ("red", "green", "blue") if colour not in (scene.colour, scene.background))
        return replace(scene, colour=other)

    monkeypatch.setattr(captions, "draw_latents", painter(pipeline, paint))
    found = captions.examine(pipeline, Judge.load(), 12)
    assert found.asked["colour"].right == 0
    assert found.kept_apart.right == 12


def test_seen_and_held_out_scenes_are_what_the_training_had_and_had_not() -> None:
    assert not any(scene.held_out for scene in islice(captions.scenes("test", False), 200))
    assert all(scene.held_out for scene in islice(captions.scenes("test", True), 50))
    both = list(islice(captions.scenes("test"), 200))
    assert 0 < sum(scene.held_out for scene in both) < 40


def test_both_captions_of_a_swap_share_their_noise(pipeline: FluxPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    paint = painter(pipeline, lambda scene: scene)

    def draw(_pipeline: FluxPipeline, asked: Sequence[str], noise: Tensor, *_: Any) -> Tensor:
        seen.append(noise)
        return paint(pipeline, asked, noise)

    monkeypatch.setattr(captions, "draw_latents", draw)
    captions._apart(pipeline, Judge.load(), 6, "test", 1.0)
    assert torch.equal(seen[0][0::2], seen[0][1::2])
    assert not torch.equal(seen[0][0], seen[0][2])


class Decay(torch.nn.Module):
    """dx/dt = rate * x, whose way from t = 1 to 0 is known: x(0) = x(1) exp(-rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        return (self.rate * hidden_states,)


def test_the_flow_is_followed_to_where_it_ends() -> None:
    embeddings = (torch.zeros(2, 16, 4), torch.zeros(2, 4), torch.zeros(16, 3))
    formula = SimpleNamespace(
        transformer=Decay(2.0),
        encode_prompt=lambda *_, **__: embeddings,
        device=torch.device("cpu"),
        text_encoder=None,
        text_encoder_2=None,
    )
    noise = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    found = follow_flow(formula, ["", ""], noise, tolerance=1e-7)  # type: ignore[arg-type]
    torch.testing.assert_close(found.latents, noise * math.exp(-2.0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.straightness, torch.ones(2, dtype=torch.float64))  # it decays along a line
    assert found.calls > 10


def test_the_28_steps_are_euler_steps_that_near_the_flow(pipeline: FluxPipeline) -> None:
    asked = [
        "a large red star at the left on a striped blue background",
        "a small blue ring at the right on a plain red background",
    ]
    noise = noises(pipeline, 2)
    drawn = draw_latents(pipeline, asked, noise)
    assert drawn.shape == noise.shape == (2, 64, 72)
    again = draw_latents(pipeline, asked, noise, guidance=2.0, explicit=True)
    assert not torch.equal(drawn, again)
    exact = follow_flow(pipeline, asked, noise)
    assert 0 < (drawn - exact.latents).norm() < 0.1 * (noise - exact.latents).norm()
    assert (exact.straightness >= 1.0).all()
    pictures = decode(pipeline, drawn)
    assert pictures.shape == (2, 3, 64, 64)
    assert 0.0 <= pictures.min() <= pictures.max() <= 1.0


def test_a_wrong_word_costs_what_it_moves(pipeline: FluxPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(_pipeline: FluxPipeline, asked: Sequence[str], guidance: float) -> Callable[[float, Tensor], Tensor]:
        """A velocity that is off by 1 for every large object it is told of, whatever there is."""
        off = torch.tensor([float("large" in caption) for caption in asked])[:, None, None]
        return lambda t, x: drawn.noise - drawn.clean + off

    drawn = SimpleNamespace()

    def remember(latents: Tensor) -> Tensor:
        clean = drawn.clean = pack(latents)
        drawn.noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        return clean

    monkeypatch.setattr(words, "pack", remember)
    monkeypatch.setattr(words, "velocity_of", told)
    large = [edit_case("test", index).source.size for index in range(12)].count("large") / 12
    for cost in words.word_costs(pipeline, 12):
        assert cost.loss[0] == pytest.approx(large, abs=1e-4)
        assert cost.added["size"][0] == pytest.approx(1.0 - 2.0 * large, abs=1e-4)  # small where large is, large where small
        assert cost.added["shape"][0] == pytest.approx(0.0, abs=1e-4)


def test_a_wrong_word_makes_a_scene_that_differs_in_it_alone() -> None:
    for case in (edit_case("test", index) for index in range(30)):
        for kind in KINDS:
            wrong = words._misnamed(case, kind)
            assert [name for name in KINDS if getattr(wrong, name) != getattr(case.source, name)] == [kind]
