"""Feature injection on a tiny random FLUX: the two memories agree, strategies mean what they say, hooks leave no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.models.flux import FluxCondition, FluxModel
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from fe.registry import SOLVERS
from torch import Tensor

STEPS = 5
EVERY = Injection(inject=2, strategy="add_q+replace_k+replace_v+add_v", q_ratio=0.5, k_ratio=0.9, v_ratio=0.6, first_block=1)


class Embedded(FluxModel):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """A FLUX model whose prompts are made-up embeddings, drawn from the prompt's own letters."""

    def condition(self, prompts: Sequence[str], guidance: float) -> FluxCondition:
        seeds = [sum(ord(letter) for letter in prompt) for prompt in prompts]
        text, pooled = (
            torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
            for shape in ((7, 24), (20,))
        )
        return FluxCondition(text, pooled, torch.full((len(prompts),), guidance))


@pytest.fixture(scope="module")
def model(golden_model: Callable[[str], FluxModel]) -> Embedded:
    pipeline: FluxPipeline = golden_model("flux_a").pipeline
    return Embedded(pipeline)


def latents(rows: int) -> Tensor:
    return torch.randn(rows, 4, 8, 12, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def run(model: Any, editor: Any, solver: str = "midpoint", rows: int = 2) -> tuple[Edit, Meter]:
    latent = latents(rows)
    request = Request(latent, ("a cat", "a dog")[:rows], ("a red cat", "a big dog")[:rows])
    noise, grid = KeyedNoise(0, ("cat", "dog")[:rows], latent), model.grid(STEPS, latent.shape)
    with metered(model.network) as meter:
        return editor.edit(model, request, build_solver(solver), grid, noise, keep_path=True), meter


@pytest.mark.parametrize(
    ("solver", "editor"),
    [(solver, EVERY) for solver in sorted(SOLVERS.builtin)]
    + [(solver, editor) for solver in ("euler", "fireflow") for editor in (Injection(), replace(EVERY, inject=STEPS))],
)
def test_stored_and_in_batch_agree(solver: str, editor: Injection, model: Embedded) -> None:
    stored, meter = run(model, editor, solver)
    shared, more = run(model, replace(editor, memory="in-batch"), solver)
    torch.testing.assert_close(shared.latent, stored.latent, atol=1e-4, rtol=1e-4)
    assert more.calls == meter.calls
    assert {name: stored.counts[name] - shared.counts[name] for name in ("injected", "missed")} == {"injected": 0, "missed": 0}
    features = 4 if editor.strategy == "replace_v" else 3 * 4  # blocks times changes
    assert stored.counts["injected"] > 0
    assert more.rows - meter.rows == 2 * stored.counts["injected"] // features


def test_rows_do_not_mix(model: Embedded) -> None:
    for memory in ("stored", "in-batch"):
        editor = replace(EVERY, memory=memory)
        torch.testing.assert_close(run(model, editor)[0].latent[:1], run(model, editor, rows=1)[0].latent, atol=1e-5, rtol=1e-5)


def test_no_injected_step_is_editing_by_inversion(model: Embedded) -> None:
    edit, meter = run(model, Injection(inject=0, target_guidance=3.0))
    plain, same = run(model, Inversion(target_guidance=3.0))
    assert torch.equal(edit.latent, plain.latent)
    assert edit.counts == {"injected": 0, "missed": 0, "stored_bytes": 0}
    assert (meter.calls, meter.rows) == (same.calls, same.rows)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_replacing_and_adding_gives_twice_the_recorded_feature(part: str, model: Embedded) -> None:
    both = Injection(inject=2, strategy=f"add_{part}+replace_{part}")
    ratio: dict[str, Any] = {f"{part}_ratio": 2.0}
    twice = Injection(inject=2, strategy=f"replace_{part}", **ratio)
    torch.testing.assert_close(run(model, both)[0].latent, run(model, twice)[0].latent, atol=1e-5, rtol=1e-5)


def test_adding_nothing_changes_nothing(model: Embedded) -> None:
    nothing = Injection(inject=STEPS, strategy="add_q+add_k+add_v", q_ratio=0.0, k_ratio=0.0, v_ratio=0.0, target_guidance=3.0)
    assert torch.equal(run(model, nothing)[0].latent, run(model, Inversion(target_guidance=3.0))[0].latent)


def test_every_strategy_and_range_makes_a_difference(model: Embedded) -> None:
    strategies = [f"{how}_{part}" for how in ("replace", "add") for part in ("q", "k", "v")]
    editors = [Injection(strategy=strategy) for strategy in strategies]
    editors += [
        Injection(inject=2),
        Injection(last_block=1),
        Injection(first_block=2),
        Injection(v_ratio=0.5),
        Injection(inject=0),
    ]
    results = [run(model, editor)[0].latent for editor in editors]
    for index, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-3 for other in results[:index])


def test_blocks_beyond_the_last_are_left_out(model: Embedded) -> None:
    assert torch.equal(run(model, Injection(last_block=37))[0].latent, run(model, Injection(last_block=3))[0].latent)
    with pytest.raises(ValueError, match="blocks 0 to 3 to inject into, none of them from 20 to 37"):
        run(model, Injection(first_block=20))


def test_fireflow_injects_midpoints_alone(model: Embedded) -> None:
    edit, _ = run(model, Injection(inject=3), "fireflow")
    assert edit.counts["injected"] == 3 * 4
    assert edit.counts["missed"] == 4  # its first evaluation, in every block
    assert edit.counts["stored_bytes"] == 3 * 4 * (2 * (7 + 24) * 32) * 4


def test_hooks_leave_no_trace(model: Embedded) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    condition, x = model.condition(["a cat"], 2.0), latents(1)
    with torch.no_grad():
        velocity = model.velocity(0.5, x, condition)
        run(model, EVERY)
        run(model, replace(EVERY, memory="in-batch"))
        assert torch.equal(model.velocity(0.5, x, condition), velocity)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())


def test_a_model_without_attention_is_refused() -> None:
    mixture, cases = MixtureModel(), MixtureCases(points=3).take(1)
    latent = cases[0].picture[None]
    request, noise = Request(latent, ("source",), ("target",)), KeyedNoise(0, ("a",), latent)
    editor = Injection(target_guidance=1.0)
    with pytest.raises(ValueError, match="this model has no attention features"):
        editor.edit(mixture, request, build_solver("euler"), mixture.grid(4, latent.shape), noise)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "replace_w"}, "made of replace_q.*got 'replace_w'"),
        ({"strategy": ""}, "joined by .*; got ''"),
        ({"strategy": "add_v+add_v"}, "each change once"),
        ({"first_block": 3, "last_block": 2}, "must not exceed last_block, got 3 and 2"),
        ({"inject": -1}, "inject must be at least 0"),
        ({"v_ratio": math.nan}, "v_ratio must be a finite number"),
        ({"memory": "disk"}, "memory must be one of stored, in-batch, got 'disk'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Injection(**options)


def test_options_come_from_text() -> None:
    options = {"inject": "3", "strategy": "add_q+replace_v", "v-ratio": "0.5", "memory": "in-batch"}
    assert build_editor("injection", options) == Injection(3, "add_q+replace_v", v_ratio=0.5, memory="in-batch")
