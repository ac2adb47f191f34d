"""What an editor may ask of a solver, found by watching one walk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ode import Tick, TimeGrid
from ..solvers.base import Solver, integrate


def require_euler(solver: Solver[Any], method: str) -> None:
    """Raise ValueError unless `solver` evaluates once a step, where the step starts, as Euler does: for updates that are no
    rate of change."""
    if solver.order > 1 or set(_nodes(solver)) != {0.0}:
        raise ValueError(f"{method} is made of Euler steps, and {type(solver).__name__} takes others; use the solver euler")


def refuse_ends(solver: Solver[Any], method: str) -> None:
    """Raise ValueError if `solver` evaluates where a step ends: for fields that have no value at the end of a walk."""
    if 1.0 in _nodes(solver):
        raise ValueError(
            f"the field of {method} has no value at the end of its last step, where {type(solver).__name__} evaluates it; "
            "use euler, midpoint, fireflow or another solver that does not"
        )


def _nodes(solver: Solver[Any]) -> list[float]:
    """Where in its step (0 to 1) every evaluation of a short walk lies."""
    nodes: list[float] = []

    def still(tick: Tick, x: Tensor) -> Tensor:
        nodes.append(tick.node)
        return torch.zeros_like(x)

    integrate(solver, still, torch.zeros(1), TimeGrid.uniform(4))
    return nodes
