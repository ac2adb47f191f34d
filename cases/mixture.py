"""The mixture experiment: clouds of points from one Gaussian mixture, to be carried to another (two modes each, in the plane).

Kulikov et al. 2024 (arXiv 2412.08629), the synthetic comparison of FlowEdit with editing by inversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from ..options import check, option
from .base import Case, CaseSet

_DIAGONAL = 15.0 / math.sqrt(2.0)

MODES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "source": ((-_DIAGONAL, -_DIAGONAL), (_DIAGONAL, _DIAGONAL)),
    "target": ((-15.0, 0.0), (15.0, 0.0)),
    "printed-target": ((-15.0, 0.0), (0.0, 15.0)),
}
"""What a mixture's prompt means: the centres of its equally weighted modes. The paper prints its target as
"printed-target", whose modes mirror each other in a line through the source's two modes, so that no method can send a point to
the wrong one; "target" leaves the methods something to get wrong."""

STD = 1.0
"""The standard deviation of every mode."""

CLOUDS = 20
"""How many clouds the whole set has: with 1000 points each, the experiment's 20,000 points."""


def modes(prompt: str) -> Tensor:
    """The centres (K, 2), float64, of the mixture that `prompt` names. Raises ValueError if no mixture is called so."""
    if prompt not in MODES:
        raise ValueError(f"the mixture model reads the prompts {', '.join(MODES)}, got {prompt!r}")
    return torch.tensor(MODES[prompt], dtype=torch.float64)


@dataclass(frozen=True)
class MixtureCases(CaseSet):
    """Clouds of points drawn from the source mixture; one cloud (P, 2) is one case, with a generator of its own.

    `take(None)` gives CLOUDS of them; more can be asked for. Raises OptionError for options out of range.
    """

    points: int = option(1000, "points in a cloud", low=1, high=1_000_000)
    seed: int = option(0, "seed of the clouds", low=0)
    target: str = option("target", "the mixture to reach", choices=("target", "printed-target"))

    def __post_init__(self) -> None:
        check(self)

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        return [self._cloud(index) for index in range(CLOUDS if count is None else count)]

    def case(self, index: int) -> Case:
        return self._cloud(index)

    def _cloud(self, index: int) -> Case:
        # torch's CPU generator reads no more than 32 bits of its seed: a hash spreads seed and index over all of them.
        digest = sha256(f"mixture|{self.seed}|{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        centres = modes("source")
        chosen = torch.randint(len(centres), (self.points,), generator=generator)
        spread = torch.randn(self.points, 2, generator=generator, dtype=torch.float64)
        picture = (centres[chosen] + STD * spread).float()
        return Case(f"mixture-{self.seed}-{index:04d}", picture, "source", self.target, kind=self.target)
