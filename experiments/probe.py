"""What an editor will spend, found by a dry run on a network that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Point
from ..editors.base import Edit, Editor, Request
from ..models.base import Model
from ..ode import TimeGrid
from ..solvers.base import Solver
from .meter import metered

_SHAPE = (1, 4, 4, 4)


class Spend(NamedTuple):
    """For one picture: network `calls`, their `rows`, and how many times noise is drawn."""

    calls: int
    rows: int
    draws: int


def probe(editor: Editor, solver: Solver[Any], steps: int, model: Model[Any], prompts: tuple[str, str]) -> Spend:
    """What `editor` asks of `model`'s network for one picture with a source and a target prompt, without running it. Exact,
    since no editor or solver here looks at values to decide what to evaluate.

    Raises ValueError or LookupError, as `editor.edit` does, if the options do not fit the steps, the prompts or the model.
    """
    return _dry_run(editor, solver, steps, model, prompts)[0]


def has_path(editor: Editor, solver: Solver[Any], steps: int, model: Model[Any], prompts: tuple[str, str]) -> bool:
    """Whether `editor` has states to show on the way from the source to the result. Raises as `probe` does."""
    return bool(_dry_run(editor, solver, steps, model, prompts)[1].path)


@torch.inference_mode()
def _dry_run(
    editor: Editor, solver: Solver[Any], steps: int, model: Model[Any], prompts: tuple[str, str]
) -> tuple[Spend, Edit]:
    silent, noise = _Silent(model), _CountedNoise()
    request = Request(torch.zeros(_SHAPE), (prompts[0],), (prompts[1],))
    with metered(silent.network) as meter:
        edit = editor.edit(silent, request, solver, TimeGrid.uniform(steps), noise, keep_path=True)
    return Spend(meter.calls, meter.rows, noise.draws), edit


def steps_within(budget: int, spend: Callable[[int], int]) -> int:
    """The largest number of steps N >= 1 with spend(N) <= budget, for a spend that does not fall as N grows; `budget` steps at
    most. Raises ValueError if one step already costs more."""
    if spend(1) > budget:
        raise ValueError(f"one step already costs {spend(1)} evaluations, more than the {budget} allowed; allow more")
    low, high = 1, budget + 1  # spend(low) fits; high does not, or is more than is worth asking for
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spend(middle) <= budget else (low, middle)
    return low


@dataclass
class _CountedNoise:
    draws: int = 0

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        self.draws += 1
        return torch.zeros(_SHAPE)


class _SilentNetwork(nn.Module):
    """Zero velocity, with a module at every attention point so that hooks meet a feature there."""

    def __init__(self, points: int) -> None:
        super().__init__()
        self.met = nn.ModuleList([nn.Identity() for _ in range(points)])

    def forward(self, x: Tensor) -> None:
        for module in self.met:
            module(x[:, :1])


class _Silent(Model[Any]):
    """Another model's prompts, guidances and attention points, over a network that does nothing."""

    multiple = 1

    def __init__(self, model: Model[Any]) -> None:
        points = list(model.points())
        self.network = _SilentNetwork(len(points))
        self._met = dict(zip(points, self.network.met, strict=True))
        self._model = model

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def condition(self, prompts: Sequence[str], guidance: float) -> Any:
        return self._model.condition(prompts, guidance)

    def calls(self, condition: Any) -> Sequence[Sequence[int]]:
        return self._model.calls(condition)

    def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
        for rows in self.calls(condition):
            self.network(x[list(rows)])
        return torch.zeros_like(x)

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        return TimeGrid.uniform(steps)

    def points(self) -> Mapping[Point, nn.Module]:
        return self._met
