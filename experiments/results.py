"""The results of a run as its folders hold them, read without the model, the cases or the code that made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..metrics.base import Metric
from .folder import RECORDS
from .manifest import Manifest, read_manifest
from .names import build_metric
from .records import Record, picture_name, read_records
from .summary import Summary, summarise


@dataclass(frozen=True)
class Results:
    """What one comparison came to, from one folder or from several with its shards. `records` are those of all folders, the
    last one of each cell, in the order of the rows and cases."""

    manifest: Manifest
    folders: tuple[Path, ...]
    records: tuple[Record, ...]

    @property
    def failures(self) -> list[Record]:
        """The records of cells that failed."""
        return [record for record in self.records if record.error is not None]

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a GPU."""
        return self.manifest.device.startswith("cuda")

    @cached_property
    def summaries(self) -> Sequence[Summary]:
        """One summary for each task. Raises RegistryError if a metric is not installed."""
        tasks = dict.fromkeys(row.task for row in self.manifest.rows)
        return [summarise(task, self.manifest.rows, self.records, self._metrics(task)) for task in tasks]

    def picture(self, name: str) -> Path | None:
        """The file of a picture that a record names; None where no folder has it."""
        return next((folder / name for folder in self.folders if (folder / name).exists()), None)

    def original(self, group: str, case: str) -> Path | None:
        """The picture of a case: `group` is "source" or "truth"."""
        return self.picture(picture_name(group, case))

    def _metrics(self, task: str) -> Mapping[str, Metric]:
        return {name: build_metric(name) for name in self.manifest.metrics.get(task, ())}


def read_results(folders: Iterable[Path]) -> list[Results]:
    """The results in those folders: one for each comparison, however many shards of it there are. A folder that holds no run
    stands for the runs right inside it. Raises ValueError if there is none, or if one cannot be read."""
    found: dict[str, list[tuple[Path, Manifest]]] = {}
    for folder in dict.fromkeys(folders):
        for path, manifest in _runs(folder):
            found.setdefault(manifest.plan, []).append((path, manifest))
    return [_joined(runs) for runs in found.values()]


def _runs(folder: Path) -> list[tuple[Path, Manifest]]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}; give the folder of a run")
    manifest = read_manifest(folder)
    if manifest is not None:
        return [(folder, manifest)]
    inside = [(path, read_manifest(path)) for path in sorted(folder.iterdir()) if path.is_dir()]
    runs = [(path, manifest) for path, manifest in inside if manifest is not None]
    if not runs:
        raise ValueError(f"{str(folder)!r} holds no run; give a folder that fe compare wrote")
    return runs


def _joined(runs: Sequence[tuple[Path, Manifest]]) -> Results:
    manifest = runs[0][1]
    records: dict[str, Record] = {}
    for path, _ in runs:
        for record in read_records(path / RECORDS):
            if record.key not in records or record.error is None:
                records[record.key] = record
    rows = {row.name: place for place, row in enumerate(manifest.rows)}
    cases = {case: place for place, case in enumerate(manifest.cases)}
    in_order = sorted(records.values(), key=lambda record: (rows[record.row], cases[record.case], record.seed))
    return Results(manifest, tuple(path for path, _ in runs), tuple(in_order))
