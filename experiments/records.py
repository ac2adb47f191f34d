"""One line of JSON a cell: what ran, what it cost, what it scored, or why it failed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .execute import Cost

SCHEMA = 1


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
    """One cell. `key` identifies it (see `fingerprint`), `row` names the line of the comparison. `scores` by metric, NaN where
    not defined; `counts`: what the editor showed; `error`: why there is no result (None if there is one)."""

    key: str
    row: str
    task: str
    case: str
    kind: str
    editor: str
    solver: str
    steps: int
    seed: int
    cost: Share | None = None
    scores: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> str:
        """One line. NaN becomes null, which JSON knows."""
        values = {"schema": SCHEMA} | asdict(self)
        values["scores"] = {name: None if math.isnan(score) else score for name, score in self.scores.items()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record of a line. Raises ValueError if the line is no record of this schema."""
        values: dict[str, Any] = json.loads(line)
        if values.pop("schema", None) != SCHEMA:
            raise ValueError(f"this is no record of schema {SCHEMA}: {line[:60]!r}")
        cost = values.pop("cost")
        scores = {name: math.nan if score is None else score for name, score in values.pop("scores").items()}
        return cls(**values, scores=scores, cost=None if cost is None else Share(**cost))


def read_records(path: Path) -> list[Record]:
    """The records of a file, the last one of each key; a last line that was cut off while it was written is left out.
    Raises ValueError naming the line if another one cannot be read."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    found: dict[str, Record] = {}
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is nothing, or a cut-off line
        try:
            record = Record.from_json(line)
        except (ValueError, TypeError, KeyError) as fault:
            raise ValueError(
                f"line {number} of {path} is no record ({fault}); remove the file, or name another folder"
            ) from fault
        found[record.key] = record
    return list(found.values())


def only(records: Iterable[Record], keys: Iterable[str]) -> dict[str, Record]:
    """The records of those keys that came out without an error, by key."""
    wanted = set(keys)
    return {record.key: record for record in records if record.key in wanted and record.error is None}
