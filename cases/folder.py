"""A user's own cases: a folder of pictures with a list of prompts."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..options import check, option
from .base import Case, CaseSet, Stored
from .images import mask_of
from .pictures import Picture, fitted, fitted_size, read, size_of

LISTS = ("prompts.csv", "prompts.jsonl")
"""What the list of prompts in a folder may be called."""
COLUMNS = ("picture", "source", "target")
"""What every line must have; it may have `id`, `kind` and `mask` besides."""

Row = Mapping[str, object]


@dataclass(frozen=True)
class Line:
    """One line of a list of prompts: which file, what it shows, what it should show.

    `number`: where it begins in the list called `listing`, from 1. `name`: its id; where it has none, the picture's path within
    the folder. `kind`: the kind of edit, or "". `mask`: a picture that is white where the edit belongs, if there is one.
    """

    listing: str
    number: int
    name: str
    picture: Path
    source: str
    target: str
    kind: str = ""
    mask: Path | None = None

    @property
    def where(self) -> str:
        return _where(self.listing, self.number)


@dataclass(frozen=True)
class FolderCases(CaseSet):
    """Pictures of a folder, with prompts.csv (columns picture, source, target) or prompts.jsonl (one object a line).

    A line may also have an `id`, without which it is called after its picture; a `kind` of edit; and a `mask`, a picture of
    the same size that is white where the edit belongs. With `side` every picture is brought to a square of that many pixels, so
    that all go through a model in one batch. What is done to a picture on the way in is told as a warning when it is read.
    `take` looks at no pixels. It raises ValueError naming the line that is wrong: a column missing or empty, a file that is not
    there, is no picture or lies outside the folder, a mask of another size, an id that is there twice.
    """

    path: str = option("", f"the folder with {' or '.join(LISTS)}")
    multiple: int = option(1, "sides are cut to a multiple of this many pixels, and to what the model takes", low=1)
    side: int = option(0, "make every picture a square of this many pixels (0: leave the size)", low=0, high=4096)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return any((path / name).is_file() for name in LISTS)

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        pictures: dict[Path, Stored] = {}
        return [self._case(line, pictures) for line in prompts(Path(self.path))[:count]]

    def faults(self) -> Iterator[str | None]:
        fine: set[Path] = set()
        try:
            for one in listed(Path(self.path)):
                yield str(one) if isinstance(one, ValueError) else self._unreadable(one, fine)
        except ValueError as fault:
            yield str(fault)

    def _case(self, line: Line, pictures: dict[Path, Stored]) -> Case:
        """The case of a line. pictures: those that were met already, so that lines with the same picture share it."""
        try:
            if line.picture not in pictures:
                pictures[line.picture] = self._picture(line)
            mask = None if line.mask is None else self._mask(line, line.mask)
        except ValueError as fault:
            raise ValueError(f"{line.where}: {fault}") from fault
        return Case(line.name, pictures[line.picture], line.source, line.target, line.kind, region=mask)

    def _picture(self, line: Line) -> Stored:
        size = size_of(line.picture)
        return Stored((3, *self._fitted_size(size)), partial(self._read_picture, line, size))

    def _mask(self, line: Line, mask: Path) -> Stored:
        size, given = size_of(line.picture), size_of(mask)
        if given != size:
            raise ValueError(f"the mask is {_text(given)} and its picture {_text(size)}; give a mask of the picture's size")
        return Stored((1, *self._fitted_size(size)), partial(self._read_mask, line, mask, size))

    def _read_picture(self, line: Line, size: tuple[int, int]) -> Tensor:
        try:
            given = read(line.picture)
            found = tuple(given.pixels.shape[1:])
            if found != size:
                raise ValueError(
                    f"{str(line.picture)!r} says that it is {_text(size)} and turns out as {_text(found)}; save it anew"
                )
            picture = self._fitted(given, "bicubic")
        except ValueError as fault:
            raise ValueError(f"{line.where}: {fault}") from fault
        if picture.notes:
            warnings.warn(f"{line.name}: {'; '.join(picture.notes)}", stacklevel=2)
        return picture.pixels

    def _read_mask(self, line: Line, mask: Path, size: tuple[int, int]) -> Tensor:
        try:
            given = mask_of(mask, torch.empty(3, *size))  # of which it takes the size alone
        except ValueError as fault:
            raise ValueError(f"{line.where}: {fault}") from fault
        return (self._fitted(given, "bilinear").pixels >= 0.5).float()

    def _fitted(self, picture: Picture, mode: str) -> Picture:
        return fitted(picture, self.multiple, self.side, square=self.side > 0, mode=mode)

    def _fitted_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return fitted_size(*size, self.multiple, self.side, square=self.side > 0)

    def _unreadable(self, line: Line, fine: set[Path]) -> str | None:
        """Why the pictures of a line cannot be used, if they cannot. fine: those that need not be read again."""
        try:
            case = self._case(line, {})
            for path, stored in ((line.picture, case.content), (line.mask, case.region)):
                if path is not None and path not in fine and isinstance(stored, Stored):
                    stored.read()  # a call would keep it
                    fine.add(path)
        except ValueError as fault:
            return str(fault)
        return None


def prompts(folder: Path) -> Sequence[Line]:
    """The checked lines of a folder's list of prompts. Raises ValueError naming the file and the first line that is wrong."""
    lines = []
    for one in listed(folder):
        if isinstance(one, ValueError):
            raise one
        lines.append(one)
    return lines


