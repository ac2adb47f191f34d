"""FlowAlign: FlowEdit's direct path, guided away from the source prompt and held to the source at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver, Step
from .base import Edit, Editor, Noise, Request
from .path import followed
from .steps import require_euler


@dataclass(frozen=True)
class FlowAlign(Editor):
    """Kim et al. 2025 (arXiv 2505.23145), by Euler steps.

    Walks z from the source x. In each step, with one draw n: q = (1 - t) x + t n, p = q + z - x,
    d = v(p | source) + guidance [v(p | target) - v(p | source)] - v(q | source), and z moves by h d + pull [t d - (z - x)]: the
    bracket is the difference between the pictures that q and p are predicted to become. It acts once a step whatever the
    step's length, so it is tied to the number of steps, and no solver but Euler will do. The prompts are read at the model's
    guidance 1: `guidance` takes the place of classifier-free guidance, with the source prompt for the empty one.
    Three rows a step, in one call. The path holds z. With a mask, z moves inside of it only.
    Raises OptionError for options out of range; `edit` raises ValueError for another solver than Euler.
    """

    takes_mask: ClassVar[bool] = True
    guidance: float = option(13.5, "scale of the target's velocity away from the source's")
    pull: float = option(0.01, "weight of what holds the result to the source, once a step")
    n_max: int | None = option(
        None, "first step edited, counted from the image end; all if none, or more than there are", low=1
    )

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
        require_euler(solver, "FlowAlign")
        step, path = followed(request.latent, self._walk(model, request, grid.last(self.n_max), noise), keep_path)
        return Edit(step.x, tuple(path) if keep_path else ())

    def _walk(self, model: Model[Any], request: Request, grid: TimeGrid, noise: Noise) -> Iterator[Step[None]]:
        source, z = request.latent, request.latent
        described, asked = model.condition(request.source, 1.0), model.condition(request.target, 1.0)
        prompts = asked.joined(described).joined(described)
        for number, (t0, t1) in zip(range(grid.steps, 0, -1), grid.intervals(), strict=True):
            q = (1 - t0) * source + t0 * noise(number)
            p = q + (z - source)
            v_target, v_source, v_still = model.velocity(t0, torch.cat((p, p, q)), prompts).chunk(3)
            d = v_source + self.guidance * (v_target - v_source) - v_still
            move = (t1 - t0) * d + self.pull * (t0 * d - (z - source))
            z = z + (move if request.mask is None else request.mask * move)
            yield Step(z, None)
