"""The contract of an editor: from source latents and two prompts to edited latents, over any model and any solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..models.base import Model
from ..ode import TimeGrid
from ..solvers.base import Solver


@dataclass(frozen=True)
class Request:
    """What is to be edited: source latents (B, C, h, w) with one source and one target prompt a row; and `mask` (B, 1, h, w) in
    [0, 1], 1 where the picture may change (None: everywhere)."""

    latent: Tensor
    source: tuple[str, ...]
    target: tuple[str, ...]
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        rows = self.latent.shape[0]
        if not rows == len(self.source) == len(self.target):
            raise ValueError(
                f"a request needs one source and one target prompt a row, got {rows} rows, "
                f"{len(self.source)} source and {len(self.target)} target prompts"
            )
        expected = (rows, 1, *self.latent.shape[2:])
        if self.mask is not None and self.mask.shape != expected:
            raise ValueError(f"the mask of these latents is {expected}, got {tuple(self.mask.shape)}")


@dataclass(frozen=True)
class Edit:
    """What came of it: edited latents (B, ...); with `keep_path`, the noise-free states from the source to the result;
    counts worth showing (such as injections that found no recorded feature); and `figures`, what it measured on its way, (B,)
    each, by name, for metrics that ask for it."""

    latent: Tensor
    path: tuple[Tensor, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


class Noise(Protocol):
    """Standard normal draws, the same for every editor, solver and batch size."""

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        """The draw (B, ...) for the step with that number, counted from the image end (1 is the last step)."""
        ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise from a generator of its own for every (seed, case, step, draw), drawn in float32 on the CPU, so that a case meets
    the same draws on every device and beside any other cases. `like` gives shape (B, ...), device and dtype."""

    seed: int
    cases: tuple[str, ...]
    like: Tensor

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        rows = [self._row(case, step, draw) for case in self.cases]
        return torch.stack(rows).to(device=self.like.device, dtype=self.like.dtype)

    def _row(self, case: str, step: int, draw: int) -> Tensor:
        digest = sha256(f"{self.seed}|{case}|{step}|{draw}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(self.like.shape[1:], generator=generator, dtype=torch.float32)


class Editor(ABC):
    """One editing strategy. Subclasses are final frozen dataclasses whose fields are their options, made by
    `options.option` and held to their ranges by `options.check` in `__post_init__`.

    `takes_mask`: whether it keeps what lies outside a request's mask; a request with a mask goes to no other.
    """

    takes_mask: ClassVar[bool] = False

    def budget(self, model: Model[Any], solver: Solver[Any], grid: TimeGrid, latent: Tensor) -> str:
        """What an edit of those latents (B, ...) will keep in memory besides its states, as a phrase ("keeps ...", or
        "" where that is nothing worth saying). Raises as `edit` does."""
        return ""

    @abstractmethod
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
        """Edit every row of `request`. `grid` falls from the noise end to 0. Raises ValueError if the options do not fit the
        grid or the model (LookupError if a wanted attention point does not exist)."""
