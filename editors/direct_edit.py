"""DirectEdit: Euler's way up, retraced exactly because every step of it is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..models.base import Model
from ..ode import Tick, TimeGrid
from ..options import check, option
from ..solvers.base import Solver
from .base import Edit, Editor, Noise, Request
from .path import invert, regenerate
from .steps import require_euler


@dataclass(frozen=True)
class DirectEdit(Editor):
    """Yang and Ye 2026 (arXiv 2605.02417), without its sharing of attention features.

    Inverts by Euler, z_b = z_a + h f(a, z_a | source) from a to b = a + h, and remembers d = z_b - z_a of every step. On the
    way back, a step from b to a asks for the velocity at the place where the inversion asked for it, moved along:
    x - h f(a, x - d | target). With equal prompts and guidances the source comes back up to rounding.
    `told`: "low" tells the network the time a, as in the paper; "high" tells it b while it still sees a state of time a, in
    both directions, as the authors' codes do.
    The path is that of editing by inversion. With a mask, the way back returns outside of it to the states of the inversion.
    Costs two rows a step (the authors' codes evaluate the source once more on the way back and throw the result away).
    Raises OptionError for options out of range; `edit` raises ValueError for solvers other than Euler.
    """

    takes_mask: ClassVar[bool] = True
    told: str = option("low", "which end of a step the network is told", choices=("low", "high"))
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(2.0, "guidance on the way back")
    n_max: int | None = option(None, "steps to invert, counted from the image end; all if none, or more than there are", low=1)

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
        require_euler(solver, "DirectEdit")
        down = grid.last(self.n_max)
        source = model.field(model.condition(request.source, self.source_guidance))
        target = model.field(model.condition(request.target, self.target_guidance))

        def rising(tick: Tick, z: Tensor) -> Tensor:
            return source(self._told(tick), z)

        inverted = invert(solver, rising, request.latent, down)

        def falling(tick: Tick, x: Tensor) -> Tensor:
            return target(self._told(tick), x - (inverted.at[tick.t0] - inverted.at[tick.t1]))

        return regenerate(solver, falling, inverted, down, request.mask, keep_path)

    def _told(self, tick: Tick) -> Tick:
        return tick._replace(t=tick.interval[0 if self.told == "low" else 1])
