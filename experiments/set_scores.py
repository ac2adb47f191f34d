"""sets.json: what metrics of whole rows found, and which records it was made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ..files import whole
from .records import Record
from .statistics import Estimate

SETS: Final = "sets.json"
_VERSION: Final = 1
"""To be raised when the same records would come to other figures."""

SetScores = Mapping[str, Mapping[str, Estimate]]
"""By the name of the row, then of the metric."""


def write_sets(folder: Path, records: Iterable[Record], found: SetScores) -> None:
    """Write down what was found of these records. Raises OSError if it cannot be written."""
    rows = {row: {name: _plain(estimate) for name, estimate in named.items()} for row, named in found.items()}
    text = json.dumps({"schema": _VERSION, "of": _identity(records), "rows": rows}, indent=2, allow_nan=False)
    with whole(folder / SETS) as file:
        file.write(text.encode() + b"\n")


def read_sets(folder: Path, records: Iterable[Record]) -> SetScores:
    """What was found of these very records; nothing where the folder tells of none or of others, and where what it tells
    cannot be understood: then it is found anew."""
    try:
        values = json.loads((folder / SETS).read_text(encoding="utf-8"))
        if (values["schema"], values["of"]) != (_VERSION, _identity(records)):
            return {}
        return {row: {name: _estimate(one) for name, one in named.items()} for row, named in values["rows"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _identity(records: Iterable[Record]) -> str:
    """A hash of all that records say, whatever their order."""
    return sha256("\n".join(sorted(record.to_json() for record in records)).encode()).hexdigest()[:16]


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def _estimate(values: Mapping[str, Any]) -> Estimate:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
    return Estimate(**known)
