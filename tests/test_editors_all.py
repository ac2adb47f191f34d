"""What every editor of the registry owes, built with its defaults and some in other ways too, walking by Euler on a toy model
of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.cases.scenes import ScenesCases
from fe.editors.base import Editor, KeyedNoise, Noise, Request
from fe.experiments.execute import Outcome, execute
from fe.experiments.meter import metered
from fe.experiments.names import build_editor, build_solver, load_model
from fe.experiments.probe import probe
from fe.models.base import Setup
from fe.registry import EDITORS, SOLVERS
from fe.solvers.euler import Euler
from fe.solvers.fixed_point import FixedPoint
from fe.solvers.uni_inv import UniInv
from torch import Tensor

STEPS = 5
CASES = ScenesCases().take(3)
METHODS: dict[str, Editor] = {name: build_editor(name) for name in sorted(EDITORS.builtin)} | {
    "dvrf at random times": build_editor("dvrf", {"order": "random", "n_avg": 2}),
    "flowedit with a last phase": build_editor("flowedit", {"n_max": 4, "n_min": 2, "n_avg": 2}),
    "ftedit, compensated": build_editor("ftedit", {"compensate": True, "n_max": 4}),
    "injection in batch": build_editor("injection", {"memory": "in-batch", "strategy": "replace_v+add_k"}),
    "rf-inversion, stochastic": build_editor("rf-inversion", {"grid": "consistent", "sde": True}),
    "steerflow as on SD3": build_editor("steerflow", {"cosine": "whole", "mask_from": "text"}),
}
every_editor = pytest.mark.parametrize("name", METHODS)
masked = [name for name, editor in METHODS.items() if editor.takes_mask]


@pytest.fixture(scope="module")
def model(tiny_scenes: str) -> Any:
    """Its network computes in float64, so that what rounding does to batches of different sizes (and steep masks and high
    guidance make of it) is not taken for a case's dependence on others."""
    model: Any = load_model(tiny_scenes, Setup())
    model.network.double()
    model.dtype = torch.float64
    return model


def run(model: Any, name: str, cases: Sequence[Case] = CASES, seed: int = 0, **options: Any) -> Outcome:
    return execute(model, METHODS[name], build_solver("euler"), STEPS, cases, seed, **options)


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two edits gave the same latents and figures, to the last bit."""
    figures = zip(one.edit.figures.values(), other.edit.figures.values(), strict=True)
    return torch.equal(one.latents, other.latents) and all(torch.equal(a, b) for a, b in figures)


@every_editor
def test_the_result_is_a_finite_picture_of_the_sources_size(name: str, model: Any) -> None:
    outcome = run(model, name)
    assert outcome.latents.shape == outcome.source_latents.shape
    assert torch.isfinite(outcome.latents).all()
    assert outcome.pictures.shape == (3, *CASES[0].picture.shape)
    assert (outcome.latents - outcome.source_latents).abs().max() > 1e-3 or name == "no-edit"


@every_editor
def test_a_result_does_not_depend_on_what_is_beside_it(name: str, model: Any) -> None:
    together = run(model, name).latents
    for row, case in enumerate(CASES):
        torch.testing.assert_close(run(model, name, [case]).latents[0], together[row], atol=1e-5, rtol=1e-5)
    turned = run(model, name, [CASES[2], CASES[0]]).latents
    torch.testing.assert_close(turned, together[[2, 0]], atol=1e-5, rtol=1e-5)


@every_editor
def test_the_seed_decides_and_nothing_else(name: str, model: Any) -> None:
    torch.manual_seed(1)
    first = run(model, name, seed=4)
    torch.manual_seed(2)
    run(model, "from-noise", seed=9)
    assert same(run(model, name, seed=4), first)
    draws = probe(METHODS[name], build_solver("euler"), STEPS, model, (CASES[0].source, CASES[0].target)).draws
    assert same(run(model, name, seed=5), first) == (draws == 0)


@every_editor
@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_the_dry_run_foretells_calls_rows_and_draws(name: str, steps: int, model: Any) -> None:
    case, editor, solver = CASES[0], METHODS[name], build_solver("euler")
    foretold = probe(editor, solver, steps, model, (case.source, case.target))
    latent, asked = model.encode(case.picture[None]), []
    keyed = KeyedNoise(0, (case.id,), latent)

    def noise(step: int, draw: int = 0) -> Tensor:
        assert 1 <= step <= steps
        asked.append((step, draw))
        return keyed(step, draw)

    request = Request(latent, (case.source,), (case.target,))
    with metered(model.network) as meter, torch.inference_mode():
        editor.edit(model, request, solver, model.grid(steps, latent.shape), noise)
    assert foretold == (meter.calls, meter.rows, len(asked))


@every_editor
def test_the_path_leads_from_the_source_to_the_result(name: str, model: Any) -> None:
    outcome = run(model, name, keep_path=True)
    path = outcome.edit.path
    if path:
        torch.testing.assert_close(path[0], outcome.source_latents, atol=1e-5, rtol=0)
        assert torch.equal(path[-1], outcome.latents)
        assert all(torch.isfinite(state).all() for state in path)
    assert torch.equal(run(model, name).latents, outcome.latents)
    assert run(model, name).edit.path == ()


@every_editor
def test_the_source_is_left_as_it_was(name: str, model: Any) -> None:
    latent = model.encode(torch.stack([case.picture for case in CASES]))
    kept = latent.clone()
    run(model, name, source=latent)
    assert torch.equal(latent, kept)


@pytest.mark.parametrize("name", masked)
def test_what_a_mask_closes_stays_the_sources(name: str, model: Any) -> None:
    latent = model.encode(torch.stack([case.picture for case in CASES]))
    mask = torch.zeros(3, 1, *latent.shape[2:])
    mask[1] = 1.0
    mask[2, ..., : latent.shape[-1] // 2] = 1.0
    request = Request(latent, tuple(case.source for case in CASES), tuple(case.target for case in CASES))
    noise: Noise = KeyedNoise(0, tuple(case.id for case in CASES), latent)
    grid = model.grid(STEPS, latent.shape)
    with torch.inference_mode():
        free, held = (
            METHODS[name].edit(model, asked, build_solver("euler"), grid, noise, keep_path=True)
            for asked in (request, replace(request, mask=mask))
        )
    closed = (mask == 0).expand_as(latent)
    assert torch.equal(held.latent[closed], latent[closed])
    torch.testing.assert_close(held.latent[1], free.latent[1], atol=1e-5, rtol=0)
    assert (held.latent - latent)[~closed].abs().max() > 1e-3
    for state in held.path:
        torch.testing.assert_close(state[closed], latent[closed], atol=1e-5, rtol=0)


class TwoSteps(Euler):  # type: ignore[misc]
    """Stands for a method that evaluates where Euler does, but looks back at the step before."""

    order = 2


@pytest.mark.parametrize("name", ["direct-edit", "dnaedit", "dvrf", "flowalign", "ftedit"])
def test_what_is_made_of_euler_steps_refuses_others_before_anything_runs(name: str, model: Any) -> None:
    others = [build_solver(solver) for solver in SOLVERS.builtin if solver != "euler"]
    for solver in (*others, UniInv(first="zero"), FixedPoint(sweeps=1), TwoSteps()):
        kind = type(solver).__name__
        with pytest.raises(ValueError, match=f"is made of Euler steps, and {kind} takes others; use the solver euler"):
            probe(METHODS[name], solver, STEPS, model, (CASES[0].source, CASES[0].target))
