"""The contract of a metric: of one result, or of a whole set of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from ..cases.base import Case
from ..options import option

Task = Literal["reconstruct", "edit"]
"""What a method was asked for: the source again (inverted, then generated with its own prompt), or the edited picture."""


@dataclass(frozen=True)
class Result:
    """What a method made of one case: its picture (3, H, W) in [0, 1] (or points (P, 2)), its latent, the source's latent;
    `path`: the noise-free latents from the source to the result, for metrics that ask for it and editors that have one;
    `figures`: what the editor measured on its way, by name."""

    picture: Tensor
    latent: Tensor
    source_latent: Tensor
    path: Sequence[Tensor] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


class Score(ABC):
    """What a column of a table is. What it compares a result with (source, truth, prompt) is part of its meaning and stands in
    its docstring. Subclasses that have options are frozen dataclasses whose fields are made by `options.option`.

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

    def missing(self) -> str:
        """Why it cannot be had on this machine and what would fetch it, in one sentence; "" where it can. It costs little,
        loads nothing, and asks no network: weights are looked for on this machine only, and fetched by the user."""
        return ""

    def suits(self, case: Case) -> bool:
        """Whether the metric is defined for this case at all (it has a truth, it is a picture and not points, ...), without
        reading its picture."""
        return True


class Metric(Score):
    """One number for one result. `needs_path`: it looks at `Result.path`, which is kept for it."""

    needs_path: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, case: Case, result: Result) -> float:
        """The score, or NaN where it is not defined for this result (which is then left out of the mean, and counted)."""

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        """The scores of several results. A network's metric overrides it to look at them as one batch; the numbers are the
        same up to rounding."""
        return [self(case, result) for case, result in zip(cases, results, strict=True)]


@dataclass(frozen=True)
class SetMetric(Score):
    """One number for the pictures of a row as a set, held against a set of references: a distance of distributions. Subclasses
    are frozen dataclasses.

    A picture becomes features once; the interval is found by drawing features again (bootstrap). auto: the truths where the
    cases have them, else the control that generates from noise with the target prompts."""

    against: str = option("auto", "the references: auto, truth, source, a row of the same comparison, or a folder of pictures")

    @abstractmethod
    def features(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to features (B, D), float64 on the CPU."""

    @abstractmethod
    def distance(self, features: Tensor, references: Tensor) -> float:
        """Features (N, D) against (M, D). NaN where there are too few of them."""
