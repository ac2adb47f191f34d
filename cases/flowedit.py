"""FlowEdit's own data set, and lists of edits in its format (Kulikov et al. 2024, arXiv 2412.08629)."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar, Final, Literal

from torch import Tensor

from ..options import OptionError, check, option
from ..plain_yaml import FileError, bad, read_text
from .base import Case, CaseSet, Stored
from .pictures import fitted, fitted_size, read, size_of
from .prompts_yaml import Entry, Listing, read_listing, recognised

KINDS: Final = ("object", "style", "lettering")
TAGS: Final = "tags.csv"
"""A file beside the list, with the columns id and kind, that goes before `kind_of`."""
SOURCES: Final = "dataset.csv"
"""The file in which FlowEdit's authors say where their pictures come from."""

STYLES: Final = (
    *("painting", "watercolor", "watercolour", "sketch", "drawing", "cartoon", "anime", "manga", "comic", "pixar", "disney"),
    *("pixel art", "mosaic", "engraving", "style"),
    *("sculpture", "statue", "figurine", "origami", "lego", "crochet", "knitted", "embroidery", "clay", "minecraft"),
)
"""Words of a way to show things, or of a stuff to make them of. An edit that brings one in asks for a style."""
WRITTEN_ON: Final = (
    *("sign", "signs", "signage", "board", "billboard", "blackboard", "sticker", "poster", "label", "banner", "message"),
    *("writing", "written", "letters", "lettering", "graffiti"),
)
"""Words by which a prompt tells that something is written in the picture."""

_LIMIT = 10_000_000
_TOLD = 8  # names in a sentence


@dataclass(frozen=True)
class FlowEditCases(CaseSet):
    """Edits of a list in YAML, one case for each target prompt: FlowEdit's own data set (flowedit.yaml and Images), or anyone's
    in the same format (edits.yaml; exp.yaml, which names a list).

    Ids are the picture's stem and the edit's code: bear/1_black_bear. `kind` is one of KINDS, from tags.csv or else by
    `kind_of`. Pictures are read when they are looked at. Wrong names of the published list are made good, with a warning.
    `take` raises ValueError naming the line that is wrong: no plain YAML, a key that is missing, a picture that is not there
    or lies outside the folder, an id that is there twice. Raises OptionError for a kind that does not exist.
    """

    licence: ClassVar[str] = (
        "FlowEdit's own set: its code is under the MIT licence; its pictures keep the licences of their sources (DIV2K, "
        "Pexels, Pixabay, PxHere, Wikimedia) and are for academic use only; nothing of it is passed on here"
    )

    path: str = option("", "the data set's folder, its list of edits, or an experiment file that names the list")
    kinds: str = option("all", f"kinds of edit, separated by commas: {', '.join(KINDS)}; or all")
    side: int = option(0, "make every picture a square of this many pixels (0: leave the size)", low=0, high=4096)
    missing: Literal["refuse", "skip"] = option(
        "refuse", "what to do where pictures of the list are not there", choices=("refuse", "skip")
    )

    def __post_init__(self) -> None:
        check(self)
        unknown = [kind for kind in self._kinds() if kind not in KINDS]
        if unknown:
            raise OptionError(f"FlowEditCases.kinds must be among {', '.join(KINDS)}, or all; got {unknown[0]!r}")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return recognised(path)

    def take(self, count: int | None) -> Sequence[Case]:
        if count is not None and count < 1:
            raise ValueError(f"at least 1 case must be asked for, got {count}")
        listing = read_listing(Path(self.path))
        tags, wrong = read_tags(listing)
        for fault in (*listing.faults, *wrong, *self._absent(listing)):
            raise ValueError(fault)
        for note in (*listing.notes, *self._left_out(listing)):
            warnings.warn(note, stacklevel=2)
        cases = (case for entry in listing.entries if entry.picture for case in self._cases(entry, entry.picture, tags))
        found = list(islice(cases, count))
        if not found:
            raise ValueError(f"{listing.path} has no edit of the kind {self.kinds}; ask for another, or for all")
        return found

    def faults(self) -> Iterator[str | None]:
        try:
            listing = read_listing(Path(self.path))
            _, wrong = read_tags(listing)
            notes = [*listing.notes, *source_notes(listing)]
        except ValueError as fault:
            yield str(fault)
            return
        for note in notes:
            warnings.warn(note, stacklevel=2)
        yield from (*listing.faults, *wrong, *self._absent(listing))
        for entry in listing.entries:
            if entry.picture is not None:
                unreadable = self._unreadable(entry, entry.picture)
                yield from [unreadable] if unreadable else [None] * len(entry.edits)

    def _kinds(self) -> tuple[str, ...]:
        named = (kind.strip() for kind in self.kinds.split(","))
        return KINDS if self.kinds == "all" else tuple(named)

    def _cases(self, entry: Entry, picture: Path, tags: Mapping[str, str]) -> Iterator[Case]:
        content = self._content(entry, picture)  # one for all edits of a picture, which is then read once
        for edit in entry.edits:
            kind = tags.get(edit.id) or kind_of(entry.source, edit.target)
            if kind in self._kinds():
                yield Case(edit.id, content, entry.source, edit.target, kind)

    def _content(self, entry: Entry, picture: Path) -> Stored:
        """The picture of an entry, of which only the size is read here. Raises ValueError naming the line."""
        try:
            height, width = fitted_size(*size_of(picture), 1, self.side, square=self.side > 0)
        except ValueError as fault:
            raise ValueError(f"{entry.where}: {fault}") from fault
        return Stored((3, height, width), partial(_pixels, entry, picture, self.side))

    def _unreadable(self, entry: Entry, picture: Path) -> str | None:
        try:
            self._content(entry, picture)()
        except ValueError as fault:
            return str(fault)
        return None

    def _absent(self, listing: Listing) -> Iterator[str]:
        """The pictures that are not there, where that is refused."""
        if self.missing == "refuse":
            for entry in _pictureless(listing):
                yield f"{entry.where}: there is no picture {entry.name!r}; put it there, or set missing to skip"

    def _left_out(self, listing: Listing) -> Iterator[str]:
        """The same where their edits are left out."""
        absent = _pictureless(listing)
        if len(absent) == len(listing.entries):
            raise ValueError(f"none of the pictures of {listing.path} is there; {absent[0].name!r} is the first")
        if absent:
            edits, names = sum(len(entry.edits) for entry in absent), ", ".join(entry.stem for entry in absent[:_TOLD])
            more = ", ..." if len(absent) > _TOLD else ""
            left = f"{names}{more} (pictures: {len(absent)}, edits: {edits})"
            yield f"{listing.path}: left out, as their pictures are not there: {left}"


