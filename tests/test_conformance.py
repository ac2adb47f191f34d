"""The conformance kit: everything registered passes it, and solvers that are wrong in one way fail in exactly that way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from fe.ode import Slope
from fe.registry import SOLVERS
from fe.solvers.base import Solver, Step
from fe.solvers.conformance import Finding, examine
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow
from fe.solvers.midpoint import Midpoint
from fe.solvers.rk4 import RungeKutta4
from fe.solvers.uni_inv import UniInv
from torch import Tensor

torch.set_num_threads(1)
FLOWS = ("pendulum", "Lotka-Volterra", "mixture")
EVEN = {f"global order, {flow}" for flow in FLOWS}
UNEVEN = {f"global order, {flow}, uneven steps" for flow in FLOWS}
ORDERS = EVEN | UNEVEN | {"local order"}
REVERSAL = {"reversal, float64", "reversal, float32"}


def failed(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.name for finding in findings if not finding.passed}


@pytest.mark.parametrize("name", list(SOLVERS))
def test_everything_registered_passes(name: str) -> None:
    solver = SOLVERS[name]()
    findings = examine(solver)
    assert not [finding for finding in findings if not finding.passed]
    measured = {finding.name: finding.measured for finding in findings}
    for check in EVEN | UNEVEN:
        assert abs(float(measured[check]) - solver.order) <= 0.15
    assert len({finding.name for finding in findings}) == len(findings)


def test_a_solver_passes_with_its_other_options_too() -> None:
    """Without a first velocity, Uni-Inv's first step is Euler's, and the error of the second undoes that of the first."""
    assert not failed(examine(UniInv(first="zero")))


@dataclass(frozen=True)
class Altered(Solver[Any]):  # type: ignore[misc]  # mypy does not follow the installed name `fe`
    """Another solver's step with something changed: the wrong solvers below vary one thing each."""

    inner: Solver[Any] = field(default_factory=Midpoint)
    order: ClassVar[int] = 2

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        return self.inner.step(slope, t0, t1, x, state)

    def nfe(self, steps: int) -> int:
        declared: int = self.inner.nfe(steps)
        return declared


class Overrated(Altered):
    """Euler's method, said to be of second order."""

    def __init__(self) -> None:
        super().__init__(Euler())


class Underrated(Altered):
    """The fourth-order method, said to be of second order."""

    def __init__(self) -> None:
        super().__init__(RungeKutta4())


class Miscounting(Altered):
    """Forgets the evaluation that starts it."""

    def __init__(self) -> None:
        super().__init__(FireFlow())

    def nfe(self, steps: int) -> int:
        return steps


class FalselyReversible(Altered):
    """Says that the midpoint method walks back exactly."""

    reversible: ClassVar[bool] = True


class Forgetful(Altered):
    """FireFlow that keeps its velocity on itself, from run to run."""

    memory: list[Any]

    def __init__(self) -> None:
        super().__init__(FireFlow())
        object.__setattr__(self, "memory", [None])

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        walked = self.inner.step(slope, t0, t1, x, self.memory[0] if state else None)
        self.memory[0] = walked.state
        return Step(walked.x, True)


class Overwriting(Altered):
    """Walks its input in place."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        walked = self.inner.step(slope, t0, t1, x, state)
        return Step(x.copy_(walked.x), None)


class Reusing(Altered):
    """Writes the new velocity over the old one, so that a state cannot be gone on from twice."""

    def __init__(self) -> None:
        super().__init__(FireFlow())

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        walked = self.inner.step(slope, t0, t1, x, state)
        return walked if state is None else Step(walked.x, state.copy_(walked.state))


class Short(Altered):
    """Falls one part in a million short of where it goes."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        return self.inner.step(slope, t0, t0 + (t1 - t0) * (1 - 1e-6), x, state)


class Stretching(Altered):
    """Of second order, but looks beyond its step: nodes 0 and 3/2."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        h = t1 - t0
        v0 = slope(t0, x)
        return Step(x + h / 3 * (2 * v0 + slope(t0 + 1.5 * h, x + 1.5 * h * v0)), None)


class Evenhanded(Altered):
    """Adams-Bashforth with the weights of even steps on every grid."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        v0 = slope(t0, x)
        v = slope((t0 + t1) / 2, x + (t1 - t0) / 2 * v0) if state is None else 1.5 * v0 - 0.5 * state
        return Step(x + (t1 - t0) * v, v0)

    def nfe(self, steps: int) -> int:
        return steps + 1


class Widening(Altered):
    """Answers in float64 whatever it is given."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        return Step(self.inner.step(slope, t0, t1, x, state).x.double(), None)


class OneWay(Altered):
    """Wrong when time falls."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        middle = t0 + abs(t1 - t0) / 2 if t1 > t0 else t0
        return Step(x + (t1 - t0) * slope(middle, x + (t1 - t0) / 2 * slope(t0, x)), None)


class Failing(Altered):
    """Cannot walk up."""

    def step(self, slope: Slope, t0: float, t1: float, x: Tensor, state: Any) -> Step[Any]:
        if t1 > t0:
            raise RuntimeError("I only walk down")
        return self.inner.step(slope, t0, t1, x, state)


@pytest.mark.parametrize(
    ("wrong", "caught"),
    [
        (Overrated, ORDERS),
        (Underrated, ORDERS),
        (Miscounting, {"evaluations"}),
        (FalselyReversible, REVERSAL),
        (Forgetful, {"runs do not meet"}),
        (Reusing, {"runs do not meet"}),
        (Stretching, {"evaluates inside its step"}),
        (Evenhanded, UNEVEN),
        (Widening, {"keeps float32 and shape"}),
        (OneWay, {"global order, mixture"}),
    ],
)
def test_a_wrong_solver_fails_where_it_is_wrong_and_nowhere_else(wrong: Callable[[], Solver[Any]], caught: set[str]) -> None:
    assert failed(examine(wrong())) == caught


@pytest.mark.parametrize(
    ("wrong", "caught"),
    [
        (Overwriting, {"runs do not meet"}),
        (Short, {"exact on a straight flow"} | EVEN | UNEVEN),
    ],
)
def test_a_fault_with_many_faces_is_caught(wrong: Callable[[], Solver[Any]], caught: set[str]) -> None:
    assert caught <= failed(examine(wrong()))


def test_an_exception_is_a_finding_and_the_other_checks_go_on() -> None:
    findings = {finding.name: finding for finding in examine(Failing())}
    assert findings["global order, pendulum"].passed
    assert not findings["global order, pendulum, uneven steps"].passed
    assert findings["global order, pendulum, uneven steps"].measured == "RuntimeError: I only walk down"
    assert findings["evaluations"].passed


def test_faults_of_isolation_are_told_apart() -> None:
    told = {
        wrong: next(finding.measured for finding in examine(wrong()) if finding.name == "runs do not meet")
        for wrong in (Forgetful, Overwriting, Reusing)
    }
    assert "runs side by side differ" in told[Forgetful]
    assert "its input is changed" in told[Overwriting]
    assert told[Reusing] == "a run continued from its state differs"


def test_unclaimed_reversal_is_measured_and_not_held_against_a_solver() -> None:
    finding = next(finding for finding in examine(Midpoint()) if finding.name == "reversal, float64")
    assert finding.wanted == "not claimed"
    assert finding.passed
    assert float(finding.measured) > 1e-6
