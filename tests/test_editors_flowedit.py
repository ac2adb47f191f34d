"""FlowEdit and the controls on the closed-form mixture: identities, costs and options."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, KeyedNoise, Noise, Request
from fe.editors.controls import FromNoise, NoEdit
from fe.editors.flowedit import FlowEdit
from fe.experiments.execute import execute
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.metrics.base import Result
from fe.metrics.mixture import WrongMode
from fe.metrics.path import straightness
from fe.models.mixture import MixtureModel
from fe.ode import TimeGrid
from fe.options import OptionError
from fe.registry import SOLVERS

PLAIN = FlowEdit(n_max=1000, source_guidance=1.0, target_guidance=1.0)
CASES = MixtureCases(points=200).take(3)


def run(
    editor: Editor, solver: str = "euler", steps: int = 12, target: str = "target", noise: Noise | None = None
) -> tuple[Edit, Meter]:
    model = MixtureModel()
    latent = torch.stack([case.picture for case in CASES])
    request = Request(latent, ("source",) * 3, (target,) * 3)
    draws = noise or KeyedNoise(0, tuple(case.id for case in CASES), latent)
    with metered(model.network) as meter:
        return editor.edit(model, request, build_solver(solver), model.grid(steps, latent.shape), draws, keep_path=True), meter


@pytest.mark.parametrize("solver", sorted(SOLVERS.builtin))
def test_equal_prompts_leave_the_source_alone(solver: str) -> None:
    edit, _ = run(PLAIN, solver, steps=28, target="source")
    torch.testing.assert_close(edit.latent, edit.path[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", sorted(SOLVERS.builtin))
def test_cost_is_what_the_solver_declares(solver: str) -> None:
    for paired, calls, rows in ((True, 2, 6), (False, 4, 3)):
        _, meter = run(replace(PLAIN, n_avg=2, paired=paired), solver)
        nfe = build_solver(solver).nfe(12)
        assert (meter.calls, meter.rows) == (calls * nfe, calls * rows * nfe)


@pytest.mark.parametrize("editor", [PLAIN, replace(PLAIN, n_max=9, n_min=3, n_avg=2)])
@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni-inv"])
def test_paired_and_unpaired_agree(solver: str, editor: FlowEdit) -> None:
    paired, separate = run(editor, solver)[0], run(replace(editor, paired=False), solver)[0]
    torch.testing.assert_close(paired.latent, separate.latent, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni-inv"])
def test_a_result_does_not_depend_on_what_is_beside_it(solver: str) -> None:
    editor = FlowEdit(n_max=9, n_min=2, n_avg=2, source_guidance=1.0, target_guidance=1.0)
    together = execute(MixtureModel(), editor, build_solver(solver), 12, CASES, seed=3).latents
    for row, case in enumerate(CASES):
        alone = execute(MixtureModel(), editor, build_solver(solver), 12, [case], seed=3).latents
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)
    other_seed = execute(MixtureModel(), editor, build_solver(solver), 12, CASES, seed=4).latents
    assert (together - other_seed).abs().max() > 0.1


def test_n_max_beyond_the_grid_means_every_step_and_the_default_scales() -> None:
    assert torch.equal(run(replace(PLAIN, n_max=12))[0].latent, run(PLAIN)[0].latent)
    default = FlowEdit(source_guidance=1.0, target_guidance=1.0)
    for steps, walked in ((28, 24), (14, 12), (8, 7), (1, 1)):
        assert run(default, steps=steps)[1].calls == walked


def test_nothing_walked_is_nothing_changed() -> None:
    edit, meter = run(replace(PLAIN, n_max=0))
    assert torch.equal(edit.latent, edit.path[0])
    assert meter.calls == 0


@pytest.mark.parametrize("n_min", [12, 40])
def test_generating_every_step_is_generation_from_noise(n_min: int) -> None:
    edit, meter = run(replace(PLAIN, n_max=40, n_min=n_min), "fireflow")
    fresh, _ = run(FromNoise(target_guidance=1.0), "fireflow")
    torch.testing.assert_close(edit.latent, fresh.latent, atol=1e-4, rtol=0)
    assert meter.rows == 3 * 13  # the target alone


@pytest.mark.parametrize("editor", [PLAIN, replace(PLAIN, n_max=9), replace(PLAIN, n_max=9, n_min=4)])
def test_the_path_leads_from_the_source_to_the_result_without_noise(editor: FlowEdit) -> None:
    edit, _ = run(editor)
    assert editor.n_max is not None
    assert len(edit.path) == min(editor.n_max, 12) + 1
    assert torch.equal(edit.path[0], torch.stack([case.picture for case in CASES]))
    assert torch.equal(edit.path[-1], edit.latent)
    ratio = straightness(edit.path)  # a state with its noise left in would be a jump off the path and back
    assert (ratio > 1.0 - 1e-6).all()
    assert (ratio < 1.6).all()


@dataclass(frozen=True)
class OneDraw:
    """The same draw at every step: the ablation that makes FlowEdit as poor as inversion."""

    noise: Noise

    def __call__(self, step: int, draw: int = 0) -> torch.Tensor:
        drawn: torch.Tensor = self.noise(1, 0)
        return drawn


def test_fresh_noise_at_every_step_is_what_keeps_the_modes_apart() -> None:
    cases = MixtureCases().take(5)
    model, latent = MixtureModel(), torch.stack([case.picture for case in cases])
    request = Request(latent, ("source",) * 5, ("target",) * 5)
    noise = KeyedNoise(0, tuple(case.id for case in cases), latent)
    shares = []
    for draws in (noise, OneDraw(noise)):
        edit = PLAIN.edit(model, request, build_solver("euler"), TimeGrid.uniform(100), draws)
        results = [Result(points, points, points) for points in edit.latent]
        shares.append(sum(WrongMode()(case, result) for case, result in zip(cases, results, strict=True)) / 5)
    assert shares[0] <= 0.005
    assert shares[1] == pytest.approx(0.23, abs=0.02)


def test_draws_of_a_step_are_shared_by_its_evaluations_and_differ_between_steps() -> None:
    asked: list[tuple[int, int]] = []

    def noise(step: int, draw: int = 0) -> torch.Tensor:
        asked.append((step, draw))
        return torch.zeros(3, 200, 2)

    run(replace(PLAIN, n_max=4, n_min=2, n_avg=2), "midpoint", noise=noise)
    assert asked == [(4, 0), (4, 1), (4, 0), (4, 1), (3, 0), (3, 1), (3, 0), (3, 1), (2, 0)]


def test_no_edit_is_the_source_at_no_cost() -> None:
    edit, meter = run(NoEdit())
    assert torch.equal(edit.latent, torch.stack([case.picture for case in CASES]))
    assert meter.calls == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_min": 5, "n_max": 4}, "n_min must not exceed n_max, got n_min=5 and n_max=4"),
        ({"n_min": -1}, "n_min must be at least 0"),
        ({"n_max": -1}, "n_max must be at least 0"),
        ({"n_avg": 0}, "n_avg must be at least 1"),
        ({"source_guidance": math.nan}, "source_guidance must be a finite number, got nan"),
        ({"target_guidance": math.inf}, "target_guidance must be a finite number, got inf"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FlowEdit(**options)


def test_a_default_n_max_below_n_min_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="n_min=11 exceeds n_max=10, the default for 12 steps"):
        run(FlowEdit(n_min=11, source_guidance=1.0, target_guidance=1.0))


def test_options_come_from_text() -> None:
    editor = build_editor("flowedit", {"n-max": "auto", "n_min": "2", "paired": "false", "target-guidance": "7.5"})
    assert editor == FlowEdit(n_min=2, paired=False, target_guidance=7.5)
