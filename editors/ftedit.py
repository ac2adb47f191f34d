"""FTEdit: invert by fixed-point sweeps, and generate with what the inversion's steps still miss made up for, or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from ..options import check, option
from ..solvers.base import Solver
from ..solvers.fixed_point import FixedPoint
from .base import Edit, Editor, Noise, Request
from .path import invert, regenerate
from .steps import require_euler


@dataclass(frozen=True)
class FTEdit(Editor):
    """The inversion of Xu et al. 2024 (arXiv 2411.15843) without their control of text features, by Euler steps.

    Inverts with the solver `fixed-point` under the source prompt, whose options the first three are, and generates with the
    target prompt. The paper then makes up in every step for what a step from the inverted state X_i misses of the next,
    c = X_{i-1} - X_i - h v(X_i | source); its code adds c to the source's branch alone, which so repeats the inverted states
    and reaches the target only through shared features. Without those it needs no evaluation, and that is the
    default here. With `compensate` the target gets c too: equal prompts then give the source back exactly.
    Rows: `sweeps` + 1 a step, one more with `compensate` (all of them twice where the model guides with an extra row).
    The path is the noise-free one of editing by inversion. With a mask, generation returns outside of it to the states of the
    inversion, knot by knot.
    Raises OptionError for options out of range; `edit` raises ValueError for another solver than Euler, the only one
    that fixed-point sweeps invert.
    """

    takes_mask: ClassVar[bool] = True
    sweeps: int = option(4, "evaluations in a step of the inversion", low=1)
    average_from: int = option(0, "first sweep (from 0) whose velocity is averaged", low=0)
    average_to: int = option(5, "first sweep after the averaged ones; the last velocity alone if none is averaged", low=0)
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(2.0, "guidance while generating")
    compensate: bool = option(False, "add to the target what the source's own steps miss")
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
        require_euler(solver, "FTEdit")
        down = grid.last(self.n_max)
        inverter = FixedPoint(self.sweeps, self.average_from, self.average_to)
        source = model.field(model.condition(request.source, self.source_guidance))
        inverted = invert(inverter, source, request.latent, down)
        target = self._generating(model, request, inverted.at)
        return regenerate(solver, target, inverted, down, request.mask, keep_path)

    def _generating(self, model: Model[Any], request: Request, inverted: Mapping[float, Tensor]) -> Field:
        """The target's velocity; with `compensate`, and what the source's at the inverted state misses of the inverted step."""
        target = model.condition(request.target, self.target_guidance)
        if not self.compensate:
            return model.field(target)
        both = model.field(target.joined(model.condition(request.source, self.target_guidance)))

        def compensated(tick: Tick, x: Tensor) -> Tensor:
            before, after = inverted[tick.t0], inverted[tick.t1]
            velocity, missing = both(tick, torch.cat((x, before))).chunk(2)
            return velocity - missing + (after - before) / (tick.t1 - tick.t0)

        return compensated
