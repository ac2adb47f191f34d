"""What is to be worked on: a picture in any form, a case of a case set ("scenes:7"), or the pictures of a folder; fitted to a
model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from torch import Tensor

from ..cases.base import Case, Stored
from ..cases.folder import LISTS, prompts
from ..cases.images import AnyImage, mask_of, picture_of
from ..cases.pictures import MOST_AT_ONCE, SUFFIXES, Picture, fitted
from ..models.base import Model
from ..registry import CASES
from .names import build_cases

ALONE = "picture"
"""The case id of every picture that is in no case set: its noise depends on the seed alone."""

NO_PICTURES: Final = "this model has no pictures; compare its own cases with: fe compare --model mixture"

Given: TypeAlias = AnyImage | Case
"""What may be given as a picture: see `images.AnyImage`; also "scenes:7", and a case."""


@dataclass(frozen=True)
class Subject:
    """One picture to work on: the `name` its results are called after, the picture, and its prompts (None where none is
    known)."""

    name: str
    image: Given
    source: str | None = None
    target: str | None = None

    @property
    def file(self) -> Path | None:
        """The file that it is read from, if it is."""
        return Path(self.image) if isinstance(self.image, str | Path) else None

    def prompted(self, source: str | None, target: str | None) -> Subject:
        """The same with other prompts where they are given. Raises ValueError if one is neither given nor known."""
        shown, wanted = self.source if source is None else source, self.target if target is None else target
        for name, prompt in (("source", shown), ("target", wanted)):
            if prompt is None:
                raise ValueError(f"{name} is missing: say what the picture shows, and what it should show")
        return replace(self, source=shown, target=wanted)


@dataclass(frozen=True)
class Fitted:
    """A case whose picture suits a model, a mask (1, H, W) of the same size, and what was done to get them, one clause each."""

    case: Case
    mask: Tensor | None
    notes: tuple[str, ...]


def subject(image: Given) -> Subject:
    """The one picture that `image` is. Raises ValueError (one sentence) if a case is named that does not exist."""
    if isinstance(image, Case):
        return Subject(image.id, image, image.source, image.target)
    if isinstance(image, str) and not image:
        raise ValueError("the picture's name is empty; name a file, a folder or a case such as scenes:7")
    named = re.fullmatch(r"([\w-]+):(\d+)", str(image)) if isinstance(image, str | Path) else None
    if named and not Path(named[0]).exists():
        if named[1] not in CASES:
            raise ValueError(f"there is no file {named[0]!r}, and no case set of that name: {', '.join(CASES)}")
        return _of_set(named[1], int(named[2]))
    return Subject(Path(image).stem if isinstance(image, str | Path) else ALONE, image)


def subjects(what: str) -> Sequence[Subject]:
    """The pictures that `what` names: those of a folder, whose prompts come from its list of prompts, where it has one; or one.
    Raises ValueError (one sentence) if there is nothing of that name, or nothing in it."""
    return _of_folder(Path(what)) if what and Path(what).is_dir() else [subject(what)]


def fit(subject: Subject, model: Model[Any], *, side: int | None = None, mask: AnyImage | None = None) -> Fitted:
    """The subject in a size that `model` takes, with the prompts that it brings ("" where it has none). side: pixels of the
    shorter side, for a model that takes any size. mask: white where the picture may change.
    Raises ValueError (one sentence) if something cannot be read or does not suit the model."""
    if model.multiple == 0:
        raise ValueError(NO_PICTURES)
    if side is not None and model.side not in (0, side):
        raise ValueError(f"this model takes pictures of {model.side}x{model.side} only, got the side {side}; leave it out")
    picture = Picture(subject.image.picture) if isinstance(subject.image, Case) else picture_of(subject.image)
    if picture.pixels.ndim != 3:
        raise ValueError(f"{subject.name} is no picture; name a file, a folder or a case of scenes")

    def fitting(given: Picture, mode: str) -> Picture:
        return fitted(given, model.multiple, model.side or side or 0, square=model.side > 0, mode=mode)

    shown = fitting(picture, "bicubic")
    case = subject.image if isinstance(subject.image, Case) else Case(ALONE, shown.pixels, "", "")
    case = replace(case, content=shown.pixels, source=subject.source or "", target=subject.target or "")
    if mask is None:
        return Fitted(case, None, shown.notes)
    masked = mask_of(mask, picture.pixels)
    return Fitted(case, fitting(masked, "bilinear").pixels, (*shown.notes, *masked.notes))


def fit_case(case: Case, model: Model[Any]) -> tuple[Case, Sequence[str]]:
    """The case of a set with its picture, and the region beside it, in a size that `model` takes, and what was done to the
    picture. What is stored stays so, and is read and fitted again when it is looked at.
    Raises ValueError (one sentence) if it cannot be read or does not suit the model."""
    if model.multiple == 0:
        raise ValueError(NO_PICTURES)
    shown = case.picture
    found = _sized(Picture(shown), model.multiple, model.side)
    if found.pixels.shape == shown.shape:
        return case, ()
    content = _again(case.content, found.pixels, partial(_sized, multiple=model.multiple, side=model.side))
    region, mask = case.region, case.mask
    if region is not None and mask is not None:
        cut = partial(_cut, multiple=model.multiple, side=model.side)
        region = _again(region, cut(Picture(mask)).pixels, cut)
    return replace(case, content=content, region=region), found.notes


def _sized(picture: Picture, multiple: int, side: int) -> Picture:
    return fitted(picture, multiple, side, square=side > 0)


def _cut(mask: Picture, multiple: int, side: int) -> Picture:
    """The same of a mask of 0 and 1, which stays one."""
    resized = fitted(mask, multiple, side, square=side > 0, mode="bilinear")
    return Picture((resized.pixels > 0.5).float())


def _again(content: Tensor | Stored, found: Tensor, how: Callable[[Picture], Picture]) -> Tensor | Stored:
    """What was `found` of some content; of stored content a promise to find it again."""
    if not isinstance(content, Stored):
        return found
    return Stored(tuple(found.shape), lambda: how(Picture(content())).pixels)


def drawn_size(asked: tuple[int, int] | None, model: Model[Any]) -> tuple[int, int]:
    """The size (height, width) to draw a picture in: the one asked for, or the model's own.
    Raises ValueError (one sentence) if the model does not draw in that size."""
    side, multiple = model.side, model.multiple
    if multiple == 0:
        raise ValueError("this model draws no pictures; try --model scenes")
    size = asked or (model.usual_side, model.usual_side)
    if side and size != (side, side):
        raise ValueError(f"this model draws {side}x{side} only, got the size {size[0]}x{size[1]}; leave it out")
    if any(length < multiple or length % multiple for length in size):
        raise ValueError(f"the size must be multiples of {multiple} for this model, got {size[0]}x{size[1]}")
    if size[0] * size[1] > MOST_AT_ONCE:
        raise ValueError(f"the size {size[0]}x{size[1]} is too much for one go; at most {MOST_AT_ONCE:,} pixels are drawn")
    return size


def _of_folder(folder: Path) -> Sequence[Subject]:
    if any((folder / name).is_file() for name in LISTS):
        lines = prompts(folder)
        names = _distinct([line.name for line in lines])
        return [Subject(name, one.picture, one.source, one.target) for name, one in zip(names, lines, strict=True)]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"the folder {str(folder)!r} has no pictures ({', '.join(SUFFIXES)})")
    return [Subject(name, path) for name, path in zip(_distinct([path.name for path in files]), files, strict=True)]


def _of_set(name: str, index: int) -> Subject:
    case = build_cases(name).case(index)
    return Subject(f"{name}-{index}", case, case.source, case.target)


def _distinct(names: Sequence[str]) -> list[str]:
    """What the results of each are called: a file's name without its suffix, unless two files differ in nothing else; an id
    that is no file's name as it is. Raises ValueError if two would be called the same."""
    stems = [(name[: -len(end)] if (end := Path(name).suffix).lower() in SUFFIXES else name) for name in names]
    flat = [stem.replace("/", "-") for stem in stems]
    counts = Counter(flat)
    called = [
        stem if counts[stem] == 1 else name.replace("/", "-").replace(".", "-") for stem, name in zip(flat, names, strict=True)
    ]
    first: dict[str, str] = {}
    for result, name in zip(called, names, strict=True):
        if first.setdefault(result, name) != name:
            raise ValueError(f"the results of {first[result]!r} and {name!r} would have the same name; rename one of them")
    return called
