"""Experiment files: a comparison written down as YAML or TOML, read into texts that know their lines.

What the names in it mean is for the command line to say: a file stands for its flags.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..plain_yaml import FileError, Item, bad, read_text, read_yaml

LIMIT: Final = 1_000_000
"""Bytes that a file may have."""
DEPTH: Final = 4
"""Lists and mappings inside of each other: the file, `set`, a name, an option with its values."""


@dataclass(frozen=True)
class ExperimentFile:
    """An experiment file, understood as far as YAML and TOML go."""

    path: Path
    items: Mapping[str, Item]

    def bad(self, line: int, what: str) -> FileError:
        """The refusal of what stands on that line."""
        return bad(self.path, line, what)

    def text(self, key: str, item: Item) -> str:
        """The one value of `key`. Raises FileError for a list or a mapping."""
        if not isinstance(item.content, str):
            raise self.bad(item.line, f"{key} takes one value, got {item.what}")
        return item.content

    def texts(self, key: str, item: Item) -> list[Item]:
        """The values of `key`, from a list or from one text with commas. Raises FileError if there are none, one is
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
        """What `key` maps. Raises FileError, saying what is `wanted`, for anything else."""
        if not isinstance(item.content, Mapping):
            raise self.bad(item.line, f"{key} takes a mapping of {wanted}, got {item.what}")
        return item.content

    def inside(self, key: str, name: str, line: int) -> Path:
        """The path `name`, which `key` has in the file: it starts from the file's own folder. Raises FileError if it
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
    """The experiment file at `path`. Raises FileError for what is no plain YAML or TOML; OSError if it cannot be read."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FileError(f"{str(path)!r} is no experiment file; its name must end in {', '.join(READERS)}")
    return ExperimentFile(path, reader(path, read_text(path, LIMIT, "experiment")))


def _read_yaml(path: Path, text: str) -> Mapping[str, Item]:
    root = read_yaml(path, text, DEPTH)
    if root is None:
        return {}
    if not isinstance(root.content, Mapping):
        raise bad(path, root.line, f"an experiment is a mapping of names to values, got {root.what}")
    return root.content


def _read_toml(path: Path, text: str) -> Mapping[str, Item]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        what, _, where = str(fault).partition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = int(found[1]) if found else text.rstrip().count("\n") + 1  # else it is the end that comes too early
        raise bad(path, line, f"this is no TOML ({what})") from None
    except ValueError as fault:  # a number of thousands of digits
        raise FileError(f"{path} is no TOML ({fault})") from None
    except RecursionError:
        raise FileError(f"{path}: lists or mappings stand too deep inside of each other") from None
    found_items = _toml_item(path, values, (), _key_lines(text)).content
    return found_items if isinstance(found_items, Mapping) else {}


def _toml_item(path: Path, value: Any, key: tuple[str, ...], lines: Mapping[tuple[str, ...], int], depth: int = DEPTH) -> Item:
    """`value`, which stands under the names `key`; `lines`: where keys stand (see _key_lines). What is in a list has the line
    of the list's key."""
    line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)
    if isinstance(value, bool) or not isinstance(value, dict | list):
        return Item(str(value).lower() if isinstance(value, bool) else str(value), line)
    if depth == 0:
        raise bad(path, line, "lists or mappings stand too deep inside of each other")
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
