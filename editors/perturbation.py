"""How much an error in the noise grows on the way to the picture: editing by inversion, with a second walk beside the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver, integrate
from .base import Edit, Editor, Noise, Request


@dataclass(frozen=True)
class Perturbation(Editor):
    """Invert with the source prompt and generate with the target prompt, from the noise that was found and, beside it in the
    same batch, from noise that was moved by a little. The result is the unmoved one, that of `inversion` with the same
    guidances; the figure "error-growth" is how many times farther apart the two are in the end, |D0| / |DT|.

    The noise x is moved by `size` times its norm in a random direction: the keyed draw of the step at the noise end. For a
    velocity with Lipschitz constant L the growth is at most e^L over unit time (Gronwall); `size` is small enough to see the
    flow's own derivative and large enough against rounding in float32; a network that computes in bfloat16 rounds by more than
    that, so let it compute in float32. Raises OptionError for options out of range.
    """

    size: float = option(1e-3, "by how much of its norm the noise is moved", low=1e-5, high=1.0)
    source_guidance: float = option(1.0, "guidance while inverting")
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
        source = model.field(model.condition(request.source, self.source_guidance))
        once = model.condition(request.target, self.target_guidance)
        x = integrate(solver, source, request.latent, grid.reversed()).x
        direction = noise(grid.steps)
        moved = x + direction * (self.size * _norms(x) / _norms(direction)).view(-1, *[1] * (x.ndim - 1))
        both = integrate(solver.generator, model.field(once.joined(once)), torch.cat((x, moved)), grid).x
        result, beside = both.chunk(2)
        return Edit(result, figures={"error-growth": _norms(beside - result) / _norms(moved - x)})


def _norms(x: Tensor) -> Tensor:
    """(B, ...) to the norm of every row (B,)."""
    return x.flatten(1).square().sum(1).sqrt()
