"""Uni-Edit: invert without a prompt, and come back pushed away from the source prompt where the target's velocity differs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from ..options import check, option
from ..solvers.base import Solver
from .base import Edit, Editor, Noise, Request
from .path import invert, regenerate
from .places import packed, spread, stretched


@dataclass(frozen=True)
class UniEdit(Editor):
    """Jiao et al. 2025 (arXiv 2504.13109); published with the solver uni-inv, which generates by Euler.

    Inverts the last `alpha` of the steps under the empty prompt, then walks back along
    m v_t + (1 - m) v_s + omega (1 + m) (v_t - v_s), with v_t and v_s the velocities under target and source at the same point
    and guidance, rows of one network call. The mask m has one value for every place of the latent: the mean over channels of
    |v_t - v_s|, stretched to [0, 1] over the picture; 0 where it is constant, as with equal prompts, where the authors' code
    divides 0 by 0.
    `code`: the authors' two codes differ. "flux" takes the absolute value and rounds `alpha` of the steps; "diffusers" takes
    the signed mean and rounds down.
    Equal prompts do not give the source back, unless they are empty: the inversion is under another prompt.
    The path is that of editing by inversion. With a mask in the request, the way back returns outside of it to the states of
    the inversion. Costs `solver.nfe(K)` rows for K = alpha N steps up, and twice `solver.generator.nfe(K)` down.
    Raises OptionError for options out of range, ValueError if the latents are no pictures.
    """

    takes_mask: ClassVar[bool] = True
    alpha: float = option(0.6, "share of the steps that are inverted and edited", low=0.0, high=1.0)
    omega: float = option(5.0, "strength of the push from source to target", low=0.0)
    code: str = option("flux", "which of the authors' two codes to follow", choices=("flux", "diffusers"))
    source_guidance: float = option(1.0, "guidance while inverting under the empty prompt")
    target_guidance: float = option(1.0, "guidance of both prompts on the way back")

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
        latent = request.latent
        share = self.alpha * grid.steps
        steps = round(share) if self.code == "flux" else math.floor(share)
        if steps == 0:
            return Edit(latent, (latent,) if keep_path else ())
        down = grid.truncated(steps)
        empty = model.field(model.condition(("",) * len(latent), self.source_guidance))
        inverted = invert(solver, empty, latent, down)
        return regenerate(solver.generator, self._pushed(model, request), inverted, down, request.mask, keep_path)

    def _pushed(self, model: Model[Any], request: Request) -> Field:
        """The field of the way back."""
        target = model.condition(request.target, self.target_guidance)
        source = model.condition(request.source, self.target_guidance)
        both = model.field(target.joined(source))

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            v_target, v_source = both(tick, torch.cat((x, x))).chunk(2)
            difference = v_target - v_source
            mask = self._mask(difference, model.packing)
            return v_source + (mask + self.omega * (1.0 + mask)) * difference

        return velocity

    def _mask(self, difference: Tensor, packing: int) -> Tensor:
        places = packed(difference, packing)
        strength = places.abs() if self.code == "flux" else places
        return spread(stretched(strength.mean(1, keepdim=True)), packing)
