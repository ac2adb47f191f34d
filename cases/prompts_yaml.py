"""Lists of edits in YAML, as FlowEdit's authors and many after them write them: pictures, each with a source prompt and several
target prompts; and the experiment files that name such a list.

    - init_img: flowedit_data/bear.png        # or input_img
      source_prompt: A brown bear in a stream.
      target_prompts:
        - A panda bear in a stream.
      target_codes:                           # what the edits are called; may be left out
        - 1_panda_bear
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..plain_yaml import FileError, Item, bad, read_text, read_yaml

LISTS: Final = ("flowedit.yaml", "edits.yaml", "exp.yaml")
"""What a list of edits, or an experiment file that names one, may be called in a folder; the first two are lists."""
PICTURE_KEYS: Final = ("init_img", "input_img")
HEALED: Final[Mapping[str, str]] = {"coconut_out.png": "coconut.png", "meditation1.png": "meditation2.png"}
"""Names in FlowEdit's published list that no published picture has, and the pictures that are meant."""

_PUBLISHED, _PICTURES = "flowedit_data/", "Images/"  # where the published list looks for pictures, and where they are
_KEYS = (*PICTURE_KEYS, "source_prompt", "target_prompts", "target_codes")
_LIMIT, _DEPTH = 50_000_000, 4
_LONGEST = 150  # characters of an id, which a run makes a file's name of


@dataclass(frozen=True)
class Edit:
    """One edit of a picture: what the result should show. `id` is unique in its list: the picture's stem and the edit's code,
    or its place among the picture's edits where it has no code."""

    id: str
    target: str
    line: int


