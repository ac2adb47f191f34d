"""Error growth on flows whose growth is known: linear ones in closed form, the mixture by its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.inversion import Inversion
from fe.editors.perturbation import Perturbation
from fe.experiments.meter import metered
from fe.experiments.names import build_solver
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from fe.solvers.base import integrate
from torch import Tensor

CASES = MixtureCases(points=12).take(3)
CLOUDS = torch.stack([case.picture for case in CASES]).double()
IDS = tuple(case.id for case in CASES)
PLAIN = Perturbation(target_guidance=1.0)
LATENT = torch.randn(2, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def linear(constant_model: Callable[..., Any]) -> Callable[[dict[str, Tensor]], Any]:
    """A model with the velocity rate * x, entry by entry; every prompt names its rates (C, h, w)."""

    class Linear(type(constant_model({}))):  # type: ignore[misc]
        def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
            rates: Tensor = super().velocity(t, x, condition)
            return rates * x

    return lambda rates: Linear(rates, 1)


def run(model: Any, editor: Any, solver: str, steps: int, request: Request, ids: tuple[str, ...], seed: int = 0) -> Edit:
    noise = KeyedNoise(seed, ids, request.latent)
    grid = model.grid(steps, request.latent.shape)
    edit: Edit = editor.edit(model, request, build_solver(solver), grid, noise)
    return edit


def growth(edit: Edit) -> Tensor:
    figure: Tensor = edit.figures["error-growth"]
    return figure


@pytest.mark.parametrize("rate", [-2.0, 0.5])
def test_growth_of_a_linear_flow(rate: float, linear: Any) -> None:
    model = linear({"source": torch.zeros(1, 2, 3), "target": torch.full((1, 2, 3), rate)})
    request = Request(LATENT, ("source",) * 2, ("target",) * 2)
    coarse = growth(run(model, PLAIN, "euler", 7, request, ("a", "b")))
    torch.testing.assert_close(coarse, torch.full((2,), (1 - rate / 7) ** 7, dtype=torch.float64))
    fine = growth(run(model, PLAIN, "rk4", 40, request, ("a", "b")))  # e^L where the bound is met
    torch.testing.assert_close(fine, torch.full((2,), math.exp(-rate), dtype=torch.float64), rtol=1e-6, atol=0)


def test_growth_is_along_the_keyed_draw_and_by_the_target(linear: Any) -> None:
    rates = torch.tensor([[[-3.0, -1.0, 0.0], [1.0, 0.0, 2.0]]], dtype=torch.float64)
    model = linear({"source": torch.full((1, 2, 3), 0.3), "target": rates, "other": -rates})
    edit = run(model, PLAIN, "euler", 5, Request(LATENT, ("source",) * 2, ("target", "other")), ("a", "b"), seed=4)
    draw = KeyedNoise(4, ("a", "b"), LATENT)(5)
    factors = torch.stack([(1 - rates / 5) ** 5, (1 + rates / 5) ** 5])
    expected = (factors * draw).flatten(1).norm(dim=1) / draw.flatten(1).norm(dim=1)
    torch.testing.assert_close(growth(edit), expected)


def test_growth_on_the_mixture_is_its_derivative() -> None:
    model, solver = MixtureModel(), build_solver("midpoint")
    grid = model.grid(30, CLOUDS.shape)
    source, target = (model.field(model.condition((name,) * 3, 1.0)) for name in ("source", "target"))
    start = integrate(solver, source, CLOUDS, grid.reversed()).x
    draw = KeyedNoise(0, IDS, CLOUDS)(30)
    derivative: Any = torch.autograd.functional.jvp
    _, moved = derivative(lambda x: integrate(solver, target, x, grid).x, start, draw)
    expected = moved.flatten(1).norm(dim=1) / draw.flatten(1).norm(dim=1)
    request = Request(CLOUDS, ("source",) * 3, ("target",) * 3)
    found = growth(run(model, Perturbation(size=1e-5, target_guidance=1.0), "midpoint", 30, request, IDS))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert expected.min() > 2.0


def test_the_size_is_a_share_of_the_noises_norm(constant_model: Callable[..., Any]) -> None:
    model = constant_model({"source": torch.zeros(1, 2, 3), "target": torch.zeros(1, 2, 3)})
    seen: list[Tensor] = []

    def velocity(t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    model.velocity = velocity
    request = Request(LATENT, ("source",) * 2, ("target",) * 2)
    run(model, Perturbation(size=0.25, target_guidance=1.0), "euler", 1, request, ("a", "b"))
    still, moved = seen[-1].chunk(2)
    assert torch.equal(still, LATENT)
    torch.testing.assert_close((moved - still).flatten(1).norm(dim=1), 0.25 * LATENT.flatten(1).norm(dim=1))


@pytest.mark.parametrize("solver", ["euler", "uni-inv", "fireflow"])
def test_the_result_is_that_of_inversion(solver: str) -> None:
    request = Request(CLOUDS, ("source",) * 3, ("target",) * 3)
    ours, theirs = (run(MixtureModel(), editor, solver, 9, request, IDS) for editor in (PLAIN, Inversion(target_guidance=1.0)))
    torch.testing.assert_close(ours.latent, theirs.latent, rtol=1e-9, atol=1e-9)
    assert growth(ours).shape == (3,)


def test_both_walks_back_are_one_batch() -> None:
    model = MixtureModel()
    with metered(model.network) as meter:
        run(model, PLAIN, "euler", 6, Request(CLOUDS, ("source",) * 3, ("target",) * 3), IDS)
    assert (meter.calls, meter.rows) == (12, 6 * 3 + 6 * 6)


def test_a_cases_figure_does_not_depend_on_what_is_beside_it() -> None:
    request = Request(CLOUDS, ("source",) * 3, ("target",) * 3)
    together = growth(run(MixtureModel(), PLAIN, "euler", 9, request, IDS))
    alone = Request(CLOUDS[1:2], ("source",), ("target",))
    torch.testing.assert_close(
        growth(run(MixtureModel(), PLAIN, "euler", 9, alone, IDS[1:2])), together[1:2], rtol=1e-6, atol=0
    )
    assert not torch.equal(growth(run(MixtureModel(), PLAIN, "euler", 9, request, IDS, seed=1)), together)


def test_sizes_out_of_range_are_refused() -> None:
    for size in (0.0, 1e-6, 2.0, math.nan):
        with pytest.raises(OptionError, match=r"Perturbation\.size must be"):
            Perturbation(size=size)
