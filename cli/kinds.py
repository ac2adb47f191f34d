"""The kinds of value that options take: strictly read, completed by the shell, refused in one sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..experiments.presets import PRESETS, find_preset
from ..experiments.protocols import PROTOCOLS, find_protocol
from ..experiments.words import DTYPES, CaseChoice, Method, Shard
from ..registry import CASES, EDITORS, MODELS, SOLVERS, RegistryError, Table


class Kind(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A kind of value. Values that are already converted (defaults) pass through `convert`."""


class Name(Kind):
    """A name in a registry table. Unknown names are refused with the near ones."""

    def __init__(self, table: Table) -> None:
        self.name, self.table = table.kind, table

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.table:
            self.fail(self.table.suggest(value), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.table if name.startswith(incomplete)]


class ProtocolName(Kind):
    """The name of a protocol."""

    name = "protocol"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            find_protocol(value)
        except RegistryError as fault:
            self.fail(str(fault), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in PROTOCOLS if name.startswith(incomplete)]


class ModelSpec(Kind):
    """A model: a name, a folder, a hub id, or KIND:FOLDER-OR-HUB-ID."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = value.partition(":")[0]
        if name not in MODELS and "/" not in name and not Path(value).is_dir():
            self.fail(f"{MODELS.suggest(name)} (or name a folder, or a hub id OWNER/NAME)", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in MODELS if name.startswith(incomplete)]


class Dtype(Kind):
    """float32, bfloat16 or float16, also by their short names."""

    name = "dtype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        full = DTYPES.get(value, value)
        if full not in DTYPES.values():
            self.fail(f"{value!r} is no dtype; use {', '.join(dict.fromkeys(DTYPES.values()))}", param, ctx)
        return str(full)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = [*dict.fromkeys(DTYPES.values()), *DTYPES]
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]


class Names(Kind):
    """Names in a registry table, separated by commas: a tuple without repeats, in the order given."""

    def __init__(self, table: Table) -> None:
        self.name, self.table = f"{table.kind},...", table

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        one = Name(self.table)
        return tuple(dict.fromkeys(one.convert(part, param, ctx) for part in _parts(self, value, param, ctx)))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        done, comma, last = incomplete.rpartition(",")
        taken = done.split(",")
        return [CompletionItem(f"{done}{comma}{name}") for name in self.table if name.startswith(last) and name not in taken]


class Counts(Kind):
    """Whole numbers of at least `low`, separated by commas: a tuple without repeats, in the order given."""

    name = "n,..."

    def __init__(self, low: int = 1) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = _parts(self, value, param, ctx)
        if not all(part.isdecimal() and int(part) >= self.low for part in parts):
            self.fail(f"{value!r} must be whole numbers of at least {self.low}, separated by commas", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


class Whole(click.IntRange):
    """A whole number between two others, both inclusive."""

    name = "integer"  # "'2.5' is not a valid integer"; click's own says "integer range"


class Finite(Kind):
    """A number that is neither NaN nor infinite, between `low` and `high` inclusive."""

    name = "number"

    def __init__(self, low: float = -math.inf, high: float = math.inf) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        if not self.low <= number <= self.high:
            self.fail(f"{value} is not between {self.low:g} and {self.high:g}", param, ctx)
        return number


class Device(Kind):
    """auto, cpu, cuda, cuda:1, mps."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            self.fail(f"{value!r} is no device; use auto, cpu, cuda, cuda:1 or mps", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in ("auto", "cpu", "cuda", "mps") if name.startswith(incomplete)]


class Size(Kind):
    """Height x width in pixels: "768x1024", or "64" for a square."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", value)
        if found is None:
            self.fail(f"{value!r} is no size; write HEIGHTxWIDTH in pixels, such as 768x1024", param, ctx)
        return int(found[1]), int(found[2] or found[1])


class Folder(Kind):
    """A folder for results, which need not exist; what looks like a picture's name is refused."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if Path(value).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
            self.fail(f"{str(value)!r} looks like a file; name a folder, the files in it get names of their own", param, ctx)
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


class Setting(Kind):
    """An option of a solver or an editor: NAME.OPTION=VALUE, such as flowedit.n_max=20."""

    name = "name.option=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, str]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([^.=]+)\.([^.=]+)=(.*)", value)
        if found is None:
            self.fail(f"{value!r} is no setting; write NAME.OPTION=VALUE, such as flowedit.n_max=20", param, ctx)
        return found[1], found[2], found[3]


class Methods(Kind):
    """Methods, separated by commas: EDITOR+SOLVER, or a preset."""

    name = "method,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Method, ...]:
        if isinstance(value, tuple):
            return value
        with _refusing(self, param, ctx):
            return tuple(dict.fromkeys(Method.read(part) for part in _parts(self, value, param, ctx)))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        done, comma, last = incomplete.rpartition(",")
        names = [*PRESETS, *(f"{editor}+{solver}" for editor in EDITORS for solver in SOLVERS)]
        return [CompletionItem(f"{done}{comma}{name}") for name in names if name.startswith(last)]


class PresetName(Kind):
    """A preset, by name."""

    name = "preset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        with _refusing(self, param, ctx):
            find_preset(value)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]


class Cases(Kind):
    """A case set: NAME, NAME:COUNT, NAME:FOLDER or NAME:FOLDER:COUNT."""

    name = "name:count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> CaseChoice:
        if isinstance(value, CaseChoice):
            return value
        with _refusing(self, param, ctx):
            return CaseChoice.read(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in CASES if name.startswith(incomplete)]


class ShardOf(Kind):
    """One part of a comparison: I/N."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        with _refusing(self, param, ctx):
            return Shard.read(value)


@contextmanager
def _refusing(kind: Kind, param: click.Parameter | None, ctx: click.Context | None) -> Iterator[None]:
    """Turn a refusal of our own into click's, which names the option."""
    try:
        yield
    except (ValueError, RegistryError) as fault:
        kind.fail(str(fault), param, ctx)


def as_options(settings: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Settings as options: "flowedit.n_max" to its value as text, the last one of a name."""
    return {f"{name}.{option}": value for name, option, value in settings}


def _parts(kind: Kind, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        kind.fail(f"{value!r} has an empty place; separate the values by single commas", param, ctx)
    return parts