@dataclass(frozen=True)
class Entry:
    """One picture of a list with its edits. `where`: the list and the line. `name`: the picture as the list has it. `picture`:
    the file, None where it is not there. `notes`: what is odd but can be used, a sentence each."""

    where: str
    name: str
    stem: str
    picture: Path | None
    source: str
    edits: tuple[Edit, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What a list asks for; what is wrong in it and what is odd, a sentence each. `path`: the list itself."""

    path: Path
    entries: Sequence[Entry]
    faults: Sequence[str]
    notes: Sequence[str]


def recognised(path: Path) -> bool:
    """Whether a folder holds such a list, or a file is called as one, or as an experiment that names one."""
    if path.is_dir():
        return any((path / name).is_file() for name in LISTS)
    return path.is_file() and (path.name in LISTS or path.name.endswith(("_exp.yaml", "_edits.yaml")))


def read_listing(path: Path) -> Listing:
    """The list at `path`: a folder with one of LISTS, a list of edits, or an experiment file that names one. Raises ValueError
    (one sentence) where there is none, or what is there cannot be read at all; what is wrong in single entries is told in the
    result, so that all of it can be told."""
    start = _found(path)
    items = _items(start)
    if not any(isinstance(one.content, Mapping) and "dataset_yaml" in one.content for one in items):
        return _listing(start, start.parent, items)
    named = _named(start, items)
    return _listing(named, start.parent, _items(named))


def _found(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no folder or file {str(path)!r}; give the folder of the data set or its list of edits")
    *lists, experiment = LISTS
    found = [path / name for name in lists if (path / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{str(path)!r} has both {' and '.join(lists)}; give the path of one of them")
    if not found and not (path / experiment).is_file():
        raise ValueError(f"{str(path)!r} has none of {', '.join(LISTS)}; give the path of its list of edits")
    return found[0] if found else path / experiment


def _items(path: Path) -> Sequence[Item]:
    root = read_yaml(path, read_text(path, _LIMIT, "list of edits"), _DEPTH)
    if root is None:
        raise FileError(f"{path} is empty; a list of edits is wanted")
    if not isinstance(root.content, tuple) or not root.content:
        raise bad(path, root.line, f"a list of edits is wanted, got {root.what if root.content else 'an empty one'}")
    return root.content


def _named(experiment: Path, items: Sequence[Item]) -> Path:
    """The one list that the experiments of a file name; names start from the file's own folder and stay in it."""
    names: dict[str, int] = {}
    for one in items:
        item = one.content.get("dataset_yaml") if isinstance(one.content, Mapping) else None
        if item is None or not isinstance(item.content, str):
            raise bad(experiment, one.line, "an experiment must have a dataset_yaml, the path of its list of edits")
        names.setdefault(item.content, item.line)
    (name, line), *others = names.items()
    if others:
        raise bad(experiment, others[0][1], f"{others[0][0]!r} is a second list, after {name!r}; give the path of one of them")
    found = _inside(experiment.parent, experiment.parent / name)
    if found is None:
        raise bad(experiment, line, f"{name!r} lies outside the folder of the experiment file; it must be inside")
    if not found.is_file():
        raise bad(experiment, line, f"there is no list of edits {name!r}")
    return found


def _inside(root: Path, path: Path) -> Path | None:
    """`path`, if it lies in `root`, also after following links."""
    try:
        return path if path.resolve().is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle; a null character
        return None


def _listing(path: Path, root: Path, items: Sequence[Item]) -> Listing:
    """The list at `path`, whose pictures lie in the folder `root`; their names start from the list's own folder, or from it."""
    entries: list[Entry] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    for item in items:
        wrong = list(_misshapen(path, item))
        if not wrong:
            try:
                entries.append(_entry(path, root, item))
                wrong = list(_clashes(path, entries[-1], lines))
            except FileError as fault:
                wrong = [fault]
        faults += map(str, wrong)
    unread = {key for item in items if isinstance(item.content, Mapping) for key in item.content}.difference(_KEYS)
    notes = [f"{path}: what its entries say under {', '.join(sorted(unread))} is not read"] if unread else []
    return Listing(path, entries, faults, [*notes, *(note for entry in entries for note in entry.notes)])


def _misshapen(path: Path, item: Item) -> Iterator[FileError]:
    """What keeps an entry from being read."""
    if not isinstance(item.content, Mapping):
        yield bad(path, item.line, f"an entry is a mapping with init_img, source_prompt and target_prompts, got {item.what}")
        return
    fields = item.content
    pictures = [key for key in PICTURE_KEYS if key in fields]
    if len(pictures) != 1:
        yield bad(path, item.line, f"an entry names one picture, as {' or '.join(PICTURE_KEYS)}; this one has {len(pictures)}")
    for key in ("source_prompt", "target_prompts"):
        if key not in fields:
            yield bad(path, item.line, f"the entry has no {key}")
    for key in (*pictures, *({"source_prompt"} & fields.keys())):
        if not isinstance(fields[key].content, str):
            yield bad(path, fields[key].line, f"{key} takes one text, got {fields[key].what}")
    for key in ("target_prompts", "target_codes"):
        if key in fields:
            yield from _unlisted(path, key, fields[key])
    prompts, codes = _texts(fields.get("target_prompts")), _texts(fields.get("target_codes"))
    if prompts and len(codes) > len(prompts):
        yield bad(path, fields["target_codes"].line, f"target_codes has {len(codes)} texts, and target_prompts {len(prompts)}")


def _unlisted(path: Path, key: str, item: Item) -> Iterator[FileError]:
    """Why what stands under `key` is no list of texts."""
    if not isinstance(item.content, tuple) or not item.content:
        yield bad(path, item.line, f"{key} takes a list of texts, got {item.what if item.content else 'an empty one'}")
        return
    for one in item.content:
        if not isinstance(one.content, str) or not one.content.strip():
            yield bad(path, one.line, f"{key} holds texts, got {one.what}")


def _texts(item: Item | None) -> Sequence[Item]:
    return item.content if item is not None and isinstance(item.content, tuple) else ()


def _entry(path: Path, root: Path, item: Item) -> Entry:
    """What a well-formed entry says. Raises FileError for a picture outside of `root`."""
    fields = item.content if isinstance(item.content, Mapping) else {}
    named = next(fields[key] for key in PICTURE_KEYS if key in fields)
    name = str(named.content)
    where = f"{path}, line {named.line}"
    candidates = list(_candidates(path.parent, root, name))
    picture = next((one for one in candidates if one is not None and os.path.isfile(one)), None)  # False for any odd name
    if picture is None and None in candidates:
        raise bad(path, named.line, f"{name!r} lies outside the folder; pictures must be inside it")
    stem = Path(_meant(name)).stem
    prompts, codes = _texts(fields["target_prompts"]), _texts(fields.get("target_codes"))
    notes = []
    if picture is not None and picture.name != Path(name).name:
        notes.append(f"{where}: there is no picture {name!r}; {picture.name} is meant and taken")
    if codes and len(codes) < len(prompts):
        left = f"target_prompts has {len(prompts)} texts, target_codes {len(codes)}; the rest are called by their places"
        notes.append(f"{where}: {Path(name).name}: {left}")
    called = [str(one.content) for one in codes] + [str(place) for place in range(len(codes) + 1, len(prompts) + 1)]
    edits = [Edit(f"{stem}/{code}", str(one.content), one.line) for code, one in zip(called, prompts, strict=True)]
    return Entry(where, name, stem, picture, str(fields["source_prompt"].content), tuple(edits), tuple(notes))


def _candidates(folder: Path, root: Path, name: str) -> Iterator[Path | None]:
    """Where the picture called `name` may be, the likeliest first; None for a place outside of `root`."""
    names = [name]
    if name.startswith(_PUBLISHED):
        inner = name.removeprefix(_PUBLISHED)
        names += [_PICTURES + inner, _PICTURES + HEALED.get(inner, inner)]
    for start in dict.fromkeys((folder, root)):
        yield from (_inside(root, start / one) for one in names)


def _meant(name: str) -> str:
    """The name without the published list's known errors, whatever files there are: ids hang on the list alone."""
    return HEALED.get(name.removeprefix(_PUBLISHED), name) if name.startswith(_PUBLISHED) else name


def _clashes(path: Path, entry: Entry, lines: dict[str, int]) -> Iterator[FileError]:
    """What is wrong with the ids of an entry's edits, beside those before it, which are in `lines` by their files' names."""
    for edit in entry.edits:
        file = re.sub(r"[^\w.+-]", "_", edit.id)  # as a run calls the pictures of a case
        if len(file) > _LONGEST:
            what = f"the edit's id would have {len(file)} characters; shorten the picture's name or the code"
            yield bad(path, edit.line, what)
        elif file in lines:
            yield bad(path, edit.line, f"{edit.id!r} is or reads like the edit of line {lines[file]}; give it another code")
        lines.setdefault(file, edit.line)
