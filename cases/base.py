"""The contract of a case and of a set of cases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stored:
    """Content that is read when it is looked at: thousands of pictures fit no memory. The last few that were read are kept.
    `shape` is known beforehand; `read` gives the same tensor every time. Raises ValueError (one sentence) where it cannot be
    read."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    def __call__(self) -> Tensor:
        """The content."""
        return _read(self)


@lru_cache(maxsize=32)
def _read(stored: Stored) -> Tensor:
    return stored.read()


@dataclass(frozen=True)
class Case:
    """One thing to edit.

    `id` is unique in its set and keys the noise. `content`: the picture, (3, H, W) in [0, 1], or (P, 2) points for the mixture,
    at hand or stored. `kind`: the kind of edit ("colour"). `truth`: what a perfect edit would give, same shape, where known;
    `determined`: (1, H, W) bool, where the truth is fixed by what can be seen in the source (None: everywhere).
    `asked`: the attribute values that the target asks for and `shown` those of the source, by attribute name.
    `region`: (1, H, W) of 0 and 1, 1 where the data set says that the edit belongs (None: it does not say). Only metrics look
    at it; no editor is told.
    """

    id: str
    content: Tensor | Stored
    source: str
    target: str
    kind: str = ""
    truth: Tensor | None = None
    determined: Tensor | None = None
    shown: tuple[tuple[str, str], ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    region: Tensor | Stored | None = None

    @property
    def picture(self) -> Tensor:
        """The content itself, read where it is stored."""
        return self.content() if isinstance(self.content, Stored) else self.content

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the content, without reading it."""
        return tuple(self.content.shape)

    @property
    def is_picture(self) -> bool:
        """Whether the content is a picture (3, H, W) and not a cloud of points."""
        return len(self.shape) == 3 and self.shape[0] == 3

    @property
    def mask(self) -> Tensor | None:
        """The region itself, read where it is stored."""
        return self.region() if isinstance(self.region, Stored) else self.region


class CaseSet(ABC):
    """A source of cases. Subclasses are frozen dataclasses whose fields are options (see `options.option`); a set that is read
    from a folder calls it `path`. `licence`: who may use the data, in a sentence, of a set that others have made."""

    licence: ClassVar[str] = ""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a folder or file looks like data of this kind, by its names alone."""
        return False

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

    def faults(self) -> Iterator[str | None]:
        """What is wrong with the data, one sentence each, naming the file and line; all of it, not only the first. Pictures are
        looked at one by one, and none is kept. None tells of a case that was looked at and is in order: it moves a bar on."""
        try:
            for case in self.take(None):
                yield _unreadable(case)
        except ValueError as fault:
            yield str(fault)


def _unreadable(case: Case) -> str | None:
    try:
        case.picture, case.mask  # noqa: B018  # reads what is stored
    except ValueError as fault:
        return f"{case.id}: {fault}"
    return None
