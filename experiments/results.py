"""The results of a run as its folders hold them, read without the model, the cases or the code that made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from ..metrics.base import Metric
from ..registry import METRICS, RegistryError
from .folder import RECORDS
from .manifest import Manifest, read_manifest
from .names import build_metric
from .records import Record, picture_name, read_records
from .summary import Summary, summarise
from .words import Shard


@dataclass(frozen=True)
class Results:
    """What one comparison came to, from one folder or from several with its shards. `manifest` is the first folder's; `shards`
    say which part of the cells each folder is for, None for all; `records` are those of all folders, one a cell, in the order
    of the rows and cases."""

    manifest: Manifest
    folders: tuple[Path, ...]
    shards: tuple[Shard | None, ...]
    records: tuple[Record, ...]

    @property
    def failures(self) -> list[Record]:
        """The records of cells that failed."""
        return [record for record in self.records if record.error is not None]

    @property
    def on_gpu(self) -> bool:
        """Whether the model ran on a GPU."""
        return self.manifest.device.startswith("cuda")

    @property
    def missing(self) -> list[Shard]:
        """The shards whose folders are not among these; none where that cannot be told, as the whole run is among them, or
        shards of different sizes."""
        size, *others = {None if shard is None else shard.of for shard in self.shards}
        if size is None or others:
            return []
        return [shard for number in range(1, size + 1) if (shard := Shard(number, size)) not in self.shards]

    @cached_property
    def left_out(self) -> Mapping[str, str]:
        """The metrics that no column can be made of, by name, with the reason: they came from a plug-in that is not installed
        here, or cannot be imported."""
        faults: dict[str, str] = {}
        for name in dict.fromkeys(chain.from_iterable(self.manifest.metrics.values())):
            try:
                METRICS[name]
            except RegistryError as fault:
                faults[name] = str(fault) if name in METRICS else f"the metric {name!r} is not installed here"
        return faults

    @cached_property
    def summaries(self) -> Sequence[Summary]:
        """One summary for each task, of the metrics that are at hand."""
        tasks = dict.fromkeys(row.task for row in self.manifest.rows)
        return [summarise(task, self.manifest.rows, self.records, self._metrics(task)) for task in tasks]

    def picture(self, name: str) -> Path | None:
        """The file of a picture that a record names; None where no folder has it."""
        return next((folder / name for folder in self.folders if (folder / name).exists()), None)

    def original(self, group: str, case: str) -> Path | None:
        """The picture of a case: `group` is "source" or "truth"."""
        return self.picture(picture_name(group, case))

    def _metrics(self, task: str) -> Mapping[str, Metric]:
        known = (name for name in self.manifest.metrics.get(task, ()) if name not in self.left_out)
        return {name: build_metric(name) for name in known}


def read_results(folders: Iterable[Path]) -> list[Results]:
    """The results in those folders: one for each comparison, however many shards of it there are. A folder that holds no run
    stands for the runs right inside it. Raises ValueError if there is none, or if one cannot be read."""
    found: dict[str, dict[Path, Manifest]] = {}
    for folder in folders:
        for path, manifest in _runs(folder):
            found.setdefault(manifest.plan, {})[path] = manifest
    return [_joined(runs) for runs in found.values()]


def _runs(folder: Path) -> list[tuple[Path, Manifest]]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}; give a folder that fe compare wrote")
    manifest = read_manifest(folder)
    if manifest is not None:
        return [(folder, manifest)]
    inside = [(path, read_manifest(path)) for path in sorted(folder.iterdir()) if path.is_dir()]
    runs = [(path, manifest) for path, manifest in inside if manifest is not None]
    if not runs:
        raise ValueError(f"{str(folder)!r} holds no run; give a folder that fe compare wrote")
    return runs


def _joined(runs: Mapping[Path, Manifest]) -> Results:
    """One comparison of all its parts. A cell that several folders hold counts once: as the first of them in which it came
    out has it. Raises ValueError if a folder holds cells that are none of this comparison's."""
    manifest = next(iter(runs.values()))
    rows = {(row.name, seed): place for place, row in enumerate(manifest.rows) for seed in row.seeds}
    cases = {case: place for place, case in enumerate(manifest.cases)}
    found: dict[tuple[int, int, int], Record] = {}
    for path in runs:
        for record in read_records(path / RECORDS):
            place = (rows.get((record.row, record.seed), -1), cases.get(record.case, -1), record.seed)
            twin = found.get(place)
            if min(place) < 0 or (twin is not None and twin.key != record.key):
                raise ValueError(
                    f"{str(path / RECORDS)!r} holds records of another comparison than its run.json ({record.case} in "
                    f"{record.row}); run it again into a new folder"
                )
            if twin is None or twin.error is not None:
                found[place] = record
    shards = tuple(None if one.shard is None else Shard.read(one.shard) for one in runs.values())
    return Results(manifest, tuple(runs), shards, tuple(found[place] for place in sorted(found)))
