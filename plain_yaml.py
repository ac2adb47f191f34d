"""YAML of which only plain values, lists and mappings are read, each with the line that it stands on.

No tag and no anchor is looked at, so a file can neither make objects nor grow when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml


class FileError(ValueError):
    """What is wrong in a file, with the file and the line, in one sentence for the user."""


@dataclass(frozen=True)
class Item:
    """What a file says at one place. Numbers and truth values are kept as the text that they are written with. `line`
    counts from 1: that of the key, for what has one, and of the value itself in a list."""

    content: str | tuple[Item, ...] | Mapping[str, Item]
    line: int

    @property
    def what(self) -> str:
        """What it is, for messages."""
        if isinstance(self.content, str):
            return repr(self.content)
        return "a list" if isinstance(self.content, tuple) else "a mapping"


def bad(path: Path, line: int, what: str) -> FileError:
    """The refusal of what stands on that line of a file."""
    return FileError(f"{path}, line {line}: {what}")


def read_text(path: Path, limit: int, what: str) -> str:
    """The text of a file that is to be `what` ("experiment"). Raises FileError if it has more than `limit` bytes or is not
    UTF-8; OSError if it cannot be read."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FileError(f"{path} is larger than {limit // 10**6} MB, which no {what} needs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise bad(path, content.count(b"\n", 0, fault.start) + 1, "this is not UTF-8 text") from None


SILENT = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
EMPTY = ("", "~", "null", "Null", "NULL")


def read_yaml(path: Path, text: str, depth: int) -> Item | None:
    """What a text says that was read from `path`; None if it says nothing. `depth`: how many lists and mappings may stand
    inside of each other. Raises FileError.

    It reads the parser's events rather than its objects: so what is refused is refused when it is met, before it can grow.
    """
    try:
        events = (event for event in yaml.parse(text, Loader=yaml.SafeLoader) if not isinstance(event, SILENT))
        first = next(events, None)
        if first is None or (isinstance(first, yaml.ScalarEvent) and _is_empty(first) and not (first.tag or first.anchor)):
            return None
        root = _item(path, first, events, depth)
        for event in events:
            raise bad(path, event.start_mark.line + 1, "a second document begins; a file is one document")
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        raise bad(path, mark.line + 1 if mark else 1, f"this is no YAML ({fault.problem})") from None
    except yaml.reader.ReaderError as fault:
        line = text.count("\n", 0, fault.position) + 1
        raise bad(path, line, f"this is no YAML (character {fault.character:#x} is not allowed)") from None
    except FileError:
        raise
    except (ValueError, OverflowError) as fault:  # an escape such as "\UFFFFFFFF" that stands for no character
        raise FileError(f"{path} is no YAML ({fault})") from None
    return root


def _item(path: Path, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Item:
    """What `event` begins; `depth`: how many lists and mappings may stand inside of each other from here."""
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise bad(path, line, "anchors (&name) and aliases (*name) are not read; write the value out")
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise bad(path, line, f"tags are not read, got {tag}; write the plain value")
    if isinstance(event, yaml.ScalarEvent):
        if _is_empty(event):
            raise bad(path, line, "a value is missing; write one, or leave the key out")
        return Item(event.value, line)
    if depth == 0:
        raise bad(path, line, "lists or mappings stand too deep inside of each other")
    if isinstance(event, yaml.SequenceStartEvent):
        return Item(tuple(_item(path, one, events, depth - 1) for one in _until(yaml.SequenceEndEvent, events)), line)
    mapped: dict[str, Item] = {}
    for one in _until(yaml.MappingEndEvent, events):
        if isinstance(one, yaml.CollectionStartEvent):
            raise bad(path, one.start_mark.line + 1, "a key is a plain name, got a list or a mapping")
        key = _item(path, one, events, depth=0)
        name = str(key.content)
        if name in mapped:
            raise bad(path, key.line, f"{name!r} stands on line {mapped[name].line} already; once is enough")
        mapped[name] = replace(_item(path, next(events), events, depth - 1), line=key.line)
    return Item(mapped, line)


def _until(end: type[yaml.Event], events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    """The events up to the one of the kind `end`, which is passed over."""
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _is_empty(event: yaml.ScalarEvent) -> bool:
    return bool(event.implicit[0]) and event.value in EMPTY
