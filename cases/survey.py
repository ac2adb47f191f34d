"""What a set of cases holds, at a glance, and what is odd about it without being wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .base import Case

NAMED = 5
"""How many cases a note names; of the others it tells the number."""


@dataclass(frozen=True)
class Survey:
    """How many cases there are, how many of each kind (in the order of their first), how many have a mask, the smallest and the
    largest picture as (height, width) where there are pictures, and notes, one sentence each."""

    count: int
    kinds: Mapping[str, int]
    masks: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    notes: Sequence[str]


def survey(cases: Iterable[Case]) -> Survey:
    """Look at all cases, and at the masks of those that have one; no picture is read."""
    kinds: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    odd: dict[str, list[str]] = {}
    masks = 0
    for case in cases:
        kinds[case.kind] += 1
        masks += case.region is not None
        if case.is_picture:
            sizes.add((case.shape[1], case.shape[2]))
        for what in _oddities(case):
            odd.setdefault(what, []).append(case.id)
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return Survey(
        count=kinds.total(),
        kinds=dict(kinds),
        masks=masks,
        smallest=by_area[0] if by_area else None,
        largest=by_area[-1] if by_area else None,
        notes=[f"{what}: {few(ids)}" for what, ids in odd.items()],
    )


def few(names: Sequence[str]) -> str:
    """A list of names, cut short where it is long."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _oddities(case: Case) -> Iterable[str]:
    if not case.source.strip():
        yield "the source prompt is empty"
    if not case.target.strip():
        yield "the target prompt is empty"
    elif case.source == case.target:
        yield "source and target are the same prompt, so nothing is to be edited"
    try:
        mask = case.mask
    except ValueError:  # a fault, and told as one
        return
    if mask is not None and bool(mask.all()):
        yield "the mask covers the whole picture, so scores of the background are not defined"
    if mask is not None and not bool(mask.any()):
        yield "the mask covers nothing, so scores of the edited part are not defined"
