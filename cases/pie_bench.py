"""PIE-Bench: 700 pictures with prompts and masks, ten kinds of edit (Ju et al. 2023, arXiv 2310.01506)."""

from __future__ import annotations

import json
import reprlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from ..options import OptionError, check, option
from .base import Case, CaseSet, Stored
from .pictures import read

LISTING: Final = "mapping_file.json"
PICTURES: Final = "annotation_images"
SIDE: Final = 512
"""Pixels of a side of every picture and mask."""
KINDS: Final[Mapping[str, str]] = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""The kinds of edit by their `editing_type_id`, which is text."""

_TEXTS = ("image_path", "original_prompt", "editing_prompt", "editing_type_id")


@dataclass(frozen=True)
class PieBenchCases(CaseSet):
    """PIE-Bench as its authors give it out: mapping_file.json with the pictures in annotation_images beside it, in the order of
    that list, whose keys are the ids.

    The brackets that mark the edited words of a prompt are taken away. `region` is the mask, 1 where the edit belongs, with
    the outermost pixels set to 1 as the public evaluation does. Pictures and masks are read when they are looked at.
    `take` raises ValueError naming the entry that is wrong: a field that is missing, a mask that is none, a picture that is
    not there or lies outside the folder, a key that is there twice. Raises OptionError for a category that does not exist.
    """

    licence: ClassVar[str] = (
        "no licence is stated in the repository that describes it (cure-lab/PnPInversion); its authors give the data out "
        "through a form; nothing of it is passed on here"
    )

    path: str = option("", f"the folder with {LISTING} and {PICTURES}")
    categories: str = option("all", "kinds of edit by their numbers, 0 to 9, separated by commas; or all")

    def __post_init__(self) -> None:
        check(self)
        unknown = [number for number in self._categories() if number not in KINDS]
        if unknown:
            raise OptionError(f"PieBenchCases.categories must be among {', '.join(KINDS)}, or all; got {unknown[0]!r}")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / LISTING).is_file()

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        listed = _listed(Path(self.path))
        for fault in _twice(listed, LISTING):
            raise ValueError(fault)
        found: list[Case] = []
        for entry in self._asked(listed):
            for fault in entry.faults():
                raise ValueError(fault)
            found.append(entry.case())
            if len(found) == count:
                break
        if not found:
            raise ValueError(f"{LISTING} has no entry of the categories {self.categories}; ask for others, or for all")
        return found

    def faults(self) -> Iterator[str | None]:
        try:
            listed = _listed(Path(self.path))
        except ValueError as fault:
            yield str(fault)
            return
        yield from _twice(listed, LISTING)
        for entry in self._asked(listed):
            wrong: list[str | None] = [*entry.faults()]
            yield from wrong or [entry.unreadable()]

    def _asked(self, listed: _Pairs) -> Iterator[_Entry]:
        """The entries of the categories that are asked for, and those of none that there is."""
        pictures = (Path(self.path) / PICTURES).resolve()
        for id, content in listed:
            entry = _Entry(pictures, id, content)
            if entry.kind in self._categories() or entry.kind not in KINDS:
                yield entry

    def _categories(self) -> tuple[str, ...]:
        named = (number.strip() for number in self.categories.split(","))
        return tuple(KINDS) if self.categories == "all" else tuple(named)


_Pairs = tuple[tuple[str, Any], ...]
"""A JSON object as it is written: its keys with their values, in order, also those that are there twice."""


@dataclass(frozen=True)
class _Entry:
    """One entry of the list: the folder of all pictures, its key, and what stands under it, which may be anything."""

    home: Path
    id: str
    content: Any

    @property
    def fields(self) -> Mapping[str, Any]:
        return dict(self.content) if isinstance(self.content, tuple) else {}

    @property
    def kind(self) -> str:
        return str(self.fields.get("editing_type_id"))

    @property
    def where(self) -> str:
        return f"{LISTING}, {self.id}"

    @property
    def picture(self) -> Path:
        return self.home / str(self.fields["image_path"])

    def faults(self) -> Iterator[str]:
        """What is wrong with it, without reading its picture."""
        if not isinstance(self.content, tuple):
            yield f"{self.where}: an object is wanted, got {type(self.content).__name__}"
            return
        yield from _twice(self.content, self.where)
        if not self.id.strip() or not self.id.isprintable():
            yield f"{LISTING}: the key {self.id!r} cannot be the id of a case; give the entry another"
        for name in _TEXTS:
            if not isinstance(self.fields.get(name), str):
                yield f"{self.where}: {name!r} must be text, got {_said(self.fields, name)}"
            elif not _writable(self.fields[name]):
                yield f"{self.where}: {name!r} holds a null character or half a character, {_said(self.fields, name)}"
        if isinstance(self.fields.get("editing_type_id"), str) and self.kind not in KINDS:
            yield f"{self.where}: 'editing_type_id' must be one of {', '.join(KINDS)}, got {reprlib.repr(self.kind)}"
        for fault in _mask_faults(self.fields):
            yield f"{self.where}: 'mask' {fault}"
        if isinstance(self.fields.get("image_path"), str) and _writable(self.fields["image_path"]):
            yield from self._misplaced()

    def _misplaced(self) -> Iterator[str]:
        name = self.fields["image_path"]
        try:
            inside, there = self.picture.resolve().is_relative_to(self.home), self.picture.is_file()
        except (OSError, RuntimeError) as fault:  # a name that is too long; links that go in a circle
            yield f"{self.where}: the picture {reprlib.repr(name)} cannot be looked for ({_reason(fault)})"
            return
        if not inside:
            yield f"{self.where}: {name!r} lies outside {PICTURES}; pictures must be inside it"
        elif not there:
            yield f"{self.where}: there is no picture {name!r} in {PICTURES}"

    def unreadable(self) -> str | None:
        """Why its picture cannot be read; None where it can."""
        try:
            self.read_picture()
        except ValueError as fault:
            return str(fault)
        return None

    def read_picture(self) -> Tensor:
        """(3, SIDE, SIDE) in [0, 1]. Raises ValueError naming the entry."""
        try:
            found = read(self.picture)
        except ValueError as fault:
            raise ValueError(f"{self.where}: {fault}") from fault
        height, width = found.pixels.shape[1:]
        if (height, width) != (SIDE, SIDE):
            raise ValueError(f"{self.where}: {str(self.picture)!r} is {width}x{height}; pictures and masks are {SIDE}x{SIDE}")
        if found.notes:
            warnings.warn(f"{self.where}: {'; '.join(found.notes)}", stacklevel=2)
        return found.pixels

    def case(self) -> Case:
        """The case of an entry without faults."""
        return Case(
            id=self.id,
            content=Stored((3, SIDE, SIDE), self.read_picture),
            source=_unmarked(self.fields["original_prompt"]),
            target=_unmarked(self.fields["editing_prompt"]),
            kind=KINDS[self.kind],
            region=Stored((1, SIDE, SIDE), partial(decode_mask, self.fields["mask"])),
        )


def decode_mask(runs: Sequence[int]) -> Tensor:
    """The mask (1, SIDE, SIDE) of 0 and 1 of a flat list of runs, start0, length0, start1, length1, ..., over the pixels row by
    row. What runs over the end is cut off there, and the outermost pixels are 1, both as in the public evaluation."""
    flat = torch.zeros(SIDE * SIDE)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 1
    mask = flat.view(1, SIDE, SIDE)
    mask[:, [0, -1], :] = 1
    mask[:, :, [0, -1]] = 1
    return mask


def _mask_faults(fields: Mapping[str, Any]) -> Iterator[str]:
    runs = fields.get("mask")
    if not isinstance(runs, list):
        yield f"must be a list of starts and lengths, got {_said(fields, 'mask')}"
        return
    strange = next((run for run in runs if type(run) is not int or run < 0), None)  # bool is an int to isinstance
    if strange is not None:
        yield f"must hold whole numbers from 0 on, got {reprlib.repr(strange)}"
    if len(runs) % 2:
        yield f"must hold pairs of a start and a length, got {len(runs)} numbers, the last without a partner"


def _listed(folder: Path) -> _Pairs:
    """The entries of the list in a folder. Raises ValueError where there is none, or none that can be read."""
    listing = folder / LISTING
    if not listing.is_file():
        raise ValueError(f"there is no {LISTING} in {str(folder)!r}; give PIE-Bench's folder, which has it beside {PICTURES}")
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ValueError(
            f"{str(listing)!r} is not UTF-8 text ({fault.reason} at byte {fault.start}); save it as UTF-8"
        ) from None
    try:
        listed = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{str(listing)!r} is no JSON ({fault})") from None
    if not isinstance(listed, tuple) or not listed:
        raise ValueError(f"{str(listing)!r} must hold a JSON object with an entry for each picture")
    return listed


def _twice(pairs: _Pairs, where: str) -> Iterator[str]:
    counts = Counter(key for key, _ in pairs)
    yield from (f"{where}: the key {key!r} is there {n} times; leave one" for key, n in counts.items() if n > 1)


def _unmarked(prompt: str) -> str:
    """A prompt without the brackets that mark its edited words."""
    return prompt.replace("[", "").replace("]", "")


def _writable(text: str) -> bool:
    """Whether a text can be written to a file and read again; JSON can hold what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _reason(fault: Exception) -> str:
    return fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)


def _said(fields: Mapping[str, Any], name: str) -> str:
    """What stands in the place of a field, in a few words."""
    if name not in fields:
        return "nothing"
    return "an object" if isinstance(fields[name], tuple) else reprlib.repr(fields[name])
