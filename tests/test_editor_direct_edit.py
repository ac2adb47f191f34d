"""DirectEdit: its exact way back, and where it leads with other prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.direct_edit import DirectEdit
from fe.editors.inversion import Inversion
from fe.experiments.meter import metered
from fe.experiments.names import build_editor
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from fe.solvers.euler import Euler
from fe.solvers.rk4 import RungeKutta4
from torch import Tensor

CASES = MixtureCases(points=100).take(2)
LATENT = torch.stack([case.picture for case in CASES]).double()
PICTURES = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def run(editor: Any, steps: int, target: str = "target", solver: Any = None) -> Edit:
    model = MixtureModel()
    request = Request(LATENT, ("source",) * 2, (target,) * 2)
    noise = KeyedNoise(0, tuple(case.id for case in CASES), LATENT)
    edit: Edit = editor.edit(model, request, solver or Euler(), model.grid(steps, LATENT.shape), noise, keep_path=True)
    return edit


@pytest.mark.parametrize("told", ["low", "high"])
@pytest.mark.parametrize("steps", [3, 30])
def test_equal_prompts_give_the_source_back(told: str, steps: int) -> None:
    edit = run(DirectEdit(told=told, target_guidance=1.0), steps, target="source")
    assert (edit.latent - LATENT).abs().max() < 1e-12
    for state in edit.path:
        torch.testing.assert_close(state, LATENT, atol=1e-12, rtol=0)
    assert (run(Inversion.reconstruction(), steps, target="source").latent - LATENT).abs().max() > 1e-2


def test_equal_prompts_give_the_source_back_on_a_network(tiny_pipeline: Callable[..., Any]) -> None:
    model = FluxModel(tiny_pipeline(guided=True))
    request = Request(PICTURES, ("a red star",) * 2, ("a red star",) * 2)
    editor = DirectEdit(source_guidance=3.5, target_guidance=3.5)
    with torch.no_grad():
        edit = editor.edit(model, request, Euler(), model.grid(8, PICTURES.shape), KeyedNoise(0, ("a", "b"), PICTURES))
    assert (edit.latent - PICTURES).abs().max() < 2e-6


@pytest.mark.parametrize("told", ["low", "high"])
def test_it_converges_to_editing_by_inversion_at_first_order(told: str) -> None:
    """In the median of the points: one between two modes may go either way."""
    exact = run(Inversion(target_guidance=1.0), 250, solver=RungeKutta4()).latent
    editor = DirectEdit(told=told, target_guidance=1.0)
    errors = [float((run(editor, steps).latent - exact).norm(dim=-1).median()) for steps in (200, 400)]
    assert 1.8 < errors[0] / errors[1] < 2.2


def test_constant_velocities(constant_model: Callable[..., Any]) -> None:
    velocities = {"s": torch.full((4, 4, 4), 2.0), "t": torch.full((4, 4, 4), -1.5)}
    model, latent = constant_model(velocities), torch.zeros(1, 4, 4, 4)
    request, noise = Request(latent, ("s",), ("t",)), KeyedNoise(0, ("a",), latent)
    edit = DirectEdit().edit(model, request, Euler(), model.grid(7, latent.shape), noise)
    torch.testing.assert_close(edit.latent, torch.full_like(latent, 3.5))


def test_what_the_network_is_told(tiny_pipeline: Callable[..., Any]) -> None:
    model = FluxModel(tiny_pipeline(guided=True))
    grid, latent = model.grid(3, PICTURES.shape), PICTURES[:1]
    request = Request(latent, ("a red star",), ("a red heart",))
    for told, knots in (("low", grid.times[1:]), ("high", grid.times[:-1])):
        times: list[float] = []

        def listen(module: object, inputs: object, asked: dict[str, Tensor], times: list[float] = times) -> None:
            times.append(float(asked["timestep"]))

        handle = model.network.register_forward_pre_hook(listen, with_kwargs=True)
        with torch.no_grad():
            DirectEdit(told=told).edit(model, request, Euler(), grid, KeyedNoise(0, ("a",), latent))
        handle.remove()
        assert times == pytest.approx([*knots[::-1], *knots], abs=1e-6)


def test_cost_and_n_max() -> None:
    for editor, rows in ((DirectEdit(target_guidance=1.0), 24), (DirectEdit(target_guidance=1.0, n_max=5), 10)):
        model = MixtureModel()
        request = Request(LATENT[:1], ("source",), ("target",))
        with metered(model.network) as meter:
            editor.edit(model, request, Euler(), model.grid(12, LATENT.shape), KeyedNoise(0, ("a",), LATENT))
        assert meter.calls == meter.rows == rows
    assert torch.equal(
        run(DirectEdit(target_guidance=1.0, n_max=40), 12).latent, run(DirectEdit(target_guidance=1.0), 12).latent
    )


def test_options() -> None:
    assert build_editor("direct-edit", {"told": "high", "n-max": "20"}) == DirectEdit(told="high", n_max=20)
    with pytest.raises(OptionError, match="told must be one of low, high, got 'middle'"):
        DirectEdit(told="middle")
