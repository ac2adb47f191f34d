"""One half of editing by inversion, alone: a picture to noise, or noise to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..models.base import Model
from ..ode import TimeGrid
from ..solvers.base import Solver, integrate
from .base import Edit, Editor, Noise, Request


@dataclass(frozen=True)
class OneWay(Editor):
    """Walks the request's latent along the velocity under the source prompt at one guidance: with `up` to noise, else from
    noise with the partner that the solver names for generating. The target prompt and the mask are not looked at."""

    up: bool
    guidance: float

    def edit(
        self,
        model: Model[Any],
        request: Request,
        solver: Solver[Any],
        grid: TimeGrid,
        noise: Noise,
        *,
        keep_path: bool = False,
    ) -> Edit:
        field = model.field(model.condition(request.source, self.guidance))
        walker, knots = (solver, grid.reversed()) if self.up else (solver.generator, grid)
        return Edit(integrate(walker, field, request.latent, knots).x)
