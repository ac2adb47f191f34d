"""DNAEdit: an inversion from noise that is put right step by step, and an edit that leans on the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver, walk
from ..solvers.uni_inv import UniInv
from .base import Edit, Editor, Noise, Request
from .path import noise_free
from .steps import require_euler

SHARE = 24 / 28
"""The published share of steps that FLUX edits with: 24 of 28."""


class _Inverted(NamedTuple):
    """One inverted step: the state it reached, the velocity there, and how far off it was evaluated."""

    x: Tensor
    velocity: Tensor
    offset: Tensor


@dataclass(frozen=True)
class DNAEdit(Editor):
    """Xie et al. 2025 (arXiv 2506.01430), by Euler steps.

    Inverts the last `n_max` steps with the source prompt, towards a draw of noise that every step moves so that the line from
    the state to it has the velocity the network gives. That is Uni-Inv started with noise - x for a velocity: each step
    evaluates at x + h v, with v the last velocity, and goes on with the velocity w found there. Its offset is
    o = h (v - w). The edit goes back over the same steps: with v_t the target's velocity at x + o, a reference r that starts as
    the source moves by h (v_t - w), and x by h [mix v_t + (1 - mix) (x - r) / t] with the r just reached: no other solver's
    step has these two halves. One row a step each way, two where the model guides with an extra row.
    The draw is noise(1), that of the first step inverted. The path is the noise-free one of editing by inversion. With a
    mask, the edit returns outside of it to the states of the inversion, knot by knot.
    Raises OptionError for options out of range; `edit` raises ValueError for another solver than Euler.
    """

    takes_mask: ClassVar[bool] = True
    n_max: int | None = option(None, "steps to invert, counted from the image end; 24/28 of the steps if none", low=1)
    mix: float = option(0.8, "share of the target's velocity; the rest leads to the reference", low=0, high=1)
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(2.5, "guidance while editing")

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
        require_euler(solver, "DNAEdit")
        n_max = max(1, round(grid.steps * SHARE)) if self.n_max is None else min(self.n_max, grid.steps)
        down, mask = grid.truncated(n_max), request.mask
        inverted = self._invert(model, request, down.reversed(), noise)
        up = [request.latent, *(step.x for step in inverted)]
        target = model.condition(request.target, self.target_guidance)
        x, reference, back = up[-1], request.latent, [up[-1]]
        for (t0, t1), step, kept in zip(down.intervals(), reversed(inverted), up[-2::-1], strict=True):
            velocity = model.velocity(t0, x + step.offset, target)
            reference = reference + (t1 - t0) * (velocity - step.velocity)
            x = x + (t1 - t0) * (self.mix * velocity + (1 - self.mix) * (x - reference) / t0)
            x = x if mask is None else mask * x + (1 - mask) * kept
            back.append(x)
        return Edit(x, noise_free(up, back) if keep_path else ())

    def _invert(self, model: Model[Any], request: Request, grid: TimeGrid, noise: Noise) -> list[_Inverted]:
        """Every step of the rising `grid`, in order."""
        source = model.field(model.condition(request.source, self.source_guidance))
        velocity, inverted = noise(1) - request.latent, []
        walked = walk(UniInv(), source, request.latent, grid, velocity)
        for (t0, t1), (x, found) in zip(grid.intervals(), walked, strict=True):
            assert found is not None  # uni-inv always hands its velocity on
            inverted.append(_Inverted(x, found, (t1 - t0) * (velocity - found)))
            velocity = found
        return inverted
