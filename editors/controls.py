"""Control rows: what no editing and what plain generation give, to read every other result against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver, integrate
from .base import Edit, Editor, Noise, Request


@dataclass(frozen=True)
class NoEdit(Editor):
    """The source itself: everything kept, nothing changed, at no cost. Decoded, it is the codec's round trip."""

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
        return Edit(request.latent, (request.latent,) if keep_path else ())


@dataclass(frozen=True)
class FromNoise(Editor):
    """Plain generation with the target prompt from fresh noise: everything asked for, nothing of the source.

    There is no path, as it does not start at the source. The noise is that of the step numbered `grid.steps`, the one at the
    noise end. Sources that `fe generate --prompts` drew started from draw 0 of it, so generation from there is editing with
    the noise known; other draws owe nothing to them. Raises OptionError for a guidance that is not finite, or a draw below 0.
    """

    target_guidance: float = option(3.5, "guidance while generating")
    draw: int = option(0, "which draw of the noise; 0 is the one that drawn sources came from", low=0)

    def __post_init__(self) -> None:
        check(self)

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
        target = model.field(model.condition(request.target, self.target_guidance))
        start = model.start(grid.times[0], noise(grid.steps, self.draw))
        return Edit(integrate(solver.generator, target, start, grid).x)
