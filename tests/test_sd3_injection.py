"""Attention features of SD3: where they are met, and the injection editor on them, with and without guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from fe.attention_hooks.base import Point
from fe.attention_hooks.store import FeatureStore, Inject, Record
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_solver
from fe.models.sd3 import SD3Model
from fe.ode import Tick
from fe.solvers.base import integrate
from torch import Tensor

Pipelines = Callable[..., StableDiffusion3Pipeline]
STEPS = 4
SOURCE = ("a large red star at the left", "a small blue ring at the right")
TARGET = ("a large blue star at the left", "a small blue heart at the right")
EVERY = Injection(inject=2, strategy="add_q+replace_k+replace_v+add_v", q_ratio=0.5, k_ratio=0.9, v_ratio=0.6)


@pytest.fixture(params=[False, True], ids=["single", "dual"])
def model(request: pytest.FixtureRequest, tiny_sd3: Pipelines) -> SD3Model:
    return SD3Model(tiny_sd3(dual=request.param))


def latents(rows: int = 2) -> Tensor:
    return torch.randn(rows, 4, 8, 12, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def run(
    model: SD3Model, editor: Any, solver: str = "midpoint", steps: int = STEPS, target: tuple[str, ...] = TARGET
) -> tuple[Edit, Meter]:
    latent = latents()
    grid, noise = model.grid(steps, latent.shape), KeyedNoise(0, ("a", "b"), latent)
    with metered(model.network) as meter:
        return editor.edit(model, Request(latent, SOURCE, target), build_solver(solver), grid, noise), meter


def test_points_are_the_image_sides_of_every_attention(tiny_sd3: Pipelines) -> None:
    joint = {Point("joint", block, part) for block in (0, 1) for part in ("q", "k", "v")}
    dual = {Point("dual", 0, part) for part in ("q", "k", "v")}
    assert SD3Model(tiny_sd3()).points().keys() == joint
    normed = SD3Model(tiny_sd3(dual=True))
    assert normed.points().keys() == joint | dual
    blocks = normed.pipeline.transformer.transformer_blocks
    assert normed.points()[Point("joint", 1, "q")] is blocks[1].attn.norm_q
    assert normed.points()[Point("dual", 0, "k")] is blocks[0].attn2.norm_k
    assert normed.points()[Point("dual", 0, "v")] is blocks[0].attn2.to_v


@pytest.mark.parametrize("dual", [False, True])
def test_q_and_k_are_met_after_their_norm(dual: bool, tiny_sd3: Pipelines) -> None:
    model, store = SD3Model(tiny_sd3(dual=dual)), FeatureStore()
    condition = model.condition(SOURCE, 1.0)
    with torch.no_grad():
        model.field(condition, Record(store, tuple(model.points())))(Tick(0.5, 0.5, 0.4), latents())
    tokens, heads, size = 4 * 6, 2, 16  # of 2x2 places; no text among them
    assert len(store) == len(model.points())
    for slot, feature in store.items():
        normed = dual and slot.point.part != "v"
        assert feature.shape == ((2, heads, tokens, size) if normed else (2, tokens, heads * size))
        length = feature.square().mean(-1).sqrt()
        assert normed == bool(((length - 1).abs() < 1e-3).all())


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni-inv"])
@pytest.mark.parametrize(("source", "target"), [(1.0, 1.0), (1.0, 5.0), (2.0, 5.0)])
def test_stored_and_in_batch_agree(source: float, target: float, solver: str, model: SD3Model) -> None:
    editor = replace(EVERY, source_guidance=source, target_guidance=target)
    stored, meter = run(model, editor, solver)
    shared, more = run(model, replace(editor, memory="in-batch"), solver)
    torch.testing.assert_close(shared.latent, stored.latent, atol=1e-5, rtol=1e-5)
    up, down = build_solver(solver).nfe(STEPS), build_solver(solver).generator.nfe(STEPS)
    assert more.calls == meter.calls == up + down
    counts = ["injected", "missed"]
    assert [shared.counts[name] for name in counts] == [stored.counts[name] for name in counts]
    features = 4 * len(model.points()) // 3  # four changes, each of a third of the points
    evaluations = stored.counts["injected"] // features
    assert evaluations >= 2
    own, guided = 2 * (2 if source > 1 else 1), 2 * (2 if target > 1 else 1)
    assert meter.rows == own * up + guided * down
    assert more.rows - meter.rows == own * evaluations


@pytest.mark.parametrize("strategy", ["replace_v", "replace_q+replace_k", "add_v", "add_k"])
def test_both_rows_of_a_guided_picture_are_given_the_feature(strategy: str, model: SD3Model) -> None:
    """One step is linear in its velocity, so guidance can be applied to the results of its two rows, each injected alone."""
    for memory in ("stored", "in-batch"):
        editor = Injection(strategy=strategy, memory=memory, target_guidance=1.0)
        text = run(model, editor, "euler", 1)[0].latent
        negative = run(model, editor, "euler", 1, ("", ""))[0].latent
        guided = run(model, replace(editor, target_guidance=5.0), "euler", 1)[0].latent
        torch.testing.assert_close(guided, negative + 5.0 * (text - negative), atol=1e-5, rtol=1e-5)
        untouched = run(model, Inversion(target_guidance=5.0), "euler", 1)[0].latent
        assert (guided - untouched).abs().max() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_run_injected_into_itself_is_itself(guidance: float, model: SD3Model) -> None:
    condition, noise, store = model.condition(TARGET, guidance), latents(), FeatureStore()
    grid, points = model.grid(STEPS, noise.shape), tuple(model.points())
    with torch.no_grad():
        plain = integrate(build_solver("midpoint"), model.field(condition), noise, grid).x
        recorded = integrate(build_solver("midpoint"), model.field(condition, Record(store, points)), noise, grid).x
        inject = Inject(store, points)
        injected = integrate(build_solver("midpoint"), model.field(condition, inject), noise, grid).x
        twice = Inject(store, points, ratio=2.0)
        other = integrate(build_solver("midpoint"), model.field(condition, twice), noise, grid).x
    assert torch.equal(recorded, plain)
    assert torch.equal(injected, plain)
    assert (inject.hits, inject.misses) == (2 * STEPS * len(points), 0)
    assert (other - plain).abs().max() > 1e-2


def test_every_change_makes_a_difference(model: SD3Model) -> None:
    strategies = [f"{how}_{part}" for how in ("replace", "add") for part in ("q", "k", "v")]
    editors: list[Any] = [Injection(strategy=strategy, target_guidance=5.0) for strategy in strategies]
    editors += [Injection(first_block=1, target_guidance=5.0), Injection(last_block=0, target_guidance=5.0)]
    editors += [Inversion(target_guidance=5.0)]
    results = [run(model, editor)[0].latent for editor in editors]
    for index, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-4 for other in results[:index])


def test_the_second_attention_is_injected_too(tiny_sd3: Pipelines) -> None:
    model, latent = SD3Model(tiny_sd3(dual=True)), latents()
    tick, condition, store = Tick(0.5, 0.5, 0.4), model.condition(SOURCE, 1.0), FeatureStore()
    with torch.no_grad():
        model.field(model.condition(TARGET, 1.0), Record(store, tuple(model.points())))(tick, -latent)
        plain = model.field(condition)(tick, latent)
        seen = [plain]
        for part in ("q", "k", "v"):
            hook = Inject(store, [Point("dual", 0, part)])
            seen.append(model.field(condition, hook)(tick, latent))
            assert (hook.hits, hook.misses) == (1, 0)
            assert all((seen[-1] - other).abs().max() > 1e-4 for other in seen[:-1])
        assert torch.equal(model.field(condition)(tick, latent), plain)
    assert not any(module._forward_hooks for module in model.network.modules())
