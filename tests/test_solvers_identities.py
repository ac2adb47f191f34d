"""What mathematics says must hold between solvers, and between a walk and the walk back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fe.ode import Field, Tick, TimeGrid
from fe.registry import SOLVERS
from fe.solvers.ab2 import AdamsBashforth2, Past
from fe.solvers.base import Solver, integrate, walk
from fe.solvers.fireflow import FireFlow
from fe.solvers.flows import FLOWS, Flow
from fe.solvers.midpoint import Midpoint
from fe.solvers.rf_solver import RFSolver
from torch import Tensor

torch.set_num_threads(1)
SHIFTED = TimeGrid(tuple(3 * s / (1 + 2 * s) for s in [i / 16 for i in range(16, -1, -1)]))
all_flows = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
all_solvers = pytest.mark.parametrize("name", list(SOLVERS))


def starts(flow: Flow, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(flow.starts, dtype=dtype)


def along(flow: Flow) -> Field:
    return lambda tick, x: flow.slope(tick.t, x)


def round_trip(solver: Solver[Any], flow: Flow, x: Tensor, rising: TimeGrid, *, carry: bool) -> float:
    """Invert with `solver`, generate with its partner; the largest error relative to max |x|."""
    there = integrate(solver, along(flow), x, rising)
    back = integrate(solver.generator, along(flow), there.x, rising.reversed(), there.state if carry else None)
    return float((back.x - x).abs().max() / x.abs().max())


@all_flows
@pytest.mark.parametrize("grid", [SHIFTED, SHIFTED.reversed()], ids=["falling", "rising"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_rf_solver_is_the_midpoint_method(flow: Flow, grid: TimeGrid, dtype: torch.dtype, bound: float) -> None:
    x = starts(flow, dtype)
    one = integrate(RFSolver(), along(flow), x, grid).x
    other = integrate(Midpoint(), along(flow), x, grid).x
    assert (one - other).abs().max() / other.abs().max() < bound


@all_flows
@pytest.mark.parametrize("falling", [True, False])
def test_fireflow_evaluates_where_ab2_walks_on_the_half_shifted_grid(flow: Flow, falling: bool) -> None:
    """Its points y_n = x_n + h/2 v at the middles of the steps are the two-step Adams-Bashforth walk over those middles, whose
    past is the first velocity f(t_0, x_0), taken to lie half a step before t_0."""
    grid = TimeGrid.uniform(32) if falling else TimeGrid.uniform(32).reversed()
    met: list[tuple[float, Tensor]] = []

    def field(tick: Tick, x: Tensor) -> Tensor:
        met.append((tick.t, x))
        velocity: Tensor = flow.slope(tick.t, x)
        return velocity

    integrate(FireFlow(), field, starts(flow), grid)
    middles = met[1:]
    past = Past(grid.times[0] + (1 / 64 if falling else -1 / 64), flow.slope(*met[0]))
    walked = walk(AdamsBashforth2(), along(flow), middles[0][1], TimeGrid(tuple(t for t, _ in middles)), past)
    for step, (_, point) in zip(walked, middles[1:], strict=True):
        assert (step.x - point).abs().max() <= 2e-15 * max(1.0, float(point.abs().max()))


@all_flows
@pytest.mark.parametrize("steps", [16, 32, 128])  # with 8, reversible-heun leaves the positive quadrant of Lotka-Volterra
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["alf", "reversible-heun"])
def test_reversible_solvers_return_exactly(name: str, dtype: torch.dtype, bound: float, steps: int, flow: Flow) -> None:
    rising = TimeGrid.uniform(steps, 0.0, 1.0)
    assert round_trip(SOLVERS[name](), flow, starts(flow, dtype), rising, carry=True) < bound


@pytest.mark.parametrize("name", ["alf", "reversible-heun"])
def test_the_exact_return_needs_the_state(name: str) -> None:
    rising = TimeGrid.uniform(16, 0.0, 1.0)
    assert round_trip(SOLVERS[name](), FLOWS[0], starts(FLOWS[0]), rising, carry=False) > 1e-6


@all_solvers
@all_flows
def test_reversed_time_is_the_negative_flow(name: str, flow: Flow) -> None:
    """Walking f down from 1 to 0 is walking -f(1 - t) up from 0 to 1: no solver may prefer a direction."""
    falling = TimeGrid((1.0, 0.875, 0.75, 0.5, 0.125, 0.0))  # exact in binary, so that 1 - t is
    rising = TimeGrid(tuple(1 - t for t in falling.times))
    down = integrate(SOLVERS[name](), along(flow), starts(flow), falling).x
    up = integrate(SOLVERS[name](), lambda tick, x: -flow.slope(1 - tick.t, x), starts(flow), rising).x
    assert (down - up).abs().max() < 1e-13


@all_flows
@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("euler", 1),
        ("uni-inv", 2),
        ("fixed-point", 3),
        ("midpoint", 3),
        ("rf-solver", 3),
        ("heun", 3),
        ("fireflow", 3),
        ("ab2", 3),
        ("rk4", 5),
    ],
)
def test_order_of_the_round_trip_is_not_the_solvers_order(name: str, order: int, flow: Flow) -> None:
    """There and back without memory, uni-inv's and fixed-point's way back being Euler's: part of the error of the way out is
    undone; by fixed-point, one order for each of its 3 sweeps."""
    coarse, fine = (
        round_trip(SOLVERS[name](), flow, starts(flow), TimeGrid.uniform(steps, 0.0, 1.0), carry=False) for steps in (128, 256)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@all_solvers
def test_a_walk_in_two_parts_is_the_whole_walk(name: str) -> None:
    """The state carries everything: to stop and to go on changes no bit."""
    solver, flow = SOLVERS[name](), FLOWS[2]
    whole = integrate(solver, along(flow), starts(flow), SHIFTED)
    half = integrate(solver, along(flow), starts(flow), TimeGrid(SHIFTED.times[:7]))
    rest = integrate(solver, along(flow), half.x, TimeGrid(SHIFTED.times[6:]), half.state)
    assert torch.equal(rest.x, whole.x)


@all_solvers
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    solver, flow = SOLVERS[name](), FLOWS[2]
    together = integrate(solver, along(flow), starts(flow), SHIFTED).x
    alone = torch.cat([integrate(solver, along(flow), row[None], SHIFTED).x for row in starts(flow)])
    assert (together - alone).abs().max() < 1e-13
