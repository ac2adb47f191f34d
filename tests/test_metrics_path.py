"""How straight a path is, and how much an error grew on it."""

from __future__ import annotations

import math

import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Result
from fe.metrics.path import ErrorGrowth, Straightness, straightness
from torch import Tensor

CASE = Case("a", torch.zeros(3, 4, 4), "", "")


def scored(*path: Tensor) -> float:
    score: float = Straightness()(CASE, Result(CASE.picture, torch.zeros(1), torch.zeros(1), path))
    return score


def circle(steps: int) -> list[Tensor]:
    """Half a circle of radius 2 in `steps` chords, as latents (1, 2, 2) of which two entries move."""
    angles = [math.pi * k / steps for k in range(steps + 1)]
    return [torch.tensor([[[2 * math.cos(a), 2 * math.sin(a)], [7.0, 7.0]]], dtype=torch.float64) for a in angles]


def test_straightness_is_length_over_chord() -> None:
    corner = [
        torch.tensor([[0.0, 0.0], [1.0, 1.0]]),
        torch.tensor([[3.0, 0.0], [2.0, 1.0]]),
        torch.tensor([[3.0, 4.0], [4.0, 1.0]]),
    ]
    torch.testing.assert_close(straightness(corner), torch.tensor([7.0 / 5.0, 1.0]))


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_half_a_circle_is_as_long_as_its_chords(steps: int) -> None:
    assert scored(*circle(steps)) == pytest.approx(steps * math.sin(math.pi / (2 * steps)), rel=1e-12)
    assert scored(*circle(1000)) == pytest.approx(math.pi / 2, rel=1e-6)


def test_a_straight_path_has_one_however_it_is_walked() -> None:
    start, way = torch.randn(3, 4, 4), torch.randn(3, 4, 4)
    assert scored(*(start + s * way for s in (0.0, 0.1, 0.7, 1.0))) == pytest.approx(1.0, abs=1e-6)
    assert scored(*(start + s * way for s in (0.0, 2.0, 1.0))) == pytest.approx(3.0, abs=1e-5)


def test_where_there_is_no_path_there_is_no_number() -> None:
    here, there = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    for path in ((), (here,), (here, here), (here, there, here)):
        assert math.isnan(scored(*path))
    assert Straightness.needs_path


def test_error_growth_is_what_the_editor_measured() -> None:
    growth, nothing = ErrorGrowth(), torch.zeros(1)
    assert growth(CASE, Result(CASE.picture, nothing, nothing, figures={"error-growth": 68.8, "other": 1.0})) == 68.8
    assert math.isnan(growth(CASE, Result(CASE.picture, nothing, nothing, figures={"other": 1.0})))
