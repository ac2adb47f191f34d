"""How a method went from the source to its result: how straight, and how much it amplifies an error on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from .base import Metric, Result


def straightness(path: Sequence[Tensor]) -> Tensor:
    """Length of the path over the length of its chord, one for each row (B,): 1 for a straight path, NaN for a still one.

    path: states (B, ...), two or more.
    """
    length = torch.stack([_norms(b - a) for a, b in pairwise(path)]).sum(0)
    return length / _norms(path[-1] - path[0])


def _norms(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt()


class Straightness(Metric):
    """Length of the noise-free path from the source to the result over the length of its chord: 1 for a straight path, which
    a single step would follow as well. NaN for methods that have no such path, and where it ends at the source."""

    label: ClassVar[str] = "path over chord"
    digits: ClassVar[int] = 3
    needs_path: ClassVar[bool] = True

    def __call__(self, case: Case, result: Result) -> float:
        if len(result.path) < 2:
            return math.nan
        found = straightness([state.double()[None] for state in result.path]).item()
        return found if math.isfinite(found) else math.nan


class ErrorGrowth(Metric):
    """How many times larger a small error in the noise is in the picture, |D0| / |DT|, as the editor `perturbation` measures
    it: at most e^L for a velocity with Lipschitz constant L walked over unit time. NaN for editors that do not measure it."""

    label: ClassVar[str] = "error growth"

    def __call__(self, case: Case, result: Result) -> float:
        return result.figures.get("error-growth", math.nan)
