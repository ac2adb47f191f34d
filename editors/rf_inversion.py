"""RF-Inversion: an inversion that is pulled towards typical noise, and an edit that is pulled back to the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from ..options import OptionError, check, option
from ..solvers.base import Solver, Step, walk
from .base import Edit, Editor, Noise, Request
from .path import followed, noise_free
from .steps import refuse_ends, require_euler


@dataclass(frozen=True)
class RFInversion(Editor):
    """Rout et al. 2024 (arXiv 2410.10792), as in diffusers' community pipeline.

    Up, under the empty prompt: dx/dt = u + gamma ((y - x)/(1 - t) - u), with u the velocity and y one draw of noise.
    Down: dx/dt = v + eta_i ((x - x0)/t - v), with v the velocity under the target and x0 the source. In the steps
    int(start N) to int(stop N) - 1, counted from the noise end, eta_i is eta (1 - i/n)^decay, for the i-th of the n steps
    walked; elsewhere 0.
    `grid`: "published" inverts by the generation's step sizes in the generation's order, and tells the network the time
    i/(n + 1), which is not the one that is reached; "consistent" inverts on the knots that it comes back by.
    `sde`: generate by the stochastic form, x + h (2w + x/(1 - t)) + sqrt(2 t |h|/(1 - t)) noise, with w the rate above; the
    first step is without noise.
    y is the draw numbered as the step at the noise end; the stochastic form's draws are numbered as their steps.
    With gamma 1 (consistent) the inversion ends at y, with eta 1 to the last step the edit ends at x0, under any prompts.
    The path is that of editing by inversion; there is none on the published grid or in the stochastic form, where noise would
    stay in it. Euler's costs are N rows up and N down.
    Raises OptionError for options out of range and start > stop; `edit` raises ValueError for solvers that evaluate at the end
    of a step, since the fields have no value at t = 1 and 0, and on the published grid or in the stochastic form for all but
    Euler.
    """

    gamma: float = option(0.5, "pull towards noise while inverting", low=0.0, high=1.0)
    eta: float = option(0.9, "pull towards the source while generating", low=0.0, high=1.0)
    start: float = option(0.0, "share of the steps before the pull towards the source", low=0.0, high=1.0)
    stop: float = option(0.25, "share of the steps after which that pull ends", low=0.0, high=1.0)
    decay: float = option(0.0, "power by which that pull fades, step by step", low=0.0)
    grid: str = option("published", "the times of the inversion", choices=("published", "consistent"))
    sde: bool = option(False, "generate by the stochastic form")
    invert_with: str = option("empty", "the prompt to invert with", choices=("empty", "source"))
    source_guidance: float = option(0.0, "guidance while inverting")
    target_guidance: float = option(3.5, "guidance while generating")
    n_max: int | None = option(None, "steps to invert, counted from the image end; all if none, or more than there are", low=1)

    def __post_init__(self) -> None:
        check(self)
        if self.start > self.stop:
            raise OptionError(f"RFInversion.start must not exceed stop, got {self.start} and {self.stop}")

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
        self._check_solver(solver)
        latent, down = request.latent, grid.last(self.n_max)
        rising, told = self._rising(down)
        pulled_up = self._pulled_up(model, request, noise(grid.steps), told)
        noisy, up = followed(latent, walk(solver, pulled_up, latent, rising), keep_path)
        pulled_down = self._pulled_down(model, request, grid, down)
        if self.sde:
            walked = stochastic(pulled_down, noisy.x, down, noise)
        else:
            walked = walk(solver.generator, pulled_down, noisy.x, down)
        result, back = followed(noisy.x, walked, keep_path)
        shown = keep_path and self.grid == "consistent" and not self.sde
        return Edit(result.x, noise_free(up, back) if shown else ())

    def _check_solver(self, solver: Solver[Any]) -> None:
        if self.grid == "published":
            require_euler(solver, "RF-Inversion on its published grid")
        elif self.sde:
            require_euler(solver, "RF-Inversion's stochastic form")
        else:
            refuse_ends(solver, "RF-Inversion")

    def _rising(self, down: TimeGrid) -> tuple[TimeGrid, Callable[[Tick], Tick]]:
        """The knots to invert on, and the time that the network is told at a tick of them."""
        if self.grid == "consistent":
            return down.reversed(), lambda tick: tick
        first, n = down.times[0], down.steps
        mirrored = TimeGrid(tuple(first - t for t in down.times))
        told = {knot: i / (n + 1) for i, knot in enumerate(mirrored.times)}
        return mirrored, lambda tick: tick._replace(t=told[tick.t])

    def _pulled_up(self, model: Model[Any], request: Request, typical: Tensor, told: Callable[[Tick], Tick]) -> Field:
        """The field of the inversion, pulled towards the noise `typical`."""
        prompts = request.source if self.invert_with == "source" else ("",) * len(request.latent)
        plain = model.field(model.condition(prompts, self.source_guidance))

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            at = told(tick)
            u = plain(at, x)
            return u + self.gamma * ((typical - x) / (1.0 - at.t) - u)

        return velocity

    def _pulled_down(self, model: Model[Any], request: Request, grid: TimeGrid, down: TimeGrid) -> Field:
        """The field of the edit, pulled towards the source."""
        plain = model.field(model.condition(request.target, self.target_guidance))
        pulled = range(int(self.start * grid.steps), int(self.stop * grid.steps))

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            v, i = plain(tick, x), down.steps - down.number(tick)
            if i not in pulled:
                return v
            eta = self.eta * math.pow(1.0 - i / down.steps, self.decay)
            return v + eta * ((x - request.latent) / tick.t - v)

        return velocity


def stochastic(field: Field, x: Tensor, grid: TimeGrid, noise: Noise) -> Iterator[Step[None]]:
    """Walk dx = (2 field + x/(1 - t)) dt + sqrt(2 t/(1 - t)) dW down the falling `grid` by Euler and Maruyama: it has the
    marginals of dx = field dt where that is a flow from Gaussian noise. The first step is the deterministic one."""
    for i, (t0, t1) in enumerate(pairwise(grid.times)):
        h, rate = t1 - t0, field(Tick(t0, t0, t1), x)
        if i == 0:
            x = x + h * rate
        else:
            spread = math.sqrt(2.0 * t0 * -h / (1.0 - t0))
            x = x + h * (2.0 * rate + x / (1.0 - t0)) + spread * noise(grid.steps - i)
        yield Step(x, None)
