"""SteerFlow: retrace the inversion, steered towards the target where and when its velocity differs and points the same way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from ..options import OptionError, check, option
from ..solvers.base import Solver
from ..solvers.euler import Euler
from .base import Edit, Editor, Noise, Request
from .path import invert, regenerate
from .places import closed, packed, quantile_stretched, spread

Velocities = Callable[[Tick, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SteerFlow(Editor):
    """Dao et al. 2026 (arXiv 2604.01715); published with the solver uni-inv.

    Inverts under the source prompt, by any solver, and keeps every state X. The way back is made of Euler steps: one from t0 to
    t1 knows the source's velocity over it, v_s = (X(t1) - X(t0)) / (t1 - t0), and follows
    v_s + m (1 - t1^alpha) cos(v_t, v_s) (v_t - v_s) with v_t the velocity under the target. The mask m has one value for every
    place of the latent: the length s of v_t - v_s over channels, with its quantiles 1 - `quantile` and `quantile` put to 0 and
    1, as sigmoid(temperature (s - 1/2)), closed by a square of `kernel` places.
    `cosine`: "places" averages the cosine over places, as the authors' codes do on FLUX; "whole" takes it of the whole latent,
    as theirs does on SD3. `mask_from`: "guided" takes s from v_t; "text" takes it from the velocity under the target alone, as
    theirs does on SD3: guidance is then v_empty + g (v_text - v_empty), two rows an evaluation, whatever the model's own is.
    With alpha 0 the source comes back up to rounding.
    The path is that of editing by inversion. With a mask in the request, the way back returns outside of it to the states of
    the inversion. Costs `solver.nfe(N)` rows up and N evaluations down.
    Raises OptionError for options out of range, ValueError if the latents are no pictures.
    """

    takes_mask: ClassVar[bool] = True
    alpha: float = option(5.0, "how early steering sets in: 1 - t^alpha of it at time t", low=0.0)
    quantile: float = option(0.8, "the quantile of differences that counts as a whole one", low=0.5, high=1.0)
    temperature: float = option(13.0, "steepness of the mask between its quantiles", low=0.0)
    kernel: int = option(5, "side of the square that closes holes in the mask, in places; odd", low=1)
    cosine: str = option("places", "one cosine for every place, averaged, or one of the whole", choices=("places", "whole"))
    mask_from: str = option("guided", "the velocity whose difference makes the mask", choices=("guided", "text"))
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(3.5, "guidance on the way back")

    def __post_init__(self) -> None:
        check(self)
        if self.kernel % 2 == 0:
            raise OptionError(f"SteerFlow.kernel must be odd, so that it has a middle, got {self.kernel}")

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
        source = model.field(model.condition(request.source, self.source_guidance))
        inverted = invert(solver, source, request.latent, grid)
        steered = self._steered(self._velocities(model, request), inverted.at, model.packing)
        return regenerate(Euler(), steered, inverted, grid, request.mask, keep_path)

    def _steered(self, velocities: Velocities, inverted: Mapping[float, Tensor], packing: int) -> Field:
        """The field of the way back."""

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            v_source = (inverted[tick.t1] - inverted[tick.t0]) / (tick.t1 - tick.t0)
            v_target, v_mask = velocities(tick, x)
            mask = spread(self._mask(packed(v_mask - v_source, packing)), packing)
            agreement = self._cosine(packed(v_target, packing), packed(v_source, packing))
            strength = (1.0 - math.pow(tick.t1, self.alpha)) * agreement * mask
            return v_source + strength * (v_target - v_source)

        return velocity

    def _velocities(self, model: Model[Any], request: Request) -> Velocities:
        """(tick, x) -> the velocity to steer by, and the one that the mask is made from."""
        if self.mask_from == "guided":
            plain = model.field(model.condition(request.target, self.target_guidance))

            def guided(tick: Tick, x: Tensor) -> tuple[Tensor, Tensor]:
                v = plain(tick, x)
                return v, v

            return guided
        text, empty = model.condition(request.target, 1.0), model.condition(("",) * len(request.latent), 1.0)
        both = model.field(text.joined(empty))

        def by_hand(tick: Tick, x: Tensor) -> tuple[Tensor, Tensor]:
            v_text, v_empty = both(tick, torch.cat((x, x))).chunk(2)
            return v_empty + self.target_guidance * (v_text - v_empty), v_text

        return by_hand

    def _mask(self, difference: Tensor) -> Tensor:
        strength = quantile_stretched(difference.norm(dim=1, keepdim=True), self.quantile)
        return closed(torch.sigmoid(self.temperature * (strength - 0.5)), self.kernel)

    def _cosine(self, v_target: Tensor, v_source: Tensor) -> Tensor:
        """(B, 1, 1, 1), of velocities with packed places."""
        if self.cosine == "whole":
            return functional.cosine_similarity(v_target.flatten(1), v_source.flatten(1))[:, None, None, None]
        return functional.cosine_similarity(v_target, v_source).mean((1, 2))[:, None, None, None]
