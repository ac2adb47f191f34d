"""Round trips and FireFlow's assumption against what a closed-form flow says."""

from __future__ import annotations

import pytest
import torch
from fe.cases.base import Case
from fe.experiments.round_trip import codec_trip, round_trip, velocity_gaps
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel
from fe.solvers.alf import AsynchronousLeapfrog
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow
from torch import Tensor


@pytest.fixture(scope="module")
def points() -> Case:
    return Case("points", torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) + 9.0, "source", "target")


@pytest.fixture
def drawn() -> Case:
    picture: Tensor = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(1))
    return Case("drawn", picture, "a red star", "a blue star")


def test_the_gap_of_a_smooth_flow_shrinks_with_the_step(points: Case) -> None:
    """v_mid and v_prev lie one step apart, so their difference is of first order in h (times where v changes smoothly)."""
    model = MixtureModel(std=5.0)
    sizes = []
    for steps in (40, 80, 160):
        gaps = velocity_gaps(model, steps, points)
        assert len(gaps) == steps
        assert gaps[0].t == 0.0
        assert gaps[-1].t + gaps[-1].h == pytest.approx(1.0)
        later = [gap.size for gap in gaps[1:]]  # the first compares points half a step apart
        sizes.append(sum(later) / len(later))
    assert sizes[0] / sizes[1] == pytest.approx(2.0, abs=0.15)
    assert sizes[1] / sizes[2] == pytest.approx(2.0, abs=0.15)


def test_the_codec_bounds_and_costs_nothing(tiny: FluxModel, drawn: Case) -> None:
    codec = codec_trip(tiny, drawn)
    carried = round_trip(tiny, AsynchronousLeapfrog(), 4, drawn, carry=True)
    assert codec.cost.rows == 0
    assert carried.rmse == pytest.approx(codec.rmse, abs=0.05)
    assert (carried.cost.rows, round_trip(tiny, AsynchronousLeapfrog(), 4, drawn).cost.rows) == (9, 10)


def test_evaluations_are_counted_both_ways(tiny: FluxModel, drawn: Case) -> None:
    assert round_trip(tiny, Euler(), 5, drawn).cost.rows == 2 * Euler().nfe(5)
    assert round_trip(tiny, FireFlow(), 5, drawn).cost.rows == 2 * FireFlow().nfe(5)


def test_only_a_reversible_solver_carries(tiny: FluxModel, drawn: Case) -> None:
    with pytest.raises(ValueError, match="not exactly reversible"):
        round_trip(tiny, Euler(), 2, drawn, carry=True)
