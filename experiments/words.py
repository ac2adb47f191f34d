"""What a comparison is asked for, in words: read from text and held to the tables, with nothing built yet.

Standard library only, so that a command line costs nothing before it is understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..registry import CASES, EDITORS, SOLVERS, RegistryError, Table
from .presets import find_preset

DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
"""What networks compute in, by the short names that people use."""


class Method(NamedTuple):
    """An editor and the solver it walks with, by name; `preset` where both, their options and their steps are published;
    `steps` where it has a number of its own (0: it has none)."""

    editor: str
    solver: str
    preset: str = ""
    steps: int = 0

    @property
    def label(self) -> str:
        """What it is called in a table, which has a column for the steps."""
        return self.preset or f"{self.editor}+{self.solver}"

    def __str__(self) -> str:
        return f"{self.label}/{self.steps}" if self.steps else self.label

    @classmethod
    def read(cls, text: str) -> Method:
        """EDITOR+SOLVER or the name of a preset, either with /STEPS. Raises RegistryError for unknown names, ValueError for
        what is neither."""
        name, slash, count = text.partition("/")
        if slash and not re.fullmatch(r"[1-9]\d{0,4}", count):
            raise ValueError(f"{text!r} has no steps after its slash; write a number, such as {name or 'flowedit+euler'}/28")
        steps = int(count or 0)
        if "@" in name:
            preset = find_preset(name)
            return cls(preset.editor, preset.solver, name, steps)
        editor, plus, solver = name.partition("+")
        if not (editor and plus and solver):
            raise ValueError(f"{text!r} is no method; write EDITOR+SOLVER, such as flowedit+euler, or a preset")
        return cls(known(EDITORS, editor), known(SOLVERS, solver), "", steps)


class CaseChoice(NamedTuple):
    """A case set, how many of it, and the folder for a set that reads one."""

    name: str
    size: int | None = None
    path: str | None = None

    @classmethod
    def read(cls, text: str) -> CaseChoice:
        """NAME, NAME:COUNT, NAME:FOLDER or NAME:FOLDER:COUNT. Raises RegistryError for an unknown name, ValueError for a count
        below 1."""
        name, _, rest = text.partition(":")
        known(CASES, name)
        path, _, count = rest.rpartition(":")
        if not re.fullmatch(r"-?\d+", count):
            return cls(name, None, rest or None)
        if int(count) < 1:
            raise ValueError(f"at least 1 case must be asked for, got {text!r}")
        return cls(name, int(count), path or None)

    def __str__(self) -> str:
        parts = (self.name, self.path, None if self.size is None else str(self.size))
        return ":".join(part for part in parts if part is not None)


class Shard(NamedTuple):
    """One of several equal parts of a comparison, for machines that know nothing of each other; `number` counts from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """From "2/16". Raises ValueError for anything else, and for a number outside of 1 to the number of shards."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{text!r} is no shard; write I/N with I from 1 to N, such as 2/16")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Asked:
    """A comparison as it is asked for; what is left empty is chosen to suit the model (see `defaults`).

    methods: in place of all editors with all solvers. steps: for every method; without them a preset runs with its own.
    match_nfe: as many steps as that many evaluations (network rows) for a picture allow. metrics: by name. tasks: those of
    the metrics that are asked for alone ("reconstruct", "edit"). protocol: the name of a recipe that says what is left empty
    (see `protocols`).
    Raises ValueError for wishes that contradict each other.
    """

    methods: tuple[Method, ...] = ()
    solvers: tuple[str, ...] = ()
    editors: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    match_nfe: int | None = None
    cases: CaseChoice | None = None
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    protocol: str = ""

    def __post_init__(self) -> None:
        if self.methods and (self.solvers or self.editors):
            raise ValueError("methods name editors and solvers already; leave out solvers and editors")
        if self.match_nfe is not None and self.match_nfe < 1:
            raise ValueError(f"match_nfe must be at least 1, got {self.match_nfe}")
        if self.steps and self.match_nfe is not None:
            raise ValueError("match-nfe chooses the steps; leave out steps")
        if not self.seeds:
            raise ValueError("at least one seed must be given, got none")
        for name, low in (("steps", 1), ("seeds", 0)):
            if any(count < low for count in getattr(self, name)):
                raise ValueError(f"{name} must be whole numbers of at least {low}, got {getattr(self, name)}")


def known(table: Table, name: str) -> str:
    """`name`, held to the table. Raises RegistryError with the near names."""
    if name not in table:
        raise RegistryError(table.suggest(name))
    return name
