"""run.json: what a run is, so that its results can be read without what made them, and where it took place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .records import SCHEMA
from .rows import Heading

RUN = "run.json"


@dataclass(frozen=True)
class Manifest:
    """What a comparison is. `plan` is its hash, `comparison` the request as plain values. `rows`, `cases` (their ids) and the
    names of the `metrics` by task are in the order of the tables; `cells` counts all of them, those of other shards too.
    `trained`: whether results say anything of quality; `loaded`: whether `comparison` says how to load the model, which may
    have been handed over as an object; `device`: what the model ran on. `shard`: which part of the cells the folder is for,
    such as "2/16" (None: all). `sessions`: where and how each part of the run took place. `made_of`: what the keys are made of
    (see `fingerprint.ingredients`), so that it can be told what has changed. `absent`: the metrics whose weights were not
    there, with the reason: their columns are empty."""

    plan: str
    comparison: Mapping[str, Any]
    rows: tuple[Heading, ...]
    cases: tuple[str, ...]
    metrics: Mapping[str, tuple[str, ...]]
    cells: int
    trained: bool
    loaded: bool
    device: str
    shard: str | None = None
    sessions: tuple[Mapping[str, Any], ...] = ()
    made_of: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text, for people too."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The run that a text describes. Raises ValueError, TypeError or KeyError if it describes none of this schema."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
        schema = values.pop("schema", 1)
        if schema != SCHEMA:
            raise ValueError(f"it is of schema {schema}, and only {SCHEMA} is read")
        rows = tuple(Heading(**{**row, "seeds": tuple(row["seeds"])}) for row in values.pop("rows"))
        metrics = {task: tuple(names) for task, names in values.pop("metrics").items()}
        cases, sessions = tuple(values.pop("cases")), tuple(values.pop("sessions"))
        return cls(**values, rows=rows, cases=cases, metrics=metrics, sessions=sessions)

    def apart(self, other: Manifest) -> list[str]:
        """What both runs have and is another one there, by name: of what was asked for, and of what the keys are made of."""
        here, there = json.loads(self.to_json()), json.loads(other.to_json())
        both = [(here[part], there[part]) for part in ("comparison", "made_of")] + [
            ({"shard": self.shard}, {"shard": other.shard})
        ]
        return [name for mine, theirs in both for name in mine if name in theirs and mine[name] != theirs[name]]


def read_manifest(folder: Path) -> Manifest | None:
    """What the run in a folder is; None if it holds none. Raises ValueError if its run.json cannot be understood, OSError if it
    cannot be read."""
    path = folder / RUN
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, NotADirectoryError) as fault:
        raise ValueError(
            f"{str(path)!r} cannot be understood ({fault}): it is damaged, or from another version; run the comparison again "
            "into a new folder, or with --overwrite into this one"
        ) from fault
