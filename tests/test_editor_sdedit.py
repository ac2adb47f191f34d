"""SDEdit: the public code's numbers, and the two editors that it is a part of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, KeyedNoise, Request
from fe.editors.controls import FromNoise
from fe.editors.flowedit import FlowEdit
from fe.editors.sdedit import SDEdit
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.metrics.path import straightness
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from fe.solvers.euler import Euler
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]

CASES = MixtureCases(points=100).take(2)
LATENT = torch.stack([case.picture for case in CASES])


def run(editor: Editor, solver: str, steps: int = 12, asked: list[int] | None = None) -> tuple[Edit, Meter]:
    model, drawn = MixtureModel(), KeyedNoise(0, tuple(case.id for case in CASES), LATENT)

    def noise(step: int, draw: int = 0) -> Tensor:
        if asked is not None:
            asked.append(step)
        return drawn(step, draw)

    request = Request(LATENT, ("source",) * 2, ("target",) * 2)
    with metered(model.network) as meter:
        edit = editor.edit(model, request, build_solver(solver), model.grid(steps, LATENT.shape), noise, keep_path=True)
    return edit, meter


def test_the_public_code(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("falign_sdedit")
    settings, latent = case["settings"], tensors["x_src"]
    model = embedded(case["model"], tensors)
    editor = SDEdit(settings["n_start"] / settings["NFE"], settings["cfg"])
    grid, noise = model.grid(settings["NFE"], latent.shape), tensors["noise"][0]
    with metered(model.network) as meter, torch.no_grad():
        edit = editor.edit(
            model, Request(latent, ("src",), ("tar",)), Euler(), grid, lambda step, draw=0: noise, keep_path=True
        )
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    assert meter.rows == case["nfe"]["batch_rows"]
    walked = zip(grid.times[-len(edit.path) :], edit.path, tensors["traj"][-len(edit.path) :], strict=True)
    for t, state, expected in list(walked)[1:]:  # the record has the source where the walk starts
        torch.testing.assert_close(state + t * (noise - latent), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni-inv"])
def test_strength_1_is_generation_from_noise(solver: str) -> None:
    edit, meter = run(SDEdit(1.0, 1.0), solver)
    fresh, spent = run(FromNoise(1.0), solver)
    assert torch.equal(edit.latent, fresh.latent)
    assert (meter.calls, meter.rows) == (spent.calls, spent.rows)


@pytest.mark.parametrize(("strength", "steps"), [(0.25, 3), (0.5, 6), (0.75, 9), (0.65, 8)])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_it_is_the_last_phase_of_flowedit(solver: str, strength: float, steps: int) -> None:
    edit, meter = run(SDEdit(strength, 1.0), solver)
    phase, _ = run(FlowEdit(n_max=steps, n_min=steps, source_guidance=1.0, target_guidance=1.0), solver)
    torch.testing.assert_close(edit.latent, phase.latent, atol=1e-4, rtol=0)
    assert meter.calls == build_solver(solver).nfe(steps)
    assert (edit.latent - LATENT).abs().max() > 0.1


def test_strength_0_is_the_source_at_no_cost() -> None:
    edit, meter = run(SDEdit(0.0, 1.0), "euler")
    assert torch.equal(edit.latent, LATENT)
    assert meter.calls == 0


def test_one_draw_serves_the_whole_edit() -> None:
    asked: list[int] = []
    run(SDEdit(0.75, 1.0), "midpoint", asked=asked)
    assert asked == [9]


def test_the_path_leads_from_the_source_to_the_result_without_noise() -> None:
    edit, _ = run(SDEdit(0.5, 1.0), "euler")
    assert len(edit.path) == 7
    torch.testing.assert_close(edit.path[0], LATENT, atol=1e-5, rtol=0)
    assert torch.equal(edit.path[-1], edit.latent)
    assert (straightness(edit.path) < 2.0).all()  # a state with its noise left in would be a jump off the path


def test_options() -> None:
    assert build_editor("sdedit", {"strength": "0.4", "target-guidance": "7"}) == SDEdit(0.4, 7.0)
    with pytest.raises(OptionError, match=r"strength must be from 0 to 1, got 1\.5"):
        SDEdit(1.5)
