"""Every solver against answers worked out by hand: what its formula gives on a linear flow and on a pure quadrature."""

from __future__ import annotations

import pytest
import torch
from fe.ode import TimeGrid
from fe.registry import SOLVERS
from fe.solvers.base import integrate

# Two steps of size h on dx/dt = a x from x = 1 give a polynomial in z = a h: its coefficients, constant first.
GROWTH = {
    "euler": (1, 2, 1),
    "midpoint": (1, 2, 2, 1, 1 / 4),
    "heun": (1, 2, 2, 1, 1 / 4),
    "rf-solver": (1, 2, 2, 1, 1 / 4),
    "rk4": (1, 2, 2, 4 / 3, 2 / 3, 1 / 4, 5 / 72, 1 / 72, 1 / 576),
    "fireflow": (1, 2, 2, 3 / 4),
    "ab2": (1, 2, 2, 3 / 4),
    "uni-inv": (1, 2, 3, 2),
    "alf": (1, 2, 2, 1),
    "reversible-heun": (1, 2, 2, 1),
    "fixed-point": (1, 2, 3, 4, 3, 2, 1),
}
# The integral of t^2 from 0 to 1 (1/3) by two steps of 1/2: which times a method looks at, and with what weights.
QUADRATURE = {
    "euler": 1 / 8,
    "midpoint": 5 / 16,
    "heun": 3 / 8,
    "rf-solver": 5 / 16,
    "rk4": 1 / 3,
    "fireflow": 5 / 16,
    "ab2": 1 / 4,
    "uni-inv": 5 / 8,
    "alf": 5 / 16,
    "reversible-heun": 3 / 8,
    "fixed-point": 5 / 8,
}


def test_every_built_in_has_its_answer() -> None:
    assert set(GROWTH) == set(QUADRATURE) == set(SOLVERS.builtin)


@pytest.mark.parametrize("rate", [-1.0, 0.6, 2.5])
@pytest.mark.parametrize("grid", [TimeGrid.uniform(2), TimeGrid.uniform(2, 0.25, 0.75)], ids=["falling", "rising"])
@pytest.mark.parametrize("name", GROWTH)
def test_growth_on_a_linear_flow(name: str, grid: TimeGrid, rate: float) -> None:
    z = rate * (grid.times[1] - grid.times[0])
    expected = sum(coefficient * z**power for power, coefficient in enumerate(GROWTH[name]))
    walked = integrate(SOLVERS[name](), lambda tick, x: rate * x, torch.ones(1, dtype=torch.float64), grid)
    assert walked.x.item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", QUADRATURE)
def test_quadrature_of_a_square(name: str) -> None:
    start = torch.zeros(1, dtype=torch.float64)
    walked = integrate(SOLVERS[name](), lambda tick, x: torch.full_like(x, tick.t**2), start, TimeGrid.uniform(2, 0.0, 1.0))
    assert walked.x.item() == pytest.approx(QUADRATURE[name], rel=1e-14)


def test_ab2_integrates_a_line_exactly_over_uneven_steps() -> None:
    """Its weights follow from the line through the last two velocities, whatever the ratio of the steps."""
    start, grid = torch.zeros(1, dtype=torch.float64), TimeGrid((0.9, 0.85, 0.3, 0.29, 0.0))
    walked = integrate(SOLVERS["ab2"](), lambda tick, x: torch.full_like(x, 4 * tick.t - 1), start, grid)
    assert walked.x.item() == pytest.approx(-(2 * 0.9**2 - 0.9), rel=1e-14)


@pytest.mark.parametrize("name", SOLVERS.builtin)
def test_generator_is_the_solver_itself_except_for_those_that_invert(name: str) -> None:
    solver = SOLVERS[name]()
    assert solver.generator == (SOLVERS["euler"]() if name in ("uni-inv", "fixed-point") else solver)
