"""The scenes world as cases: drawn pictures, one attribute to change, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ..options import OptionError, check, option
from ..scenes.attributes import KINDS
from ..scenes.counterfactual import EditCase, edit_case
from .base import Case, CaseSet

WHOLE = 600
"""How many cases `take(None)` gives; more can be asked for."""


@dataclass(frozen=True)
class ScenesCases(CaseSet):
    """Counterfactual edits of the scenes world; the kinds take turns, so that every six (or as many as are named) cases hold
    each kind once. Raises OptionError for options out of range; `take` raises ValueError past the end of a split."""

    split: Literal["test", "development"] = option("test", "the seeds to draw from", choices=("test", "development"))
    kinds: str = option("all", f"kinds of edit, separated by commas: {', '.join(KINDS)}; or all")
    offset: int = option(0, "cases to pass over", low=0)

    def __post_init__(self) -> None:
        check(self)
        unknown = [kind for kind in self._kinds() if kind not in KINDS]
        if unknown:
            raise OptionError(f"ScenesCases.kinds must be among {', '.join(KINDS)}, or all; got {unknown[0]!r}")

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        kinds = self._kinds()
        indices = range(self.offset, self.offset + (WHOLE if count is None else count))
        return [_case(edit_case(self.split, i // len(kinds), kinds[i % len(kinds)])) for i in indices]

    def case(self, index: int) -> Case:
        (one,) = replace(self, offset=self.offset + index).take(1)  # without drawing those before it
        return one

    def _kinds(self) -> tuple[str, ...]:
        named = (kind.strip() for kind in self.kinds.split(","))
        return KINDS if self.kinds == "all" else tuple(dict.fromkeys(named))


def _case(edit: EditCase) -> Case:
    return Case(
        id=edit.name,
        content=edit.picture(),
        source=edit.source_caption,
        target=edit.target_caption,
        kind=edit.kind,
        truth=edit.truth(),
        determined=edit.determined(),
        shown=tuple(asdict(edit.source).items()),
        asked=tuple(asdict(edit.target).items()),
    )
