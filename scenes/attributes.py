"""The names of the scenes world: what a scene is, its caption, and the nuisances no caption mentions.

Standard library only, so that prompts can be checked without loading torch.
"""

from __future__ import annotations

import random
import re
from dataclasses import astuple, dataclass, fields, replace
from typing import Final

SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
COLOURS: Final = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES: Final = ("small", "large")
POSITIONS: Final = ("left", "centre", "right")
PATTERNS: Final = ("plain", "striped", "dotted", "checkered")

VALUES: Final[dict[str, tuple[str, ...]]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "position": POSITIONS,
    "background": COLOURS,
    "pattern": PATTERNS,
}
"""The values of each attribute, in the order of `Scene`'s fields. The keys are also the edit kinds."""

KINDS: Final = tuple(VALUES)

VOCABULARY: Final = ("a", "at", "the", "on", "background", *SIZES, *COLOURS, *SHAPES, *POSITIONS, *PATTERNS)
"""Every word that the scenes model knows."""

_TEMPLATE = re.compile(r"a (\S+) (\S+) (\S+) at the (\S+) on a (\S+) (\S+) background")
_ORDER = ("size", "colour", "shape", "position", "pattern", "background")


@dataclass(frozen=True)
class Scene:
    """One object on one background, by name.

    Raises:
        ValueError: a value is not one of the names of its attribute, or the object has the background's colour.
    """

    shape: str
    colour: str
    size: str
    position: str
    background: str
    pattern: str

    def __post_init__(self) -> None:
        for kind, values in VALUES.items():
            if getattr(self, kind) not in values:
                raise ValueError(f"{kind} {getattr(self, kind)!r} is unknown; it must be one of {', '.join(values)}")
        if self.colour == self.background:
            raise ValueError(f"the object cannot have the background's colour ({self.colour}): it would not be seen")

    def caption(self) -> str:
        """The sentence that states all six attributes."""
        return (
            f"a {self.size} {self.colour} {self.shape} at the {self.position} on a {self.pattern} {self.background} background"
        )

    def indices(self) -> tuple[int, ...]:
        """The place of each value in its list of names, in field order."""
        return tuple(values.index(getattr(self, kind)) for kind, values in VALUES.items())

    def edited(self, kind: str, value: str) -> Scene:
        """The same scene with one attribute changed; ValueError when `kind` is no attribute or the scene is impossible."""
        if kind not in VALUES:
            raise ValueError(f"edit kind {kind!r} is unknown; it must be one of {', '.join(KINDS)}")
        return replace(self, **{kind: value})

    @property
    def held_out(self) -> bool:
        """Whether the training never shows this shape, colour and background together (about 5 % of the combinations)."""
        shape, colour, _, _, background, _ = self.indices()
        return is_held_out(shape, colour, background)


def is_held_out(shape: int, colour: int, background: int) -> bool:
    """Whether a combination (as indices) is kept out of the training; a fixed multiplicative hash, the same everywhere."""
    return (((shape * 64 + colour * 8 + background) * 2654435761 % 2**32) >> 16) % 20 == 0


def parse(caption: str) -> Scene:
    """The scene that a caption states.

    Raises:
        ValueError: the sentence does not follow the template, or names an impossible scene.
    """
    match = _TEMPLATE.fullmatch(" ".join(words(caption)))
    if match is None:
        raise ValueError(
            f"caption {caption!r} does not read 'a SIZE COLOUR SHAPE at the POSITION on a PATTERN COLOUR background'"
        )
    return Scene(**dict(zip(_ORDER, match.groups(), strict=True)))


def words(prompt: str) -> list[str]:
    """The words of a prompt as the tokenizers see them: lower case, split at spaces, without . , ; : ! ?"""
    return re.sub(r"[.,;:!?]", " ", prompt.lower()).split()


RANGES: Final[dict[str, tuple[float, float]]] = {
    "x": (-0.05, 0.05),
    "y": (-0.35, 0.35),
    "rotation": (-15.0, 15.0),
    "radius": (-0.03, 0.03),
    "hue": (-5.0, 5.0),
    "background_hue": (-5.0, 5.0),
    "angle": (-30.0, 30.0),
    "phase_x": (0.0, 1.0),
    "phase_y": (0.0, 1.0),
    "period": (11.0, 16.0),
}
"""Low and high of each nuisance, drawn evenly between them, in the order of `Nuisance`'s fields."""


@dataclass(frozen=True)
class Nuisance:
    """What a picture shows and its caption does not say. Units: half widths of the picture, degrees, periods, pixels.

    `x` and `radius` are offsets from the named place and size; `y` is the height; `hue` and `background_hue` are offsets
    in degrees; `angle`, `phase_x`, `phase_y` (in periods) and `period` (pixels of a 64-pixel picture) place the pattern.
    """

    x: float
    y: float
    rotation: float
    radius: float
    hue: float
    background_hue: float
    angle: float
    phase_x: float
    phase_y: float
    period: float

    @classmethod
    def from_seed(cls, seed: int) -> Nuisance:
        """The nuisances of one integer seed, from a generator of their own."""
        generator = random.Random(seed)
        return cls(**{name: low + (high - low) * generator.random() for name, (low, high) in RANGES.items()})

    def values(self) -> tuple[float, ...]:
        """All nuisances in field order."""
        return astuple(self)


assert tuple(RANGES) == tuple(field.name for field in fields(Nuisance))
