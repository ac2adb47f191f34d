"""The contract of a case and of a set of cases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One thing to edit.

    `id` is unique in its set and keys the noise. `picture`: (3, H, W) in [0, 1], or (P, 2) points for the mixture.
    `kind`: the kind of edit ("colour"). `truth`: what a perfect edit would give, same shape, where known;
    `determined`: (1, H, W) bool, where the truth is fixed by what can be seen in the source (None: everywhere).
    `asked`: the attribute values that the target asks for and `shown` those of the source, by attribute name.
    """

    id: str
    picture: Tensor
    source: str
    target: str
    kind: str = ""
    truth: Tensor | None = None
    determined: Tensor | None = None
    shown: tuple[tuple[str, str], ...] = ()
    asked: tuple[tuple[str, str], ...] = ()


class CaseSet(ABC):
    """A source of cases. Subclasses are frozen dataclasses whose fields are options (see `options.option`)."""

    @abstractmethod
    def take(self, count: int | None) -> Sequence[Case]:
        """The first `count` cases (all of them if None), the same every time.
        Raises ValueError (one sentence) if the set cannot be read or has none."""

    def case(self, index: int) -> Case:
        """The case that `take` gives at `index`, which counts from 0. Raises ValueError (one sentence) if there is none."""
        taken = self.take(index + 1)
        if len(taken) <= index:
            raise ValueError(f"case {index} does not exist; there are the cases 0 to {len(taken) - 1}")
        return taken[index]
