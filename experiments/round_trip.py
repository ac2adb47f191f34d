"""How well a picture survives inversion and generation, and how well FireFlow's assumption holds on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..cases.base import Case
from ..editors.base import Editor
from ..editors.controls import NoEdit
from ..editors.inversion import Inversion
from ..metrics.base import Result
from ..metrics.pixels import PSNR, RMSE
from ..models.base import Model
from ..ode import Tick
from ..solvers.base import Solver, integrate
from ..solvers.euler import Euler
from ..solvers.fireflow import FireFlow
from .execute import Cost, Outcome, encode, execute


@dataclass(frozen=True)
class Trip:
    """One reconstruction. `rmse` over 8-bit RGB (0 to 255), `psnr` in dB."""

    outcome: Outcome
    rmse: float
    psnr: float

    @property
    def cost(self) -> Cost:
        """What both ways cost."""
        return self.outcome.cost


def round_trip(
    model: Model[Any],
    solver: Solver[Any],
    steps: int,
    case: Case,
    carry: bool = False,
    watch: Callable[[int], None] | None = None,
) -> Trip:
    """Invert the case's picture with its source prompt and generate it again with the same prompt, all at guidance 1.

    `carry`: hand the solver's state from inversion to generation. `watch`: told the number of network calls after each.
    Raises ValueError if the solver is not reversible and its state is to be carried.
    """
    return _trip(model, Inversion.reconstruction(carry), solver, steps, case, watch)


def codec_trip(model: Model[Any], case: Case) -> Trip:
    """Encode and decode only: the bound of every reconstruction."""
    return _trip(model, NoEdit(), Euler(), 1, case)


def _trip(
    model: Model[Any],
    editor: Editor,
    solver: Solver[Any],
    steps: int,
    case: Case,
    watch: Callable[[int], None] | None = None,
) -> Trip:
    again = replace(case, target=case.source)
    outcome = execute(model, editor, solver, steps, [again], seed=0, watch=watch)
    result = Result(outcome.pictures[0], outcome.latents[0], outcome.source_latents[0])
    return Trip(outcome, RMSE()(again, result), PSNR()(again, result))


@dataclass(frozen=True)
class Gap:
    """|v_mid - v_prev| in one step of size `h` from time `t`: root mean squares over the latent, `size` of the difference and
    `velocity` of v_mid."""

    t: float
    h: float
    size: float
    velocity: float


@torch.inference_mode()
def velocity_gaps(model: Model[Any], steps: int, case: Case) -> Sequence[Gap]:
    """The gaps along the inversion of one case by FireFlow, which takes the last midpoint's velocity for the velocity at the
    start of a step (Deng et al. 2024, arXiv 2412.07517). In the first step v_prev is the velocity at its start."""
    latent = encode(model, [case])
    field = model.field(model.condition([case.source], 1.0))
    met: list[tuple[Tick, Tensor]] = []

    def recorded(tick: Tick, x: Tensor) -> Tensor:
        met.append((tick, field(tick, x)))
        return met[-1][1]

    integrate(FireFlow(), recorded, latent, model.grid(steps, latent.shape).reversed())
    return [Gap(tick.t0, tick.t1 - tick.t0, _rms(mid - prev), _rms(mid)) for (_, prev), (tick, mid) in pairwise(met)]


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()
