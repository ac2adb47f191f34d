"""DVRF: edit by descending the difference of two velocities, with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver, Step
from .base import Edit, Editor, Noise, Request
from .path import followed
from .steps import require_euler


@dataclass(frozen=True)
class DVRF(Editor):
    """Delta Velocity Rectified Flow, Beaudouin et al. 2025 (arXiv 2509.05342), by plain gradient steps.

    Moves z from the source x. Step i of the grid's T (i = 0 at the noise end) has a draw n and a shift s = eta i / T; with
    q = (1 - t) x + t n and p = q + (1 - t + s t)(z - x), z loses rate_i times
    mean over draws of [v(p | target) - v(q | source)] + (1 - s)(z - x). The step's length plays no part, so no solver but
    Euler (which stands for plain descent) will do. The published rates rise and fall with i and are 0 at i = 0; `rate` gives
    one for all steps instead. `order` is that of the times: every knot once, falling; or "random", for each draw any knot
    but the first two and the last two, while i still counts steps (those knots are too few below 4 steps: then any knot).
    A random knot is picked by a draw of noise of its own, draw n_avg + k of the step for its k-th draw: the normal law's
    distribution function at the sum of the draw's numbers over the root of their count.
    Two rows a draw, in one call; four where the model guides with an extra row. The path holds z. With a mask, z moves inside
    of it only.
    Raises OptionError for options out of range; `edit` raises ValueError for another solver than Euler.
    """

    takes_mask: ClassVar[bool] = True
    source_guidance: float = option(6.0, "guidance of the source prompt")
    target_guidance: float = option(16.5, "guidance of the target prompt")
    eta: float = option(1.0, "shift of the target's state away from the source that is reached in the last step")
    n_avg: int = option(1, "noise draws averaged in a step", low=1)
    rate: float | None = option(None, "learning rate of every step; the published schedule if none", low=0)
    order: str = option("descending", "order of the times", choices=("descending", "random"))
    n_max: int | None = option(
        None, "steps made (descending: the last ones of the grid); all if none, or more than there are", low=1
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
        require_euler(solver, "DVRF")
        step, path = followed(request.latent, self._walk(model, request, grid, noise), keep_path)
        return Edit(step.x, tuple(path) if keep_path else ())

    def _walk(self, model: Model[Any], request: Request, grid: TimeGrid, noise: Noise) -> Iterator[Step[None]]:
        source, z = request.latent, request.latent
        prompts = model.condition(request.source, self.source_guidance)
        prompts = prompts.joined(model.condition(request.target, self.target_guidance))
        count = grid.steps if self.n_max is None else min(self.n_max, grid.steps)
        first = grid.steps - count if self.order == "descending" else 0
        for i in range(first, first + count):
            shift, total = self.eta * i / grid.steps, torch.zeros_like(z)
            for draw in range(self.n_avg):
                t = self._time(grid, i, draw, noise)
                q = (1 - t) * source + t * noise(grid.steps - i, draw)
                p = q + (1 - t + shift * t) * (z - source)
                rows = t if isinstance(t, float) else torch.cat((t, t)).flatten()
                v_source, v_target = model.velocity(rows, torch.cat((q, p)), prompts).chunk(2)
                total += v_target - v_source
            move = -self._rate(grid, i) * (total / self.n_avg + (1 - shift) * (z - source))
            z = z + (move if request.mask is None else request.mask * move)
            yield Step(z, None)

    def _time(self, grid: TimeGrid, i: int, draw: int, noise: Noise) -> float | Tensor:
        """The time of step i: one for all rows, or in random order one for each, (B, 1, ...)."""
        if self.order == "descending":
            return grid.times[i]
        knots = grid.times[2:-2] or grid.times[:-1]
        picks = noise(grid.steps - i, self.n_avg + draw)
        numbers = picks.flatten(1).cpu().double()  # one sum on every device
        uniform = torch.special.ndtr(numbers.sum(1) / numbers.shape[1] ** 0.5)
        chosen = torch.tensor(knots)[(uniform * len(knots)).long().clamp(max=len(knots) - 1)]
        return chosen.to(picks).reshape(-1, *(1,) * (picks.ndim - 1))

    def _rate(self, grid: TimeGrid, i: int) -> float:
        """The learning rate of step i: a hump, the shape of the beta distribution (10, 8), on a line that rises."""
        if self.rate is not None:
            return self.rate
        scale = (grid.times[max(grid.steps - 2, 0)] - grid.times[grid.steps - 1]) / 1.6
        s, peak = i / (grid.steps + 27), 9 / 16
        hump = (s / peak) ** 9 * ((1 - s) / (1 - peak)) ** 7
        return 2.2 * scale * ((1 / 1.6 - 1 / 4) * hump + s / 4)
