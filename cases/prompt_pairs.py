"""Pairs of prompts without pictures: what a source is drawn from, and what it is to be turned into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .folder import name_of, needed, rows

CAT_DOG: Final = "cat-dog"
"""The name of the list that is written here."""
SUFFIXES: Final = (".csv", ".jsonl")
"""How the name of a file with a list of prompts ends."""

_ADJECTIVES: Final = (
    *("fluffy", "small", "sleepy", "playful", "curious", "elegant", "old", "young", "chubby", "slender"),
    *("black", "white", "grey", "brown", "golden", "spotted", "shaggy", "happy", "grumpy", "wet"),
    *("muddy", "proud", "shy", "lazy", "brave"),
)
_DESCRIPTIONS: Final = (
    *("sitting on a wooden chair", "lying on a red sofa", "looking out of a rainy window", "sleeping in a wicker basket"),
    *(
        "standing in tall green grass",
        "walking along a beach at sunset",
        "in a field of yellow flowers",
        "wearing a blue collar",
    ),
    *("wearing a small straw hat", "wearing round glasses", "next to a potted plant", "under a kitchen table"),
    *("on a stone wall in the countryside", "on a snowy street at night", "in front of a fireplace", "in a cardboard box"),
    *("on a balcony above a busy city", "beside a bowl of food", "playing with a ball of wool", "looking into the camera"),
    *("seen from the side, against a plain white background", "seen from above on a tiled floor", "in soft morning light"),
    *("in black and white", "with autumn leaves all around", "by a lake in the mountains", "in a library full of books"),
    *("on a bed with striped sheets", "behind a garden fence", "on the bonnet of an old car", "under a large umbrella"),
    *("on a bench in a park", "in a bathtub full of bubbles", "with a blurred forest in the background"),
    *("on a carpet with a geometric pattern", "wrapped in a warm blanket", "beside a vase of tulips"),
    *("on a staircase in an old house", "in a sunlit greenhouse", "at a market stall full of fruit"),
)
CAT_DOG_SIZE: Final = len(_ADJECTIVES) * len(_DESCRIPTIONS)


class Pair(NamedTuple):
    """A source prompt and a target prompt. `id`: unique in its list, it keys the noise of the source. `kind` of edit, or ""."""

    id: str
    source: str
    target: str
    kind: str = ""


def cat_dog(count: int | None = None) -> Sequence[Pair]:
    """The first `count` (all if None) of 1000 variations of "a photo of a cat" by an adjective and a description, each with the
    same prompt about a dog. Neighbours differ in both, so that a few of them vary as much as all.

    It stands in for the list of Kulikov et al. (2024, arXiv 2412.08629, appendix M), which a language model wrote by the same
    recipe and which is not published. Raises ValueError for a count out of range.
    """
    wanted = CAT_DOG_SIZE if count is None else count
    if not 1 <= wanted <= CAT_DOG_SIZE:
        raise ValueError(f"{CAT_DOG} has 1 to {CAT_DOG_SIZE} pairs of prompts, got {wanted}")
    return [_cat_dog(number) for number in range(wanted)]


def _cat_dog(number: int) -> Pair:
    turn, place = divmod(number, len(_ADJECTIVES))
    adjective, description = _ADJECTIVES[place], _DESCRIPTIONS[(place + turn) % len(_DESCRIPTIONS)]
    article = "an" if adjective[0] in "aeiou" else "a"
    source, target = (f"a photo of {article} {adjective} {animal} {description}" for animal in ("cat", "dog"))
    return Pair(f"{CAT_DOG}-{number:04d}", source, target)


def read_pairs(listing: Path) -> Sequence[Pair]:
    """The pairs of a CSV or JSON-lines file with the columns source and target, and id and kind where it has them; a pair
    without an id is called after its place in the list. Raises ValueError naming the file and the line that is wrong."""
    if listing.suffix not in SUFFIXES:
        raise ValueError(f"{str(listing)!r} is no list of prompts by its name, which must end in {' or '.join(SUFFIXES)}")
    pairs: dict[str, Pair] = {}
    for number, row in rows(listing, ("source", "target")):
        try:
            if isinstance(row, ValueError):
                raise row
            name = name_of(row, "id") or f"{len(pairs):04d}"
            if name in pairs:
                raise ValueError(f"the id {name!r} is taken already; give each line one of its own")
            pairs[name] = Pair(name, needed(row, "source"), needed(row, "target"), name_of(row, "kind"))
        except ValueError as fault:
            raise ValueError(f"{listing.name}, line {number}: {fault}") from None
    if not pairs:
        raise ValueError(f"{str(listing)!r} names no prompts; add lines with source and target")
    return list(pairs.values())
