"""The contract of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..cases.base import Case

Against = Literal["source", "truth", "none"]


@dataclass(frozen=True)
class Result:
    """What a method made of one case: its picture (3, H, W) in [0, 1] (or points (P, 2)), its latent, the source's latent."""

    picture: Tensor
    latent: Tensor
    source_latent: Tensor


class Metric(ABC):
    """One number for one result.

    `name` as in the registry; `label` the column's heading; `unit` ("dB", "%", "" if none); `higher_is_better` (None where
    neither is); `proportion` if a value is a success or failure (0 or 1, or a share), so that intervals are Wilson's.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    unit: ClassVar[str] = ""
    digits: ClassVar[int] = 2
    higher_is_better: ClassVar[bool | None] = None
    proportion: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, case: Case, result: Result) -> float:
        """The score, or NaN where it is not defined for this case (the case is then left out of the mean, and counted)."""
