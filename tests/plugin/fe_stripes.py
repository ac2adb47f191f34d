"""A plug-in that measures: a metric with an option and weights, a metric of whole rows, and a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from fe.cases.base import Case, CaseSet, Stored
from fe.metrics.base import Metric, Result, SetMetric
from fe.options import check, option
from torch import Tensor

LIST = "stripes.txt"


@dataclass(frozen=True)
class Warmth(Metric):
    """How much warmer the result is than the source: the mean colour by a weight for each channel."""

    label: ClassVar[str] = "warmth"
    digits: ClassVar[int] = 3

    weights: str = option("warmth.txt", "the file with the three weights")
    times: float = option(1.0, "what it is multiplied by", low=0.0)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        there = Path(self.weights).is_file()
        return "" if there else f"the weights {self.weights!r} are not here; write them with: echo 1 0 -1 > {self.weights}"

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        weights = torch.tensor([float(word) for word in Path(self.weights).read_text().split()])
        return self.times * float(weights @ (colours(result.picture) - colours(case.picture)))


@dataclass(frozen=True)
class ColourDistance(SetMetric):
    """How far the mean colour of a set of pictures is from that of its references, 0 to sqrt(3)."""

    label: ClassVar[str] = "colour distance"
    higher_is_better: ClassVar[bool | None] = False

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def features(self, pictures: Tensor) -> Tensor:
        return pictures.double().mean((2, 3))

    def distance(self, features: Tensor, references: Tensor) -> float:
        return float((features.mean(0) - references.mean(0)).norm())


@dataclass(frozen=True)
class StripesCases(CaseSet):
    """Pictures of two colours, one a line of stripes.txt: the share of the picture that is red. `take` raises ValueError naming
    the line that is wrong."""

    licence: ClassVar[str] = "in the public domain"

    path: str = option("", f"the folder with {LIST}")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / LIST).is_file()

    def take(self, count: int | None) -> Sequence[Case]:
        cases = []
        for one in self._lines():
            if isinstance(one, ValueError):
                raise one
            cases.append(one)
        return cases[:count]

    def faults(self) -> Iterator[str | None]:
        for one in self._lines():
            yield str(one) if isinstance(one, ValueError) else None

    def _lines(self) -> Iterator[Case | ValueError]:
        for number, line in enumerate((Path(self.path) / LIST).read_text().splitlines(), start=1):
            try:
                content = Stored((3, 64, 64), partial(striped, float(line)))  # drawn when it is looked at
                yield Case(
                    f"stripe-{number}",
                    content,
                    "a red star on a blue background",
                    "a green star on a blue background",
                    "colour",
                )
            except ValueError:
                yield ValueError(f"{LIST}, line {number}: a number from 0 to 1 is wanted, got {line!r}")


def striped(share: float) -> Tensor:
    picture = torch.zeros(3, 64, 64)
    picture[2] = 1.0
    picture[:, : round(64 * share)] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return picture


def colours(picture: Tensor) -> Tensor:
    return picture.mean((1, 2))
