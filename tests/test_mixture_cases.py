"""The clouds of the mixture experiment and what is measured on them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fe.cases.base import Case
from fe.cases.mixture import CLOUDS, STD, MixtureCases, modes
from fe.experiments.names import build_cases, build_metric, load_model
from fe.metrics.base import Result
from fe.metrics.mixture import ModeDistance, TransportCost, WrongMode
from fe.models.base import Setup
from fe.models.mixture import MixtureModel
from fe.options import OptionError


def result(points: torch.Tensor) -> Result:
    return Result(points, points, points)


def test_a_cloud_does_not_depend_on_how_many_are_taken() -> None:
    few, all_of_them = MixtureCases(points=50).take(2), MixtureCases(points=50).take(None)
    assert len(all_of_them) == CLOUDS
    assert len({case.id for case in all_of_them}) == CLOUDS
    for one, other in zip(few, all_of_them, strict=False):
        assert one.id == other.id
        assert torch.equal(one.picture, other.picture)


def test_clouds_and_seeds_differ() -> None:
    pictures = [case.picture for seed in (0, 1) for case in MixtureCases(points=5, seed=seed).take(3)]
    assert len({tuple(picture.flatten().tolist()) for picture in pictures}) == 6


def test_a_cloud_is_drawn_from_the_source() -> None:
    (case,) = MixtureCases(points=20_000).take(1)
    upper = case.picture[case.picture.sum(-1) > 0].double()
    assert len(upper) / 20_000 == pytest.approx(0.5, abs=0.015)
    torch.testing.assert_close(upper.mean(0), modes("source")[1], atol=0.04, rtol=0)
    torch.testing.assert_close(upper.std(0), torch.full((2,), STD, dtype=torch.float64), atol=0.03, rtol=0)


def test_options() -> None:
    assert MixtureCases(target="printed-target", points=3).take(1)[0].target == "printed-target"
    with pytest.raises(OptionError, match="points must be from 1"):
        MixtureCases(points=0)
    with pytest.raises(OptionError, match="target must be one of target, printed-target, got 'source'"):
        MixtureCases(target="source")
    with pytest.raises(ValueError, match="at least 1 case"):
        MixtureCases().take(0)


def test_transport_cost_of_a_shift() -> None:
    (case,) = MixtureCases(points=100).take(1)
    assert TransportCost()(case, result(case.picture + torch.tensor([3.0, 4.0]))) == pytest.approx(25.0, rel=1e-5)


@pytest.mark.parametrize("target", ["target", "printed-target"])
def test_wrong_mode_counts_points_that_crossed(target: str) -> None:
    (case,) = MixtureCases(points=100, target=target).take(1)
    right = modes(target)[(case.picture.sum(-1) > 0).long()].float()
    wrong = modes(target)[(case.picture.sum(-1) <= 0).long()].float()
    assert WrongMode()(case, result(right)) == 0.0
    assert WrongMode()(case, result(wrong)) == 1.0
    assert WrongMode()(case, result(torch.cat((wrong[:30], right[30:])))) == pytest.approx(0.3)


def test_mode_distance_is_root_mean_square() -> None:
    (case,) = MixtureCases(points=20_000).take(1)
    chosen = modes("target")[torch.arange(20_000) % 2]
    spread = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(3))
    assert ModeDistance()(case, result(chosen + STD * spread)) == pytest.approx(math.sqrt(2) * STD, abs=0.02)
    assert ModeDistance()(case, result(chosen + torch.tensor([0.0, 2.0]))) == pytest.approx(2.0)


def test_only_clouds_of_the_mixture_suit() -> None:
    (cloud,) = MixtureCases(points=4).take(1)
    picture = Case("picture", torch.zeros(3, 8, 8), "a red star", "a blue star")
    for metric in (TransportCost(), WrongMode(), ModeDistance()):
        assert metric.suits(cloud)
        assert not metric.suits(picture)
        assert not metric.suits(replace(cloud, target="a blue star"))


def test_they_are_in_the_registry() -> None:
    assert build_cases("mixture", {"points": "7", "target": "printed-target"}) == MixtureCases(
        points=7, target="printed-target"
    )
    assert isinstance(load_model("mixture", Setup()), MixtureModel)
    for name, kind in (("transport-cost", TransportCost), ("wrong-mode", WrongMode), ("mode-distance", ModeDistance)):
        assert isinstance(build_metric(name), kind)