def _pictureless(listing: Listing) -> Sequence[Entry]:
    return [entry for entry in listing.entries if entry.picture is None]


def _pixels(entry: Entry, picture: Path, side: int) -> Tensor:
    """The picture (3, H, W) in [0, 1]; what is done to it on the way in is told as a warning. Raises ValueError naming the
    line."""
    try:
        found = fitted(read(picture), 1, side, square=side > 0)
    except ValueError as fault:
        raise ValueError(f"{entry.where}: {fault}") from fault
    if found.notes:
        warnings.warn(f"{entry.stem}: {'; '.join(found.notes)}", stacklevel=2)
    return found.pixels


def kind_of(source: str, target: str) -> str:
    """The kind of an edit by a rule of thumb on its prompts: "lettering" if what is written in the picture changes, else
    "style" if the target brings in one of STYLES, else "object". The data set itself does not say."""
    if _written(source) != _written(target):
        return "lettering"
    return "style" if any(_names(target, style) and not _names(source, style) for style in STYLES) else "object"


def _names(prompt: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", prompt, flags=re.IGNORECASE) is not None


def _written(prompt: str) -> frozenset[str]:
    """What a prompt says that is written in the picture: what it quotes; and where it tells of a thing to write on, words in
    capitals and names that the thing is called or says."""
    quoted = re.findall(r"[\"“]([^\"”]+)[\"”]", prompt)
    if any(_names(prompt, word) for word in WRITTEN_ON):
        rest = re.sub(r"[\"“][^\"”]+[\"”]", " ", prompt)
        quoted += re.findall(r"\b[A-Z]{2,}\b", rest) + re.findall(r"\b(?:called|named|says|reads) ([A-Z]\w*)", rest)
    return frozenset(text.strip(" .,!?") for text in quoted)


def read_tags(listing: Listing) -> tuple[Mapping[str, str], Sequence[str]]:
    """The kinds of edits by their ids as TAGS says beside the list, where there is such a file, and what is wrong in it.
    Raises ValueError if it is not UTF-8 text with the columns id and kind."""
    path = listing.path.parent / TAGS
    if not path.is_file():
        return {}, ()
    ids = {edit.id for entry in listing.entries for edit in entry.edits}
    tags: dict[str, str] = {}
    faults: list[FileError] = []
    for line, row in _rows(path, ("id", "kind")):
        id, kind = row["id"], row["kind"]
        if id in tags:
            faults.append(bad(path, line, f"{id!r} has a kind already; once is enough"))
        elif id not in ids:
            faults.append(bad(path, line, f"{listing.path.name} has no edit {id!r}"))
        elif kind not in KINDS:
            faults.append(bad(path, line, f"a kind is one of {', '.join(KINDS)}, got {kind!r}"))
        tags[id] = kind
    return tags, list(map(str, faults))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a CSV file with their lines, by its headings; spaces around headings and fields do not count."""
    reader = csv.reader(io.StringIO(read_text(path, _LIMIT, "table of a data set"), newline=""), strict=True)
    try:
        heading = [name.strip() for name in next(reader, [])]
        if not {*columns} <= {*heading}:
            raise bad(path, 1, f"the heading must name {', '.join(columns)}, got {', '.join(heading) or 'nothing'}")
        for fields in filter(None, reader):
            if len(fields) != len(heading):
                raise bad(path, reader.line_num, f"{len(heading)} fields are wanted, got {len(fields)}")
            yield reader.line_num, {name: field.strip() for name, field in zip(heading, fields, strict=True)}
    except csv.Error as fault:
        raise bad(path, reader.line_num, str(fault)) from None


def source_notes(listing: Listing) -> Iterator[str]:
    """What SOURCES beside the list leaves open about where the pictures come from. Raises ValueError if it cannot be read."""
    path = listing.path.parent / SOURCES
    if not path.is_file():
        return
    rows = [row for _, row in _rows(path, ("name", "url"))]
    stems = {entry.stem for entry in listing.entries}
    strange = [row["name"] for row in rows if row["name"] not in stems]
    unknown = [row["name"] for row in rows if not row["url"]]
    if strange:
        yield f"{path}: names that no picture of the list has: {', '.join(strange)}"
    if unknown:
        yield f"{path}: pictures without a URL, of which nobody can look up whose they are: {', '.join(unknown)}"
