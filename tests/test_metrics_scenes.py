"""Edit metrics of the scenes world, with a judge whose readings are given."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fe.cases.base import Case
from fe.cases.scenes import ScenesCases
from fe.metrics import scenes
from fe.metrics.base import Result
from fe.metrics.scenes import AllRight, Changed, Kept, TruthPSNR
from fe.options import OptionError
from fe.scenes.judge import Reading
from torch import Tensor

SHOWN = {
    "shape": "star",
    "colour": "red",
    "size": "large",
    "position": "left",
    "background": "blue",
    "pattern": "plain",
}
CASE = Case(
    "a",
    torch.zeros(3, 4, 4),
    "",
    "",
    truth=torch.zeros(3, 4, 4),
    shown=tuple(SHOWN.items()),
    asked=tuple((SHOWN | {"shape": "heart"}).items()),
)


class Given:
    """A judge that reads the same off every picture."""

    def __init__(self, **seen: str) -> None:
        self.reading = Reading(**(SHOWN | seen))

    def read(self, pictures: Tensor) -> list[Reading]:
        return [self.reading] * len(pictures)


def result(picture: Tensor) -> Result:
    return Result(picture, torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize(
    ("seen", "changed", "kept", "all_right"),
    [
        ({"shape": "heart"}, 1.0, 1.0, 1.0),
        ({}, 0.0, 1.0, 0.0),
        ({"shape": "ring"}, 0.0, 1.0, 0.0),
        ({"shape": "heart", "colour": "pink", "pattern": "dotted"}, 1.0, 0.6, 0.0),
    ],
)
def test_what_the_judge_reads(
    monkeypatch: pytest.MonkeyPatch, seen: dict[str, str], changed: float, kept: float, all_right: float
) -> None:
    monkeypatch.setattr(scenes, "_judge", lambda: Given(**seen))
    assert Changed()(CASE, result(CASE.picture)) == changed
    assert Kept()(CASE, result(CASE.picture)) == pytest.approx(kept)
    assert AllRight()(CASE, result(CASE.picture)) == all_right


def test_every_asked_change_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_judge", lambda: Given(shape="heart"))
    both = replace(CASE, asked=tuple((SHOWN | {"shape": "heart", "size": "small"}).items()))
    assert Changed()(both, result(CASE.picture)) == 0.0
    assert math.isnan(Changed()(replace(CASE, asked=CASE.shown), result(CASE.picture)))


def test_the_truth_counts_where_it_is_determined() -> None:
    determined = torch.zeros(1, 4, 4, dtype=torch.bool)
    determined[:, :2] = True
    picture = torch.zeros(3, 4, 4)
    picture[:, 0], picture[:, 3] = 0.1, 0.9  # a quarter off by 0.1 in sight, a quarter off by 0.9 where nobody can know
    case = replace(CASE, determined=determined)
    assert TruthPSNR()(case, result(picture)) == pytest.approx(-10 * math.log10(0.1**2 / 2), rel=1e-6)
    assert TruthPSNR()(CASE, result(picture)) == pytest.approx(-10 * math.log10((0.1**2 + 0.9**2) / 4), rel=1e-6)
    assert TruthPSNR()(CASE, result(CASE.picture)) == 100.0
    nowhere = replace(CASE, determined=torch.zeros(1, 4, 4, dtype=torch.bool))
    assert math.isnan(TruthPSNR()(nowhere, result(picture)))
    assert math.isnan(TruthPSNR()(CASE, result(picture * math.nan)))  # and not the best of all


def test_cases_without_truth_or_attributes_suit_none() -> None:
    plain = Case("b", torch.zeros(3, 4, 4), "", "")
    assert not any(metric().suits(plain) for metric in (TruthPSNR, Changed, Kept))
    assert all(metric().suits(CASE) for metric in (TruthPSNR, Changed, Kept))


def test_the_shipped_judge_takes_the_truth_for_a_perfect_edit() -> None:
    for case in ScenesCases(split="development").take(6):
        assert case.truth is not None
        assert (Changed()(case, result(case.truth)), Kept()(case, result(case.truth))) == (1.0, 1.0)
        assert Changed()(case, result(case.picture)) == 0.0


def test_scenes_cases_take_turns_and_are_the_same_every_time() -> None:
    cases = ScenesCases().take(12)
    assert [case.kind for case in cases[:6]] == [case.kind for case in cases[6:]]
    assert len({case.kind for case in cases}) == 6
    again = ScenesCases(offset=6).take(3)
    assert [case.id for case in again] == [case.id for case in cases[6:9]]
    assert all(torch.equal(one.picture, other.picture) for one, other in zip(again, cases[6:9], strict=True))
    for case in cases:
        assert {name for name, value in case.asked if dict(case.shown)[name] != value} == {case.kind}
        assert case.truth is not None
        assert not torch.equal(case.truth, case.picture)


def test_kinds_and_splits_can_be_chosen() -> None:
    some = ScenesCases(split="development", kinds="colour,background").take(4)
    assert [case.kind for case in some] == ["colour", "background"] * 2
    assert not {case.id for case in some} & {case.id for case in ScenesCases(kinds="colour,background").take(4)}
    with pytest.raises(OptionError, match=r"kinds must be among shape, .*got 'smell'"):
        ScenesCases(kinds="colour,smell")
