"""SDEdit: give the source noise, and generate from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver
from .base import Edit, Editor, Noise, Request
from .path import followed, walk_inside


@dataclass(frozen=True)
class SDEdit(Editor):
    """Meng et al. 2021 (arXiv 2108.01073), over any solver.

    Starts at (1 - t) x + t n, the source x with one draw n of noise, and generates the last steps with the target prompt.
    `strength` is the share of the steps that generate, rounded; t is the time at which they start, which a shifted grid puts
    higher than that share. With strength 1 on a grid from 1 it is plain generation, with 0 the source.
    The noise is the draw numbered as the first of these steps. The path holds the states without the noise they were given.
    With a mask, the source noised by the same draw stays outside. Uses `solver.generator`; costs its evaluations.
    Raises OptionError for options out of range.
    """

    takes_mask: ClassVar[bool] = True
    strength: float = option(0.75, "share of the steps that generate", low=0.0, high=1.0)
    target_guidance: float = option(3.5, "guidance while generating")

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
        latent, steps = request.latent, round(self.strength * grid.steps)
        if steps == 0:
            return Edit(latent, (latent,) if keep_path else ())
        target, knots = model.field(model.condition(request.target, self.target_guidance)), grid.truncated(steps)
        draw = noise(steps)

        def noised(t: float) -> Tensor:
            return (1.0 - t) * latent + t * draw

        start = noised(knots.times[0])
        walked = walk_inside(solver.generator, target, start, knots, request.mask, noised)
        result, states = followed(start, walked, keep_path)
        path = tuple(x - t * (draw - latent) for t, x in zip(knots.times, states, strict=False))
        return Edit(result.x, path if keep_path else ())
