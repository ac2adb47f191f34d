"""The examination of a solver, built in or plugged in: does it do what it declares, and keep nothing to itself?

Every check measures; none reads the solver's formula. The exact answers come from SciPy's DOP853 at its tightest tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ..ode import Field, Slope, Tick, TimeGrid
from .base import Solver, Step, integrate, walk
from .flows import FLOWS, Flow

TOLERANCE = 0.15
"""How far a measured order may lie from the declared one."""

_ROUNDING = 3e-13  # errors below this, relative to the solution, are rounding and of the reference's own size


@dataclass(frozen=True)
class Finding:
    """One line of a report: what was examined, what was measured, what was wanted, and whether they agree."""

    name: str
    measured: str
    wanted: str
    passed: bool


Outcome = tuple[str, str, bool]  # measured, wanted, passed


@torch.no_grad()
def examine(solver: Solver[Any]) -> tuple[Finding, ...]:
    """Examine `solver` in a few seconds on one core. A check that the solver breaks with an exception is a failed finding."""
    return tuple(_finding(name, check, solver) for name, check in _checks())


def _checks() -> Iterator[tuple[str, Callable[[Solver[Any]], Outcome]]]:
    for flow in FLOWS:
        yield f"global order, {flow.name}", partial(_global_order, flow, _even, 1.0, 0.0)
    for flow in FLOWS:
        yield f"global order, {flow.name}, uneven steps", partial(_global_order, flow, _uneven, 0.0, 1.0)
    yield "local order", _local_order
    yield "evaluations", _evaluations
    yield "evaluates inside its step", _inside
    yield "runs do not meet", _isolation
    yield "exact on a straight flow", _straight
    yield "reversal, float64", partial(_reversal, torch.float64, 1e-12)
    yield "reversal, float32", partial(_reversal, torch.float32, 1e-5)
    yield "keeps float32 and shape", _dtype


def _finding(name: str, check: Callable[[Solver[Any]], Outcome], solver: Solver[Any]) -> Finding:
    try:
        return Finding(name, *check(solver))
    except Exception as fault:  # a plug-in may fail in any way; the other checks must go on
        return Finding(name, f"{type(fault).__name__}: {fault}", "no exception", False)


def _global_order(
    flow: Flow, grid: Callable[[int, float, float], TimeGrid], start: float, end: float, solver: Solver[Any]
) -> Outcome:
    """The slope of log error against log steps, at the finest steps (up to 1024) whose error is not rounding."""
    exact = _solution(flow, start, end)

    def error(steps: int) -> float:
        walked = integrate(solver, _field(flow.slope), _starts(flow), grid(steps, start, end)).x
        return float((walked - exact).norm() / exact.norm())

    return _order(error, [1024, 512, 256, 128, 64, 32], solver.order)


def _local_order(solver: Solver[Any]) -> Outcome:
    """The same for the error that three steps leave, a start and two that carry their state: one order above the global. (Of
    two, the second may happen to undo what the first does: Euler's step and then one of implicit Euler.)"""
    flow, start = FLOWS[0], 0.25

    def error(steps: int) -> float:
        grid = TimeGrid.uniform(3, start, start + 3 / steps)
        exact = _solution(flow, start, grid.times[-1])
        return float((integrate(solver, _field(flow.slope), _starts(flow), grid).x - exact).norm() / exact.norm())

    return _order(error, [2048, 1024, 512, 256, 128, 64, 32], solver.order + 1)


def _order(error: Callable[[int], float], steps: list[int], wanted: int) -> Outcome:
    slope = math.nan
    for count in steps:
        fine = error(count)
        if fine > _ROUNDING:
            slope = math.log2(error(count // 2) / fine)
            break
    return f"{slope:.3f}", f"{wanted} +- {TOLERANCE}", abs(slope - wanted) <= TOLERANCE


def _evaluations(solver: Solver[Any]) -> Outcome:
    """Counted against declared for runs of several lengths."""
    lengths = (1, 2, 3, 8, 21)
    counted = [len(_ticks(solver, TimeGrid.uniform(steps))) for steps in lengths]
    declared = [solver.nfe(steps) for steps in lengths]
    steps = ", ".join(map(str, lengths))
    return ", ".join(map(str, counted)), f"{', '.join(map(str, declared))} in {steps} steps", counted == declared


def _inside(solver: Solver[Any]) -> Outcome:
    """A model knows no time outside [0, 1], and attention features are paired by the place in the step."""
    ticks = [tick for grid in (_uneven(8, 0.0, 1.0), _uneven(8, 1.0, 0.0)) for tick in _ticks(solver, grid)]
    slack = 1e-12  # t0 + h may miss t1 by a rounding
    outside = sum(not tick.interval[0] - slack <= tick.t <= tick.interval[1] + slack for tick in ticks)
    return f"{outside} of {len(ticks)} outside", "0 outside", outside == 0


def _isolation(solver: Solver[Any]) -> Outcome:
    """Runs one after the other, side by side, and continued twice from one state give the same bits."""
    field, grid = _field(FLOWS[2].slope), _uneven(8, 1.0, 0.0)
    first, second = _starts(FLOWS[2]), _starts(FLOWS[2]).flip(0) + 0.25
    kept = first.clone()
    alone = [list(walk(solver, field, x, grid)) for x in (first, second)]
    beside = list(zip(walk(solver, field, first, grid), walk(solver, field, second, grid), strict=True))
    middle, rest = alone[0][3], TimeGrid(grid.times[4:])
    twice = [integrate(solver, field, middle.x, rest, middle.state) for _ in range(2)]
    faults = {
        "its input is changed": not torch.equal(first, kept),
        "runs side by side differ": not all(_same(alone[run], [pair[run] for pair in beside]) for run in (0, 1)),
        "a run continued from its state differs": not all(_same([alone[0][-1]], [step]) for step in twice),
        "a second run differs": not _same(alone[0], list(walk(solver, field, first, grid))),
    }
    found = [fault for fault, seen in faults.items() if seen]
    return "; ".join(found) or "the same bits", "the same bits", not found


def _straight(solver: Solver[Any]) -> Outcome:
    """Constant velocity: any consistent method is exact, in one step and in several."""
    x, velocity = _starts(FLOWS[2]), torch.tensor([0.75, -1.5], dtype=torch.float64)
    errors = []
    for times in ((1.0, 0.0), (0.0, 1.0), (0.9, 0.7, 0.1, 0.05)):
        walked = integrate(solver, lambda tick, y: velocity.expand_as(y), x, TimeGrid(times)).x
        errors.append(_relative(walked, x + (times[-1] - times[0]) * velocity))
    return f"{max(errors):.1e}", "< 1e-14", max(errors) < 1e-14


def _reversal(dtype: torch.dtype, bound: float, solver: Solver[Any]) -> Outcome:
    """There and back over the same knots with the state carried, relative to max |x|; the worst of all flows."""
    grid, errors = _uneven(32, 0.0, 1.0), []
    for flow in FLOWS:
        start = _starts(flow).to(dtype)
        there = integrate(solver, _field(flow.slope), start, grid)
        back = integrate(solver, _field(flow.slope), there.x, grid.reversed(), there.state)
        errors.append(_relative(back.x, start))
    wanted = f"< {bound:g}" if solver.reversible else "not claimed"
    return f"{max(errors):.1e}", wanted, not solver.reversible or max(errors) < bound


def _dtype(solver: Solver[Any]) -> Outcome:
    """float32 comes back as float32 in the same shape, and the slope never meets anything else."""
    seen = set()

    def field(tick: Tick, x: Tensor) -> Tensor:
        seen.add((x.dtype, x.shape))
        return torch.cos(x) * tick.t

    x = torch.ones(2, 3, 4, dtype=torch.float32)
    seen |= {(step.x.dtype, step.x.shape) for step in walk(solver, field, x, TimeGrid.uniform(3))}
    text = " and ".join(sorted(f"{dtype} {tuple(shape)}" for dtype, shape in seen))
    return text.replace("torch.", ""), "float32 (2, 3, 4)", seen == {(x.dtype, x.shape)}


def _even(steps: int, start: float, end: float) -> TimeGrid:
    return TimeGrid.uniform(steps, start, end)


def _uneven(steps: int, start: float, end: float) -> TimeGrid:
    """Short and long steps in turn (1 : 2), which no smooth change of time makes even. `steps` is even."""
    knots = [index // 2 * 3 + index % 2 for index in range(steps + 1)]
    return TimeGrid(tuple(start + (end - start) * knot / knots[-1] for knot in knots))


@cache
def _solution(flow: Flow, start: float, end: float) -> Tensor:
    """The flow's exact end points (P, 2) float64, to about 1e-13."""
    starts = _starts(flow)

    def slope(t: float, y: Any) -> Any:
        return flow.slope(t, torch.as_tensor(y).reshape(starts.shape)).flatten().numpy()

    run = solve_ivp(slope, (start, end), starts.flatten().numpy(), method="DOP853", rtol=3e-14, atol=1e-15)
    return torch.as_tensor(run.y[:, -1]).reshape(starts.shape)


def _starts(flow: Flow) -> Tensor:
    return torch.tensor(flow.starts, dtype=torch.float64)


def _field(slope: Slope) -> Field:
    return lambda tick, x: slope(tick.t, x)


def _ticks(solver: Solver[Any], grid: TimeGrid) -> list[Tick]:
    """Every evaluation that a run over `grid` makes."""
    ticks = []

    def field(tick: Tick, x: Tensor) -> Tensor:
        ticks.append(tick)
        return -x

    integrate(solver, field, torch.ones(1, dtype=torch.float64), grid)
    return ticks


def _same(run: list[Step[Any]], other: list[Step[Any]]) -> bool:
    return all(torch.equal(a.x, b.x) for a, b in zip(run, other, strict=True))


def _relative(x: Tensor, exact: Tensor) -> float:
    return float((x - exact).abs().max() / exact.abs().max())
