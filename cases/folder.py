"""A user's own cases: a folder of pictures with a list of prompts."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..options import check, option
from .base import Case, CaseSet
from .pictures import fitted, read

LISTS = ("prompts.csv", "prompts.jsonl")
"""What the list of prompts in a folder may be called."""
COLUMNS = ("picture", "source", "target")


@dataclass(frozen=True)
class Line:
    """One line of a list of prompts: which file, what it shows, what it should show. `number` counts from 1; `name` is the
    file's path within the folder."""

    number: int
    name: str
    picture: Path
    source: str
    target: str


@dataclass(frozen=True)
class FolderCases(CaseSet):
    """Pictures of a folder, with prompts.csv (columns picture, source, target) or prompts.jsonl (one object a line).

    With `side` every picture is brought to a square of that many pixels, so that all go through a model in one batch.
    What is done to a picture on the way in is told as a warning.
    `take` raises ValueError naming the line that is wrong: a column missing or empty, a picture that is not there, cannot be
    read, lies outside the folder, or is named twice.
    """

    path: str = option("", "the folder")
    multiple: int = option(1, "sides are cut to a multiple of this many pixels, and to what the model takes", low=1)
    side: int = option(0, "make every picture a square of this many pixels (0: leave the size)", low=0, high=4096)

    def __post_init__(self) -> None:
        check(self)

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        lines = prompts(Path(self.path))
        return [Case(line.name, self._pixels(line), line.source, line.target) for line in lines[:count]]

    def _pixels(self, line: Line) -> Tensor:
        picture = fitted(read(line.picture), self.multiple, self.side, square=self.side > 0)
        if picture.notes:
            warnings.warn(f"{line.name}: {'; '.join(picture.notes)}", stacklevel=2)
        return picture.pixels


def prompts(folder: Path) -> Sequence[Line]:
    """The checked lines of a folder's list of prompts. Raises ValueError naming the file and the line that is wrong."""
    listing = _listing(folder)
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ValueError(f"{str(listing)!r} is not UTF-8 text ({fault.reason} at byte {fault.start})") from None
    rows = _json_lines(listing, text) if listing.suffix == ".jsonl" else _csv_lines(listing, text)
    lines: dict[Path, Line] = {}
    for number, row in rows:
        line = _line(listing, number, row)
        if line.picture in lines:
            raise _bad(listing, number, f"{row['picture']!r} is named on line {lines[line.picture].number} already")
        lines[line.picture] = line
    if not lines:
        raise ValueError(f"{str(listing)!r} names no picture; add lines with {', '.join(COLUMNS)}")
    return list(lines.values())


def _listing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; name one with pictures and a {LISTS[0]}")
    found = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(found) != 1:
        what = "both" if found else "neither"
        raise ValueError(f"{str(folder)!r} has {what} of {' and '.join(LISTS)}; it needs one of them")
    return found[0]


def _csv_lines(listing: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="")
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise _bad(listing, 1, f"the heading lacks {', '.join(missing)}; it must name {', '.join(COLUMNS)}")
    try:
        for row in reader:
            if "" in row:
                raise _bad(listing, reader.line_num, "there are more fields than columns; put a text with commas in quotes")
            yield reader.line_num, row
    except csv.Error as fault:
        raise _bad(listing, reader.reader.line_num, str(fault)) from None


def _json_lines(listing: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as fault:
            raise _bad(listing, number, f"this is no JSON ({fault.msg})") from None
        if not isinstance(row, dict):
            raise _bad(listing, number, f"a JSON object is wanted, got {type(row).__name__}")
        yield number, row


def _line(listing: Path, number: int, row: Mapping[str, object]) -> Line:
    for column in COLUMNS:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise _bad(listing, number, f"{column!r} is missing or empty")
    picture = _inside(listing, number, str(row["picture"]))
    name = picture.relative_to(listing.parent.resolve()).as_posix()
    return Line(number, name, picture, str(row["source"]), str(row["target"]))


def _inside(listing: Path, number: int, name: str) -> Path:
    """The picture called `name`, which must lie in the folder, also after following links."""
    folder = listing.parent.resolve()
    if "\0" in name:
        raise _bad(listing, number, "the picture's name holds a null character")
    if Path(name).is_absolute() or not (folder / name).resolve().is_relative_to(folder):
        raise _bad(listing, number, f"{name!r} lies outside the folder; pictures must be inside it")
    if not (folder / name).is_file():
        raise _bad(listing, number, f"there is no picture {name!r} in the folder")
    return (folder / name).resolve()


def _bad(listing: Path, number: int, what: str) -> ValueError:
    return ValueError(f"{listing.name}, line {number}: {what}")