def listed(folder: Path) -> Iterator[Line | ValueError]:
    """Every line of a folder's list of prompts in order, or, in its place, what is wrong with it. No picture is opened.
    Raises ValueError where there is no such list."""
    listing, home = _listing(folder), folder.resolve()
    taken: dict[str, int] = {}
    number = 0
    for number, row in rows(listing):
        try:
            if isinstance(row, ValueError):
                raise row
            line = _line(home, listing.name, number, row)
            if line.name in taken:
                raise ValueError(_twice(row, line.name, taken[line.name]))
        except ValueError as fault:
            yield ValueError(f"{_where(listing.name, number)}: {fault}")
        else:
            taken[line.name] = number
            yield line
    if number == 0:
        yield ValueError(f"{str(listing)!r} names no picture; add lines with {', '.join(COLUMNS)}")


def _listing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; name one with pictures and a {LISTS[0]}")
    found = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(found) != 1:
        what = "both" if found else "neither"
        raise ValueError(f"{str(folder)!r} has {what} of {' and '.join(LISTS)}; it needs one of them")
    return found[0]


def rows(listing: Path, columns: Sequence[str] = COLUMNS) -> Iterator[tuple[int, Row | ValueError]]:
    """The lines of a list by the numbers where they begin, each as columns with their content, or as what is wrong with it.
    columns: what the heading of a CSV file must name. Raises OSError if the file cannot be read."""
    content = listing.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.decode(errors="ignore").encode() != line:
                yield number, ValueError("this is not UTF-8 text; save the file as UTF-8")
        return
    yield from _json_lines(text) if listing.suffix == ".jsonl" else _csv_lines(text, columns)


def _csv_lines(text: str, columns: Sequence[str]) -> Iterator[tuple[int, Row | ValueError]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    heading: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as broken:
            yield number, ValueError(f"what begins here is no CSV ({broken})")
            continue
        if not heading:
            heading = fields
            fault = _heading_fault(heading, columns)
            if fault:
                yield number, ValueError(fault)
                return
        elif len(fields) > len(heading):
            yield number, ValueError("there are more fields than columns; put a text with commas in quotes")
        elif fields:
            yield number, dict(zip(heading, fields, strict=False))  # a short line lacks its last columns
    if not heading:
        yield 1, ValueError(_heading_fault([], columns))


def _heading_fault(heading: Sequence[str], columns: Sequence[str]) -> str:
    missing = [column for column in columns if column not in heading]
    if missing:
        return f"the heading lacks {', '.join(missing)}; it must name {', '.join(columns)}"
    twice = [column for column in heading if column and heading.count(column) > 1]
    return f"the heading names {twice[0]!r} twice" if twice else ""


def _json_lines(text: str) -> Iterator[tuple[int, Row | ValueError]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except json.JSONDecodeError as fault:
            yield number, ValueError(f"this is no JSON ({fault.msg})")
            continue
        except (ValueError, RecursionError) as fault:  # a key twice; a number of thousands of digits; brackets without end
            yield number, ValueError(f"this cannot be read ({fault})")
            continue
        good = isinstance(row, dict)
        yield number, row if good else ValueError(f"a JSON object is wanted, got {type(row).__name__}")


def _once(pairs: Sequence[tuple[str, object]]) -> Row:
    """A JSON object whose keys differ."""
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {twice!r} is there twice")
    return row


def _line(home: Path, listing: str, number: int, row: Row) -> Line:
    picture = _inside(home, "picture", needed(row, "picture"))
    mask = text_of(row, "mask")
    return Line(
        listing,
        number,
        name=name_of(row, "id") or picture.relative_to(home).as_posix(),
        picture=picture,
        source=needed(row, "source"),
        target=needed(row, "target"),
        kind=name_of(row, "kind"),
        mask=_inside(home, "mask", mask) if mask else None,
    )


def needed(row: Row, column: str) -> str:
    """The text of a column. Raises ValueError where there is none."""
    text = text_of(row, column)
    if not text:
        raise ValueError(f"{column!r} is missing or empty")
    return text


def text_of(row: Row, column: str) -> str:
    """The text of a column, or "" where there is none but blanks. Raises ValueError for what is no text."""
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{column!r} must be text, got {value!r}")
    if "\0" in value:
        raise ValueError(f"{column!r} holds a null character")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can write one
        raise ValueError(f"{column!r} holds half a character, {value!r}") from None
    return value if value.strip() else ""


def name_of(row: Row, column: str) -> str:
    """The same of a column that tables and messages show. Raises ValueError for a line break or what steers a terminal."""
    text = text_of(row, column)
    if not text.isprintable():
        raise ValueError(f"{column!r} holds a character that cannot be shown, got {text!r}")
    return text


def _inside(home: Path, what: str, name: str) -> Path:
    """The file called `name`, which must lie in the folder `home`, also after following links."""
    try:
        file = (home / name).resolve()
        outside, there = Path(name).is_absolute() or not file.is_relative_to(home), file.is_file()
    except (OSError, RuntimeError) as fault:  # a name that is too long; links that go in a circle
        raise ValueError(f"the {what} {name!r} cannot be looked for ({fault})") from None
    if outside:
        raise ValueError(f"{name!r} lies outside the folder; a {what} must be inside it")
    if not there:
        raise ValueError(f"there is no {what} {name!r} in the folder")
    return file


def _twice(row: Row, name: str, first: int) -> str:
    if text_of(row, "id"):
        return f"the id {name!r} is that of line {first} already"
    return f"{name!r} is named on line {first} already; give each of these lines an id of its own"


def _where(listing: str, number: int) -> str:
    return f"{listing}, line {number}"


def _text(size: tuple[int, ...]) -> str:
    height, width = size
    return f"{width}x{height}"
