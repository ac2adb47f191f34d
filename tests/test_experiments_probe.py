"""The dry run foretells what a real run is counted to spend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.cases.base import Case
from fe.cases.mixture import MixtureCases
from fe.editors.controls import FromNoise, NoEdit
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.execute import execute
from fe.experiments.names import build_solver
from fe.experiments.probe import probe, steps_within
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel

PROMPTS = ("source", "target")
FLOWEDIT = FlowEdit(source_guidance=1.0, target_guidance=1.0)
EDITORS = {
    "flowedit": FLOWEDIT,
    "flowedit, all its stages": replace(FLOWEDIT, n_max=5, n_min=2, n_avg=3),
    "flowedit, unpaired": replace(FLOWEDIT, paired=False),
    "inversion": Inversion(target_guidance=1.0),
    "from noise": FromNoise(1.0),
    "no edit": NoEdit(),
}


@pytest.mark.parametrize("editor", EDITORS.values(), ids=EDITORS)
@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni-inv"])
def test_the_dry_run_spends_what_the_run_spends(editor: Any, solver: str) -> None:
    foretold = probe(editor, build_solver(solver), 7, MixtureModel(), PROMPTS)
    cost = execute(MixtureModel(), editor, build_solver(solver), 7, MixtureCases(points=3).take(1), 0).cost
    assert (foretold.calls, foretold.rows) == (cost.calls, cost.rows)


@pytest.mark.parametrize("memory", ["stored", "in-batch"])
def test_attention_points_are_met(memory: str, tiny_pipeline: Callable[..., FluxPipeline]) -> None:
    model, editor = FluxModel(tiny_pipeline(guided=True)), Injection(inject=2, memory=memory)
    case = Case("x", torch.rand(3, 16, 16), "a star at the left", "a heart at the left")
    foretold = probe(editor, build_solver("fireflow"), 4, model, (case.source, case.target))
    cost = execute(model, editor, build_solver("fireflow"), 4, [case], 0).cost
    assert (foretold.calls, foretold.rows) == (cost.calls, cost.rows)


def test_what_an_editor_refuses_is_refused_in_the_dry_run() -> None:
    with pytest.raises(ValueError, match="n_min=7 exceeds n_max=6"):
        probe(replace(FLOWEDIT, n_min=9), build_solver("euler"), 7, MixtureModel(), PROMPTS)
    with pytest.raises(ValueError, match="guidance must be 1"):
        probe(FlowEdit(), build_solver("euler"), 7, MixtureModel(), PROMPTS)
    with pytest.raises(ValueError, match="no attention features"):
        probe(Injection(target_guidance=1.0), build_solver("euler"), 7, MixtureModel(), PROMPTS)


def test_only_editors_that_draw_noise_are_said_to() -> None:
    drawn = {name: probe(editor, build_solver("euler"), 7, MixtureModel(), PROMPTS).draws for name, editor in EDITORS.items()}
    assert drawn == {
        "flowedit": 6,
        "flowedit, all its stages": 10,
        "flowedit, unpaired": 6,
        "inversion": 0,
        "from noise": 1,
        "no edit": 0,
    }


@pytest.mark.parametrize(("solver", "steps"), [("euler", 28), ("fireflow", 27), ("midpoint", 14)])
def test_forty_eight_evaluations_of_flowedit(solver: str, steps: int) -> None:
    def spend(count: int) -> int:
        return int(probe(FLOWEDIT, build_solver(solver), count, MixtureModel(), PROMPTS).rows)

    found = steps_within(48, spend)
    assert found == steps
    assert spend(found) <= 48 < spend(found + 1)


def test_a_budget_below_one_step_is_refused_and_one_without_bound_is_held() -> None:
    with pytest.raises(ValueError, match="one step already costs 4 evaluations, more than the 3 allowed"):
        steps_within(3, lambda steps: 4 * steps)
    assert steps_within(6, lambda steps: 2) == 6
