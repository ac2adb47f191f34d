"""Editing by inversion: walk the source picture to noise under its own prompt, and from there to a picture under the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..models.base import Model
from ..ode import TimeGrid
from ..options import check, option
from ..solvers.base import Solver
from .base import Edit, Editor, Noise, Request
from .path import invert, regenerate


@dataclass(frozen=True)
class Inversion(Editor):
    """Invert with the source prompt, generate with the target prompt, on the same knots.

    The guidance to invert with is 1; other values are known to break the inversion. Generation uses `solver.generator`, the
    partner a solver names. With `carry` the state of an exactly reversible solver goes along from inversion to generation.
    With a mask, generation returns outside of it to the states of the inversion, knot by knot.
    Raises OptionError for options out of range; `edit` raises ValueError for `carry` with a solver that is not reversible.
    The same way over other solvers: RF-Inversion by Euler steps in Rout et al. 2024 (arXiv 2410.10792), RF-Solver in
    Wang et al. 2024 (arXiv 2411.04746), FireFlow in Deng et al. 2024 (arXiv 2412.07517).
    """

    takes_mask: ClassVar[bool] = True
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(3.5, "guidance while generating")
    carry: bool = option(False, "carry the solver's state into generation (exactly reversible solvers only)")
    n_max: int | None = option(None, "steps to invert, counted from the image end; all if none, or more than there are", low=1)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def reconstruction(cls, carry: bool = False) -> Inversion:
        """The round trip: both guidances are 1. Its requests must have the source prompts as target prompts."""
        return cls(source_guidance=1.0, target_guidance=1.0, carry=carry)

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
        if self.carry and not solver.reversible:
            raise ValueError(
                f"{type(solver).__name__} is not exactly reversible, so there is no state to carry; "
                "set carry to false, or use a reversible solver"
            )
        down = grid.last(self.n_max)
        source = model.field(model.condition(request.source, self.source_guidance))
        target = model.field(model.condition(request.target, self.target_guidance))
        inverted = invert(solver, source, request.latent, down)
        state = inverted.last.state if self.carry else None
        return regenerate(solver.generator, target, inverted, down, request.mask, keep_path, state)
