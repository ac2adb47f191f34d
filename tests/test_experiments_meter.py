"""The meter counts what the network is asked, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor
from fe.experiments.execute import execute
from fe.experiments.meter import metered
from fe.experiments.names import build_solver
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel
from torch import nn


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: float = 2.0) -> torch.Tensor:
        if scale < 0:
            raise ValueError("negative")
        return scale * x


def test_calls_and_rows_add_up_over_batches_of_any_size() -> None:
    network = Doubled()
    with metered(network) as meter:
        for rows in (3, 1, 8):
            network(torch.zeros(rows, 2))
        network(x=torch.zeros(5, 2), scale=1.0)
    assert (meter.calls, meter.rows) == (4, 17)
    assert meter.seconds > 0


def test_nothing_is_counted_outside_and_nothing_stays_on_the_network() -> None:
    network = Doubled()
    with pytest.raises(ValueError, match="negative"), metered(network) as meter:
        network(torch.zeros(1), scale=-1.0)
    network(torch.zeros(7))
    assert (meter.calls, meter.rows) == (1, 1)
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


def test_guidance_with_two_rows_costs_two_rows(tiny_pipeline: Callable[..., FluxPipeline]) -> None:
    model = FluxModel(tiny_pipeline(guided=True))
    prompts = ["a small red star at the left on a plain blue background"] * 2
    with torch.no_grad(), metered(model.network) as meter:
        both = model.condition(prompts, 1.0).joined(model.condition(prompts, 4.0))
        model.velocity(0.5, torch.zeros(4, 4, 8, 8), both)
    assert (meter.calls, meter.rows) == (1, 4)


@dataclass(frozen=True)
class GoesPastTheField(Editor):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """An editor of a plug-in that asks the network itself, and says nothing of it."""

    def edit(self, model: Any, request: Any, solver: Any, grid: Any, noise: Any, *, keep_path: bool = False) -> Edit:
        means = model.condition(request.source, 1.0).means
        for _ in range(3):
            model.network(request.latent, torch.full((len(request.latent),), 0.5), means)
        return Edit(request.latent)


def test_an_editor_that_calls_the_network_itself_is_counted() -> None:
    outcome = execute(MixtureModel(), GoesPastTheField(), build_solver("euler"), 4, MixtureCases(points=5).take(2), 0)
    assert (outcome.cost.calls, outcome.cost.rows, outcome.cost.cases) == (3, 6, 2)
    assert outcome.cost.seconds >= outcome.cost.network_seconds > 0
