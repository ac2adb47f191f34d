"""Editing by inversion with attention features: record while inverting, inject while the first steps generate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..options import OptionError, check, option
from ..solvers.base import Solver
from .base import Edit, Editor, Noise, Request
from .kept import Kept
from .path import invert, regenerate
from .transfer import Change, InBatch, Stored, Transfer, switched

MEMORIES: Mapping[str, type[Transfer]] = {"stored": Stored, "in-batch": InBatch}
CHANGES = tuple(f"{how}_{part}" for how in ("replace", "add") for part in ("q", "k", "v"))


@dataclass(frozen=True)
class Injection(Editor):
    """RF-Solver-Edit (Wang et al. 2024, arXiv 2411.04746) and FireFlow (Deng et al. 2024, arXiv 2412.07517).

    Invert with the source prompt; generate with the target prompt, and in the first `inject` steps put features of the
    inversion in place of the generation's own, or add them. Features are q and k after their QK-norm, and v, of text and image
    tokens alike, in the single-stream blocks first_block..last_block (those of them that exist): the papers speak of all
    self-attention layers, their codes touch single-stream blocks only. In a model without such blocks (SD3, a UNet) they are
    those of every block's attention among image tokens. Steps pair by their interval, and within it knots
    with knots and interior points with interior points; a feature with no recorded partner, as at FireFlow's first
    evaluation, is left alone and counted.

    `strategy`: one or more of replace_q, replace_k, replace_v, add_q, add_k, add_v, joined by "+"; a replaced tensor that is
    added to as well becomes twice the recorded one. `q_ratio`, `k_ratio`, `v_ratio` scale what is recorded.
    `memory`: "stored" keeps the features; "in-batch" keeps only the states, and evaluates them again as extra rows of the
    injected calls, which gives the same result at the price of those rows.
    With a mask, generation returns outside of it to the states of the inversion, knot by knot.
    Counts: "injected" and "missed" features, and "stored_bytes", the memory that the recorded tensors take.
    Raises OptionError for options out of range; `edit` raises ValueError if no block of the model is in the range or the
    model has no attention features.
    """

    takes_mask: ClassVar[bool] = True
    inject: int = option(1, "generation steps that are injected, counted from the noise end", low=0)
    strategy: str = option("replace_v", f"what is injected: {', '.join(CHANGES)}; several joined by '+'")
    first_block: int = option(0, "first block injected", low=0)
    last_block: int = option(37, "last block injected", low=0)
    q_ratio: float = option(1.0, "scale of the recorded q")
    k_ratio: float = option(1.0, "scale of the recorded k")
    v_ratio: float = option(1.0, "scale of the recorded v")
    source_guidance: float = option(1.0, "guidance while inverting")
    target_guidance: float = option(2.0, "guidance while generating")
    memory: str = option("stored", "keep features, or keep states and evaluate them again", choices=tuple(MEMORIES))

    def __post_init__(self) -> None:
        check(self)
        if self.first_block > self.last_block:
            raise OptionError(f"Injection.first_block must not exceed last_block, got {self.first_block} and {self.last_block}")
        named = self.strategy.split("+")
        unknown = [name for name in named if name not in CHANGES]
        if unknown:
            raise OptionError(f"Injection.strategy is made of {', '.join(CHANGES)}, joined by '+'; got {unknown[0]!r}")
        if len(set(named)) < len(named):
            raise OptionError(f"Injection.strategy must name each change once, got {self.strategy!r}")

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
        source = model.condition(request.source, self.source_guidance)
        target = model.condition(request.target, self.target_guidance)
        inverting, generating = model.field(source), model.field(target)
        chosen = frozenset((t1, t0) for t0, t1 in list(grid.intervals())[: self.inject])
        host = self.kept(model, solver, grid, request.latent).on_host(model, request.latent.device) if chosen else False
        transfer = MEMORIES[self.memory](model, source, target, self._changes(model) if chosen else (), host)
        if chosen:
            inverting = switched(inverting, transfer.recording(), chosen)
            generating = switched(generating, transfer.injecting(), chosen)
        inverted = invert(solver, inverting, request.latent, grid)
        edit = regenerate(solver.generator, generating, inverted, grid, request.mask, keep_path)
        return replace(edit, counts=transfer.counts())

    def budget(self, model: Model[Any], solver: Solver[Any], grid: TimeGrid, latent: Tensor) -> str:
        if self.memory != "stored" or self.inject == 0:
            return ""
        return self.kept(model, solver, grid, latent).said(model, latent.device)

    def kept(self, model: Model[Any], solver: Solver[Any], grid: TimeGrid, latent: Tensor) -> Kept:
        """What is recorded: each changed feature of each row, once for every evaluation of the solver in the injected steps,
        which the inversion walks last."""
        each = model.feature_bytes(latent.shape)
        points = {point for change in self._changes(model) for point in change.points}
        steps = min(self.inject, grid.steps)
        evaluations = solver.nfe(grid.steps) - (solver.nfe(grid.steps - steps) if steps < grid.steps else 0)
        size = len(latent) * evaluations * sum(each.get(point, 0) for point in points)
        return Kept(size, len({(point.stream, point.block) for point in points}), steps)

    def _changes(self, model: Model[Any]) -> list[Change]:
        """The strategy in terms of the model's own points; what replaces comes before what adds, as in the public codes."""
        points = list(model.points())
        if not points:
            raise ValueError("this model has no attention features to inject; use another editor")
        points = [point for point in points if point.stream == "single"] or points
        ratios = {"q": self.q_ratio, "k": self.k_ratio, "v": self.v_ratio}
        blocks = range(self.first_block, self.last_block + 1)
        if not any(point.block in blocks for point in points):
            raise ValueError(
                f"the model has blocks 0 to {max(point.block for point in points)} to inject into, none of them from "
                f"{self.first_block} to {self.last_block}; choose first_block and last_block among them"
            )
        changes = []
        for name in CHANGES:
            if name in self.strategy.split("+"):
                how, _, part = name.partition("_")
                met = tuple(point for point in points if point.block in blocks and point.part == part)
                changes.append(Change(met, "add" if how == "add" else "replace", ratios[part]))
        return changes
