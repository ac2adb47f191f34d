"""Experiment files: a comparison written down as YAML or TOML, read into texts that know their lines.

What the names in it mean is for the command line to say: a file stands for its flags.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

LIMIT: Final = 1_000_000
"""Bytes that a file may have."""
DEPTH: Final = 4
"""Lists and mappings inside of each other: the file, `set`, a name, an option with its values."""


class ExperimentError(ValueError):
    """What is wrong in an experiment file, with the file and the line, in one sentence for the user."""


@dataclass(frozen=True)
class Item:
    """What a file says at one place. Numbers and truth values are kept as the text that a flag would be given. `line` counts
    from 1: that of the key, for what has one, and of the value itself in a list (in TOML that of the list's key)."""

    content: str | tuple[Item, ...] | Mapping[str, Item]
    line: int

    @property
    def what(self) -> str:
        """What it is, for messages."""
        if isinstance(self.content, str):
            return repr(self.content)
        return "a list" if isinstance(self.content, tuple) else "a mapping"


@dataclass(frozen=True)
class ExperimentFile:
    """An experiment file, understood as far as YAML and TOML go."""

    path: Path
    items: Mapping[str, Item]

    def bad(self, line: int, what: str) -> ExperimentError:
        """The refusal of what stands on that line."""
        return _bad(self.path, line, what)

    def text(self, key: str, item: Item) -> str:
        """The one value of `key`. Raises ExperimentError for a list or a mapping."""
        if not isinstance(item.content, str):
            raise self.bad(item.line, f"{key} takes one value, got {item.what}")
        return item.content

    def texts(self, key: str, item: Item) -> list[Item]:
        """The values of `key`, from a list or from one text with commas. Raises ExperimentError if there are none, one is
        empty, or it holds anything but plain values."""
        listed = item.content if isinstance(item.content, tuple) else (item,)
        if not listed:
            raise self.bad(item.line, f"{key} is an empty list; name a value, or leave the key out")
        if isinstance(item.content, Mapping) or not all(isinstance(one.content, str) for one in listed):
            raise self.bad(item.line, f"{key} takes plain values, or a list of them, got {item.what}")
        found = [replace(one, content=part.strip()) for one in listed for part in str(one.content).split(",")]
        for one in found:
            if not one.content:
                raise self.bad(one.line, f"{key} has an empty place; separate its values by single commas")
        return found

    def mapping(self, key: str, item: Item, wanted: str) -> Mapping[str, Item]:
        """What `key` maps. Raises ExperimentError, saying what is `wanted`, for anything else."""
        if not isinstance(item.content, Mapping):
            raise self.bad(item.line, f"{key} takes a mapping of {wanted}, got {item.what}")
        return item.content

    def inside(self, key: str, name: str, line: int) -> Path:
        """The path `name`, which `key` has in the file: it starts from the file's own folder. Raises ExperimentError if it
        leaves that folder, also where symbolic links lead."""
        folder = self.path.parent
        try:
            stays = (folder / name).resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError, ValueError) as fault:  # links in a circle; a null character
            raise self.bad(line, f"{key}: {name!r} is no path ({fault})") from fault
        if not stays:
            what = f"{key}: {name!r} lies outside the folder of the experiment file; give it on the command line instead"
            raise self.bad(line, what)
        return Path(os.path.normpath(folder / name))


def read_experiment(path: Path) -> ExperimentFile:
    """The experiment file at `path`. Raises ExperimentError for what is no plain YAML or TOML; OSError if it cannot be read."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ExperimentError(f"{str(path)!r} is no experiment file; its name must end in {', '.join(READERS)}")
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ExperimentError(f"{path} is larger than {LIMIT // 10**6} MB, which no experiment needs")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise _bad(path, content.count(b"\n", 0, fault.start) + 1, "this is not UTF-8 text") from None
    return ExperimentFile(path, reader(path, text))


def _bad(path: Path, line: int, what: str) -> ExperimentError:
    return ExperimentError(f"{path}, line {line}: {what}")


SILENT = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
EMPTY = ("", "~", "null", "Null", "NULL")


def _read_yaml(path: Path, text: str) -> Mapping[str, Item]:
    """Reads the parser's events rather than its objects: so what is refused is refused when it is met, before it can grow."""
    try:
        events = (event for event in yaml.parse(text, Loader=yaml.SafeLoader) if not isinstance(event, SILENT))
        first = next(events, None)
        if first is None or (isinstance(first, yaml.ScalarEvent) and _is_empty(first) and not (first.tag or first.anchor)):
            return {}
        root = _yaml_item(path, first, events, DEPTH)
        for event in events:
            raise _bad(path, event.start_mark.line + 1, "a second document begins; an experiment is one document")
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        raise _bad(path, mark.line + 1 if mark else 1, f"this is no YAML ({fault.problem})") from None
    except yaml.reader.ReaderError as fault:
        line = text.count("\n", 0, fault.position) + 1
        raise _bad(path, line, f"this is no YAML (character {fault.character:#x} is not allowed)") from None
    except ExperimentError:
        raise
    except (ValueError, OverflowError) as fault:  # an escape such as "\UFFFFFFFF" that stands for no character
        raise ExperimentError(f"{path} is no YAML ({fault})") from None
    if not isinstance(root.content, Mapping):
        raise _bad(path, root.line, f"an experiment is a mapping of names to values, got {root.what}")
    return root.content


