"""Edits whose right answer is known: the same nuisances, one attribute changed.

Not everything in the answer follows from the source picture. Where an edit uncovers what the source did not show (the stripes
of a plain background, the tilt of a circle), an editor can only guess, and the mask `determined` leaves those pixels out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from .attributes import KINDS, RANGES, VALUES, Nuisance, Scene
from .render import render

Split = Literal["development", "test"]

SEEDS: Final[dict[str, range]] = {"development": range(1_000_000, 2_000_000), "test": range(2_000_000, 3_000_000)}
"""The seeds of each split. Training starts at 1,000,000,000 and the judge's own at 2,000,000,000."""
DRAWS: Final = 32
"""How many guesses of the hidden nuisances decide whether a pixel is determined."""
AGREEMENT: Final = 1.0 / 255.0
"""Guesses agree on a pixel when every channel spreads less than this."""


@dataclass(frozen=True)
class EditCase:
    """One edit with its truth; `kind` is the attribute that differs between `source` and `target`."""

    split: Split
    index: int
    seed: int
    kind: str
    source: Scene
    target: Scene
    nuisance: Nuisance

    @property
    def name(self) -> str:
        """A stable name, such as 'scenes/test/000007-colour'."""
        return f"scenes/{self.split}/{self.index:06d}-{self.kind}"

    @property
    def source_caption(self) -> str:
        """The caption of the picture that is edited."""
        return self.source.caption()

    @property
    def target_caption(self) -> str:
        """The caption that asks for the edit."""
        return self.target.caption()

    @property
    def held_out(self) -> bool:
        """Whether the training never saw the source's or the target's shape and colours together."""
        return self.source.held_out or self.target.held_out

    def picture(self) -> Tensor:
        """The picture that is edited: (3, 64, 64), float32 in [0, 1]."""
        return render([self.source], [self.nuisance])[0]

    def truth(self) -> Tensor:
        """The right answer: (3, 64, 64), float32 in [0, 1]."""
        return render([self.target], [self.nuisance])[0]

    def determined(self) -> Tensor:
        """Where the right answer follows from the source picture and the target caption: (1, 64, 64), bool."""
        guesses = possible_nuisances(self.source, self.nuisance, self.seed, DRAWS)
        if not guesses:
            return torch.ones(1, 64, 64, dtype=torch.bool)
        answers = render([self.target] * (len(guesses) + 1), [self.nuisance, *guesses])
        return ((answers.amax(dim=0) - answers.amin(dim=0)) < AGREEMENT).all(dim=0, keepdim=True)


def hidden_nuisances(scene: Scene) -> frozenset[str]:
    """The nuisances that a picture of this scene does not show at all."""
    hidden = {"rotation"} if scene.shape in ("circle", "ring") else set()
    if scene.pattern == "plain":
        hidden |= {"angle", "phase_x", "phase_y", "period"}
    if scene.pattern == "striped":
        hidden |= {"phase_y"}
    return frozenset(hidden)


def possible_nuisances(scene: Scene, nuisance: Nuisance, seed: int, count: int) -> list[Nuisance]:
    """`count` other nuisances that give the same picture of `scene`; empty when there are none.

    A checkerboard moved by half a period both ways is the same checkerboard, though stripes and dots are not: half of the
    guesses from a checkered scene are moved so.
    """
    hidden = sorted(hidden_nuisances(scene))
    checkered = scene.pattern == "checkered"
    if not hidden and not checkered:
        return []
    generator = random.Random(f"hidden {seed}")
    guesses = []
    for number in range(count):
        drawn = {name: generator.uniform(*RANGES[name]) for name in hidden}
        if checkered and number % 2 == 0:
            drawn |= {"phase_x": (nuisance.phase_x + 0.5) % 1.0, "phase_y": (nuisance.phase_y + 0.5) % 1.0}
        guesses.append(replace(nuisance, **drawn))
    return guesses


def draw_scene(generator: random.Random) -> Scene:
    """A scene with every attribute drawn evenly, given that object and background differ in colour."""
    drawn = {kind: generator.choice(values) for kind, values in VALUES.items()}
    drawn["background"] = generator.choice([value for value in VALUES["background"] if value != drawn["colour"]])
    return Scene(**drawn)


def edit_case(split: Split, index: int, kind: str | None = None) -> EditCase:
    """Case `index` of a split; the kinds take turns. With `kind`, case `index` among those of that kind.

    Raises:
        ValueError: the split or the kind is unknown, or the index is negative or past the split's seeds.
    """
    if split not in SEEDS:
        raise ValueError(f"split {split!r} is unknown; it must be one of {', '.join(get_args(Split))}")
    if kind is not None:
        if kind not in KINDS:
            raise ValueError(f"edit kind {kind!r} is unknown; it must be one of {', '.join(KINDS)}")
        index = index * len(KINDS) + KINDS.index(kind)
    if not 0 <= index < len(SEEDS[split]):
        raise ValueError(f"case {index} is out of range; split {split!r} has {len(SEEDS[split])} cases")
    kind = KINDS[index % len(KINDS)]
    seed = SEEDS[split][index]
    generator = random.Random(f"scene {seed}")
    source = draw_scene(generator)
    taken = {getattr(source, kind)}
    if kind in ("colour", "background"):
        taken = {source.colour, source.background}
    value = generator.choice([value for value in VALUES[kind] if value not in taken])
    return EditCase(split, index, seed, kind, source, source.edited(kind, value), Nuisance.from_seed(seed))
