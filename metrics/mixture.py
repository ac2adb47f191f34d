"""What an edit made of a cloud of points from a Gaussian mixture (see `cases.mixture`).

Read them together: a transport cost below the optimal one only says that an edit stopped short of the modes, and the distance
to the modes shows it. They are for clouds of the mixture only.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from ..cases.mixture import MODES, modes
from .base import Metric, Result


class TransportCost(Metric):
    """The mean squared distance from a point of the source to what it became."""

    label: ClassVar[str] = "transport cost"
    digits: ClassVar[int] = 1
    higher_is_better: ClassVar[bool | None] = False

    def suits(self, case: Case) -> bool:
        return _is_cloud(case)

    def __call__(self, case: Case, result: Result) -> float:
        return (result.picture.double() - case.picture.double()).square().sum(-1).mean().item()


class WrongMode(Metric):
    """The share, in [0, 1], of points that landed at a wrong mode. A point belongs to the source mode it is nearest to; the
    right target mode is the one nearest to that source mode; a point lands at the target mode it is nearest to."""

    label: ClassVar[str] = "wrong mode"
    unit: ClassVar[str] = "%"
    digits: ClassVar[int] = 1
    higher_is_better: ClassVar[bool | None] = False

    def suits(self, case: Case) -> bool:
        return _is_cloud(case)

    def __call__(self, case: Case, result: Result) -> float:
        source, target = modes(case.source), modes(case.target)
        partner = _distances(source, target).argmin(-1)
        right = partner[_distances(case.picture, source).argmin(-1)]
        landed = _distances(result.picture, target).argmin(-1)
        return (landed != right).double().mean().item()


class ModeDistance(Metric):
    """The root mean square distance from an edited point to the target mode nearest to it. Points of the target mixture
    itself give sqrt(2) times the modes' standard deviation, 1.41: neither more nor less is better."""

    label: ClassVar[str] = "distance to the mode"
    digits: ClassVar[int] = 2

    def suits(self, case: Case) -> bool:
        return _is_cloud(case)

    def __call__(self, case: Case, result: Result) -> float:
        return _distances(result.picture, modes(case.target)).amin(-1).square().mean().sqrt().item()


def _is_cloud(case: Case) -> bool:
    return case.picture.ndim == 2 and case.source in MODES and case.target in MODES


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Points (P, 2), centres (K, 2) to the distances (P, K), in float64."""
    return torch.cdist(points.double().cpu(), centres)
