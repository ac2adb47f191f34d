"""FlowEdit: no inversion; walk straight from the source to the result along a difference of two velocities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from ..options import OptionError, check, option
from ..solvers.base import Solver, walk
from .base import Edit, Editor, Noise, Request
from .path import followed, walk_inside

Velocities = Callable[[Tick, Tensor, Tensor], tuple[Tensor, Tensor]]

SHARE = 24 / 28
"""The paper's share of steps that FLUX edits with: n_max = 24 of 28."""


@dataclass(frozen=True)
class FlowEdit(Editor):
    """Kulikov et al. 2024 (arXiv 2412.08629), over any solver.

    Walks z from the source x along dz/dt = mean over draws n of
    [v(t, z + t (n - x) | target) - v(t, (1 - t) x + t n | source)], from step n_max down to step n_min + 1, counted from the
    image end; source and target share the noise, and all evaluations of a step share its draws. If n_min > 0, z is then noised
    once more and the last n_min steps generate with the target prompt. n_max beyond the grid means every step.
    The path holds z; in the last n_min steps, the state without the noise that it was given.
    With a mask, z moves inside of it only, and in the last n_min steps the source, noised by the same draw, stays outside.
    Raises OptionError for options out of range and for n_min > n_max; `edit` raises ValueError where the default n_max is
    below n_min.
    """

    takes_mask: ClassVar[bool] = True
    n_max: int | None = option(None, "first step edited, counted from the image end; 24/28 of the steps if none", low=0)
    n_min: int = option(0, "last steps that only generate with the target prompt", low=0)
    n_avg: int = option(1, "noise draws averaged in a step", low=1)
    source_guidance: float = option(1.5, "guidance of the source prompt")
    target_guidance: float = option(5.5, "guidance of the target prompt")
    paired: bool = option(True, "evaluate source and target as rows of one network call")

    def __post_init__(self) -> None:
        check(self)
        if self.n_max is not None and self.n_min > self.n_max:
            raise OptionError(f"FlowEdit.n_min must not exceed n_max, got n_min={self.n_min} and n_max={self.n_max}")

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
        n_max, n_min = self._span(grid.steps)
        latent, path = request.latent, [request.latent]
        if n_max > n_min:
            field, knots = self._difference(model, request, grid, noise), grid.truncated(n_max, n_min)
            step, path = followed(latent, walk(solver, field, latent, knots), keep_path)
            latent = step.x
        if n_min > 0:
            field, knots = model.field(model.condition(request.target, self.target_guidance)), grid.truncated(n_min)
            added = noise(n_min) - request.latent
            noisy = latent + knots.times[0] * added
            walked = walk_inside(solver.generator, field, noisy, knots, request.mask, lambda t: request.latent + t * added)
            step, states = followed(noisy, walked, keep_path)
            latent = step.x
            path += [x - t * added for t, x in zip(knots.times[1:], states[1:], strict=False)]
        return Edit(latent, tuple(path) if keep_path else ())

    def _span(self, steps: int) -> tuple[int, int]:
        """n_max and n_min on a grid of so many steps."""
        n_max = round(steps * SHARE) if self.n_max is None else min(self.n_max, steps)
        n_min = min(self.n_min, steps)
        if n_min > n_max:
            raise ValueError(
                f"n_min={n_min} exceeds n_max={n_max}, the default for {steps} steps; give n_max, or a lower n_min"
            )
        return n_max, n_min

    def _difference(self, model: Model[Any], request: Request, grid: TimeGrid, noise: Noise) -> Field:
        """The field that FlowEdit walks: velocity under the target minus velocity under the source, averaged over draws;
        nothing outside the mask."""
        velocities = self._velocities(model, request)
        latent = request.latent

        def difference(tick: Tick, z: Tensor) -> Tensor:
            number, total = grid.number(tick), torch.zeros_like(z)
            for draw in range(self.n_avg):
                noised = (1 - tick.t) * latent + tick.t * noise(number, draw)
                source, target = velocities(tick, noised, z + noised - latent)
                total += target - source
            mean = total / self.n_avg
            return mean if request.mask is None else request.mask * mean

        return difference

    def _velocities(self, model: Model[Any], request: Request) -> Velocities:
        """(tick, source state, target state) -> the velocity of each under its own prompt, in one call or in two."""
        source = model.condition(request.source, self.source_guidance)
        target = model.condition(request.target, self.target_guidance)
        if not self.paired:
            first, second = model.field(source), model.field(target)
            return lambda tick, x, y: (first(tick, x), second(tick, y))
        both = model.field(source.joined(target))

        def one_call(tick: Tick, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            velocity = both(tick, torch.cat((x, y)))
            return velocity[: len(x)], velocity[len(x) :]

        return one_call
