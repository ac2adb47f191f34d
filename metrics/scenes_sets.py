"""How far a set of edits is from a set of references in the scenes world, in what the judge sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from .base import SetMetric
from .frechet import frechet

if TYPE_CHECKING:
    from ..scenes.judge import Judge

_SHAPE = (3, 64, 64)


@dataclass(frozen=True)
class JudgeFrechet(SetMetric):
    """Frechet's distance in the 128 features that the judge reads its attributes from: what FID is for photographs, and always
    at hand. It says something of scenes alone, and is asked for by name where pictures of that size come from elsewhere. It is
    too large at few pictures, by about a constant over their number; figures compare at equal numbers alone."""

    label: ClassVar[str] = "judge Frechet"
    digits: ClassVar[int] = 1
    higher_is_better: ClassVar[bool | None] = False

    def suits(self, case: Case) -> bool:
        return case.shape == _SHAPE

    def features(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, 64, 64) in [0, 1] to features (B, 128). Raises ValueError for another shape."""
        if pictures.shape[1:] != _SHAPE:
            raise ValueError(f"the judge reads pictures of shape {_SHAPE}, got {tuple(pictures.shape[1:])}")
        with torch.inference_mode():
            features: Tensor = _judge().trunk(pictures.float().clamp(0, 1) * 2 - 1)
        return features.double()

    def distance(self, features: Tensor, references: Tensor) -> float:
        return frechet(features, references)


@cache
def _judge() -> Judge:
    from ..scenes.judge import Judge

    return Judge.load()