def _yaml_item(path: Path, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Item:
    """What `event` begins; `depth`: how many lists and mappings may stand inside of each other from here."""
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _bad(path, line, "anchors (&name) and aliases (*name) are not read; write the value out")
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise _bad(path, line, f"tags are not read, got {tag}; write the plain value")
    if isinstance(event, yaml.ScalarEvent):
        if _is_empty(event):
            raise _bad(path, line, "a value is missing; write one, or leave the key out")
        return Item(event.value, line)
    if depth == 0:
        raise _bad(path, line, "lists or mappings stand too deep inside of each other")
    if isinstance(event, yaml.SequenceStartEvent):
        return Item(tuple(_yaml_item(path, one, events, depth - 1) for one in _until(yaml.SequenceEndEvent, events)), line)
    mapped: dict[str, Item] = {}
    for one in _until(yaml.MappingEndEvent, events):
        if isinstance(one, yaml.CollectionStartEvent):
            raise _bad(path, one.start_mark.line + 1, "a key is a plain name, got a list or a mapping")
        key = _yaml_item(path, one, events, depth=0)
        name = str(key.content)
        if name in mapped:
            raise _bad(path, key.line, f"{name!r} stands on line {mapped[name].line} already; once is enough")
        mapped[name] = replace(_yaml_item(path, next(events), events, depth - 1), line=key.line)
    return Item(mapped, line)


def _until(end: type[yaml.Event], events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events up to the one of the kind `end`, which is passed over."""
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _is_empty(event: yaml.ScalarEvent) -> bool:
    return bool(event.implicit[0]) and event.value in EMPTY


def _read_toml(path: Path, text: str) -> Mapping[str, Item]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        what, _, where = str(fault).partition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = int(found[1]) if found else text.rstrip().count("\n") + 1  # else it is the end that comes too early
        raise _bad(path, line, f"this is no TOML ({what})") from None
    except ValueError as fault:  # a number of thousands of digits
        raise ExperimentError(f"{path} is no TOML ({fault})") from None
    except RecursionError:
        raise ExperimentError(f"{path}: lists or mappings stand too deep inside of each other") from None
    found_items = _toml_item(path, values, (), _key_lines(text)).content
    return found_items if isinstance(found_items, Mapping) else {}


def _toml_item(path: Path, value: Any, key: tuple[str, ...], lines: Mapping[tuple[str, ...], int], depth: int = DEPTH) -> Item:
    """`value`, which stands under the names `key`; `lines`: where keys stand (see _key_lines)."""
    line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)
    if isinstance(value, bool) or not isinstance(value, dict | list):
        return Item(str(value).lower() if isinstance(value, bool) else str(value), line)
    if depth == 0:
        raise _bad(path, line, "lists or mappings stand too deep inside of each other")
    if isinstance(value, list):
        return Item(tuple(_toml_item(path, one, key, lines, depth - 1) for one in value), line)
    return Item({name: _toml_item(path, one, (*key, name), lines, depth - 1) for name, one in value.items()}, line)


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The lines of a TOML text on which keys stand first, for messages: tomllib does not tell. What stands inside of braces
    counts to the key before them."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        heading = line.strip().startswith("[") and "=" not in line
        name, equals, _ = line.strip(" \t[").partition("]" if heading else "=")
        if not equals:
            continue
        names = tuple(part.strip(" \t\"'") for part in name.split("."))
        table, key = (names, names) if heading else (table, (*table, *names))
        for end in range(1, len(key) + 1):
            lines.setdefault(key[:end], number)
    return lines


READERS: Final[Mapping[str, Callable[[Path, str], Mapping[str, Item]]]] = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".toml": _read_toml,
}
"""How a file is read, by the end of its name."""
