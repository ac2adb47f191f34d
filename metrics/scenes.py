"""How right an edit is in the scenes world, where the right answer is known: against its picture, and as the judge reads it."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ..cases.base import Case
from .base import Metric, Result
from .pixels import BEST_PSNR

if TYPE_CHECKING:
    from ..scenes.judge import Judge


class TruthPSNR(Metric):
    """The peak signal-to-noise ratio, in dB, to the counterfactual truth, over the pixels where the truth is determined by
    what the source shows; at most 100. NaN where no pixel is determined."""

    label: ClassVar[str] = "PSNR to truth"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool | None] = True

    def suits(self, case: Case) -> bool:
        return case.truth is not None and case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        assert case.truth is not None  # or it would not suit
        error = (result.picture - case.truth).square()
        if case.determined is not None:
            error = error[:, case.determined[0]]  # (3, number of determined pixels)
        if error.numel() == 0:
            return math.nan
        return min(-10 * math.log10(max(error.mean().item(), 1e-30)), BEST_PSNR)  # in this order NaN stays NaN


class Changed(Metric):
    """Whether the judge reads every attribute value that was asked for, 1 or 0. NaN where nothing was asked for."""

    label: ClassVar[str] = "asked changed"
    unit: ClassVar[str] = "%"
    digits: ClassVar[int] = 0
    higher_is_better: ClassVar[bool | None] = True
    proportion: ClassVar[bool] = True

    def suits(self, case: Case) -> bool:
        return _judged(case)

    def __call__(self, case: Case, result: Result) -> float:
        asked = _changes(case)
        if not asked:
            return math.nan
        seen = _read(result.picture)
        return float(all(seen[name] == value for name, value in asked.items()))


class Kept(Metric):
    """The share, in [0, 1], of the other attributes that the judge reads as the source has them."""

    label: ClassVar[str] = "others kept"
    unit: ClassVar[str] = "%"
    digits: ClassVar[int] = 0
    higher_is_better: ClassVar[bool | None] = True
    proportion: ClassVar[bool] = True

    def suits(self, case: Case) -> bool:
        return _judged(case)

    def __call__(self, case: Case, result: Result) -> float:
        asked, seen = _changes(case), _read(result.picture)
        others = [seen[name] == value for name, value in case.shown if name not in asked]
        return sum(others) / len(others) if others else math.nan


class AllRight(Metric):
    """Whether the judge reads every attribute as the target has it, those to be changed and those to be kept, 1 or 0."""

    label: ClassVar[str] = "all right"
    unit: ClassVar[str] = "%"
    digits: ClassVar[int] = 0
    higher_is_better: ClassVar[bool | None] = True
    proportion: ClassVar[bool] = True

    def suits(self, case: Case) -> bool:
        return _judged(case) and bool(case.asked)

    def __call__(self, case: Case, result: Result) -> float:
        seen = _read(result.picture)
        return float(all(seen[name] == value for name, value in case.asked))


def _judged(case: Case) -> bool:
    return bool(case.shown) and case.is_picture


def _changes(case: Case) -> dict[str, str]:
    """The attributes that the target asks to be other than the source shows them."""
    shown = dict(case.shown)
    return {name: value for name, value in case.asked if shown.get(name) != value}


@cache
def _judge() -> Judge:
    from ..scenes.judge import Judge

    return Judge.load()


def _read(picture: Tensor) -> dict[str, str]:
    return _judge().read(picture[None])[0]._asdict()
