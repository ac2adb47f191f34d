"""What all case sets have in common: a case by its number is the one among the first, and is had without those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from fe.cases.base import Case, CaseSet
from fe.cases.mixture import MixtureCases
from fe.cases.scenes import ScenesCases


@dataclass(frozen=True)
class TwoCases(CaseSet):
    """A set that says no more than it must."""

    def take(self, count: int | None) -> Sequence[Case]:
        return [Case(name, torch.full((3, 1, 1), float(i)), name, "") for i, name in enumerate("ab")][:count]


@pytest.mark.parametrize(
    "cases", [ScenesCases(), ScenesCases(kinds="size,shape", offset=3), MixtureCases(points=3), TwoCases()]
)
def test_a_case_by_its_number_is_the_one_among_the_first(cases: CaseSet) -> None:
    for index, one in enumerate(cases.take(2)):
        same = cases.case(index)
        assert torch.equal(same.picture, one.picture)
        assert (same.id, same.source, same.target, same.asked) == (one.id, one.source, one.target, one.asked)


def test_a_case_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="case 2 does not exist; there are the cases 0 to 1"):
        TwoCases().case(2)
    assert ScenesCases().case(999_999).id.startswith("scenes/test/999999-")  # at once, not after all others
    with pytest.raises(ValueError, match="case 1000000 is out of range; split 'test' has 1000000 cases"):
        ScenesCases().case(1_000_000)
