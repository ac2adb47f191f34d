"""The contract of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..cases.base import Case

Task = Literal["reconstruct", "edit"]
"""What a method was asked for: the source again (inverted, then generated with its own prompt), or the edited picture."""


@dataclass(frozen=True)
class Result:
    """What a method made of one case: its picture (3, H, W) in [0, 1] (or points (P, 2)), its latent, the source's latent."""

    picture: Tensor
    latent: Tensor
    source_latent: Tensor


class Metric(ABC):
    """One number for one result. What it compares the result with (source, truth, asked attributes) is part of its meaning
    and stands in its docstring.

    `label` is the column's heading; `unit` ("dB", "%", "" if none): a metric in "%" gives a share from 0 to 1, shown times
    100. `higher_is_better` is None where neither is. `proportion`: the value is a success or a failure of the case as a whole
    (0 or 1, or a share of a few), so that its interval is Wilson's. `tasks`: what the metric can say something about.
    """

    label: ClassVar[str]
    unit: ClassVar[str] = ""
    digits: ClassVar[int] = 2
    higher_is_better: ClassVar[bool | None] = None
    proportion: ClassVar[bool] = False
    tasks: ClassVar[tuple[Task, ...]] = ("edit",)

    def suits(self, case: Case) -> bool:
        """Whether the metric is defined for this case at all (it has a truth, it is a picture and not points, ...)."""
        return True

    @abstractmethod
    def __call__(self, case: Case, result: Result) -> float:
        """The score, or NaN where it is not defined for this result (which is then left out of the mean, and counted)."""
