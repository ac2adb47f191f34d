"""One line of JSON a cell: what ran, what it cost, what it scored, or why it failed."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .execute import Cost

PICTURES = "pictures"
SCHEMA = 2
"""Of records and of run.json; docs/records.md says what changed."""


@dataclass(frozen=True)
class Share:
    """One case's part in the cost of its batch of `batch` cases. `calls` are the batch's, as many as the case alone would make;
    `rows` and the seconds are shared out evenly; `peak_bytes` is the batch's."""

    batch: int
    calls: int
    rows: float
    seconds: float
    network_seconds: float
    peak_bytes: int | None

    @classmethod
    def of(cls, cost: Cost) -> Share:
        n = cost.cases
        return cls(n, cost.calls, cost.rows / n, cost.seconds / n, cost.network_seconds / n, cost.peak_bytes)


@dataclass(frozen=True)
class Record:
    """One cell. `key` identifies it (see `fingerprint`), `row` names the line of the comparison; `source` and `target` are the
    prompts that were used. `scores` by metric, NaN where not defined; `counts`: what the editor showed; `picture`: its file
    in the run's folder (None if none was kept); `error`: why there is no result (None if there is one); `session`: which of the
    sessions in run.json made it."""

    key: str
    row: str
    task: str
    case: str
    kind: str
    source: str
    target: str
    editor: str
    solver: str
    steps: int
    seed: int
    cost: Share | None = None
    scores: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    picture: str | None = None
    session: int = 0
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.case} in {self.row}: {self.error or 'done'}"

    def to_json(self) -> str:
        """One line. NaN becomes null, which JSON knows."""
        values = {"schema": SCHEMA} | asdict(self)
        values["scores"] = {name: None if math.isnan(score) else score for name, score in self.scores.items()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """The record of a line. Raises ValueError, TypeError, KeyError or AttributeError if it is no record of this schema."""
        values: dict[str, Any] = json.loads(line)
        schema = values.pop("schema", None)
        if schema != SCHEMA:
            raise ValueError(f"its schema is {schema}, and only {SCHEMA} is read")
        cost = values.pop("cost")
        scores = {name: math.nan if score is None else score for name, score in values.pop("scores").items()}
        return cls(**values, scores=scores, cost=None if cost is None else Share(**cost))


class Finished(NamedTuple):
    """A cell's record and its picture (3, H, W) in [0, 1], where one is kept."""

    record: Record
    picture: Tensor | None


def picture_folder(group: str) -> str:
    """Where pictures are in a run's folder: `group` is a row's name, "source" or "truth"."""
    return f"{PICTURES}/{_safe(group)}"


def picture_name(group: str, name: str) -> str:
    """The file of a picture in a run's folder."""
    return f"{picture_folder(group)}/{_safe(name)}.png"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)


def read_records(path: Path) -> list[Record]:
    """The records of a file, the last one of each key; a last line that was cut off while it was written is left out.
    Raises ValueError naming the line if another one cannot be read."""
    if not path.exists():
        return []
    found: dict[str, Record] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                record = Record.from_json(line)
            except (ValueError, TypeError, KeyError, AttributeError) as fault:
                raise ValueError(
                    f"line {number} of {path} is no record ({type(fault).__name__}: {fault}); remove that line, and the same "
                    "command runs its cell again, or give another folder"
                ) from fault
            found[record.key] = record
    return list(found.values())


def heal(path: Path) -> None:
    """Cut off a last record that was only half written, so that the next one starts a line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
    if whole < path.stat().st_size:
        os.truncate(path, whole)
