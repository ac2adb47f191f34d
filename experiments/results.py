"""The results of a run as its folders hold them, read without the model, the cases or the code that made them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from ..metrics.base import Score, SetMetric
from ..registry import METRICS, RegistryError
from .folder import RECORDS
from .manifest import RUN, Manifest, read_manifest
from .names import build_metric
from .records import Record, picture_name, read_records
from .set_scores import SetScores, read_sets
from .summary import Summary, summarise
from .words import Shard

DEPTH: Final = 3
"""As many folders deep runs are looked for."""


@dataclass(frozen=True)
class Results:
    """What one comparison came to, from one folder or from several with its shards. `manifest` is the first folder's; `shards`
    say which part of the cells each folder is for, None for all; `records` are those of all folders, one a cell, in the order
    of the rows and cases; `sets`: what metrics of whole rows found of them; `unset`: those of them that could not be had, with
    the reason."""

    manifest: Manifest
    folders: tuple[Path, ...]
    shards: tuple[Shard | None, ...]
    records: tuple[Record, ...]
    sets: SetScores = field(default_factory=dict)
    unset: Mapping[str, str] = field(default_factory=dict)

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
        rows, records, named = self.manifest.rows, self.records, self.manifest.comparison.get("metrics", ())
        columns = {*self.manifest.absent, *self.unset, *named}  # what was named has a column, and be it that nothing is in it
        return [summarise(task, rows, records, self._metrics(task), self.sets, columns) for task in tasks]

    @property
    def sets_to_come(self) -> Mapping[str, SetMetric]:
        """The metrics of whole rows, by name, that nothing is known of yet: neither a figure nor a reason why there is none."""
        if not self.manifest.trained:
            return {}
        known = {*chain.from_iterable(self.sets.values()), *self.unset, *self.manifest.absent}
        built = chain.from_iterable(self._metrics(task).items() for task in self.manifest.metrics)
        return {name: metric for name, metric in built if isinstance(metric, SetMetric) and name not in known}

    def picture(self, name: str) -> Path | None:
        """The file of a picture that a record names; None where no folder has it."""
        return next((folder / name for folder in self.folders if (folder / name).exists()), None)

    def original(self, group: str, case: str) -> Path | None:
        """The picture of a case: `group` is "source" or "truth"."""
        return self.picture(picture_name(group, case))

    def _metrics(self, task: str) -> Mapping[str, Score]:
        known = (name for name in self.manifest.metrics.get(task, ()) if name not in self.left_out)
        settings = self.manifest.comparison.get("settings", {})
        return {name: build_metric(name, settings.get(name)) for name in known}


class Found(NamedTuple):
    """The comparisons that some folders hold, and why runs among them cannot be read, a sentence each."""

    comparisons: list[Results]
    faults: list[str]


def find_results(folders: Iterable[Path]) -> Found:
    """The results in those folders: one for each comparison, however many shards of it there are. A folder that holds no run
    stands for those inside it. Raises ValueError if there is none, or if none can be read."""
    by_plan: dict[str, list[_Run]] = {}
    faults: list[str] = []
    for path in dict.fromkeys(chain.from_iterable(map(_runs, folders))):
        try:
            run = _read(path)
        except ValueError as fault:
            faults.append(str(fault))
        else:
            by_plan.setdefault(run.manifest.plan, []).append(run)
    if faults and not by_plan:
        raise ValueError(faults[0] if len(faults) == 1 else f"none of {len(faults)} runs can be read; the first: {faults[0]}")
    return Found([_joined(runs) for runs in by_plan.values()], faults)


def read_results(folders: Iterable[Path]) -> list[Results]:
    """The same where every run must be read. Raises ValueError if one cannot be."""
    comparisons, faults = find_results(folders)
    if faults:
        raise ValueError(faults[0])
    return comparisons


def _runs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}; give a folder that fe compare wrote")
    runs = list(_inside(folder, DEPTH))
    if not runs:
        raise ValueError(f"{str(folder)!r} holds no run; give a folder that fe compare wrote")
    return runs


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / RUN).exists():
        yield folder
    elif depth:
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _inside(path, depth - 1)


Place = tuple[int, int, int]
"""Of a cell among all: its row, its case, its seed."""


class _Run(NamedTuple):
    path: Path
    manifest: Manifest
    records: Mapping[Place, Record]


def _read(path: Path) -> _Run:
    """The run in a folder. Raises ValueError if it cannot be read, or if it holds cells that are none of its comparison's."""
    manifest = read_manifest(path)
    if manifest is None:
        raise ValueError(f"{str(path)!r} holds no run; give a folder that fe compare wrote")
    rows = {(row.name, seed): place for place, row in enumerate(manifest.rows) for seed in row.seeds}
    cases = {case: place for place, case in enumerate(manifest.cases)}
    found: dict[Place, Record] = {}
    for record in read_records(path / RECORDS):
        place = (rows.get((record.row, record.seed), -1), cases.get(record.case, -1), record.seed)
        if min(place) < 0 or place in found:
            raise ValueError(
                f"{str(path / RECORDS)!r} holds records of another comparison than its run.json ({record.case} in "
                f"{record.row}); run it again into a new folder"
            )
        found[place] = record
    return _Run(path, manifest, found)


def _joined(runs: Sequence[_Run]) -> Results:
    """One comparison of all its parts. A cell that several folders hold counts once: as the first of them in which it came
    out has it."""
    found: dict[Place, Record] = {}
    for run in runs:
        for place, record in run.records.items():
            twin = found.get(place)
            if twin is None or twin.error is not None:
                found[place] = record
    shards = tuple(None if run.manifest.shard is None else Shard.read(run.manifest.shard) for run in runs)
    records = tuple(found[place] for place in sorted(found))
    sets = next(filter(None, (read_sets(run.path, records) for run in runs)), {})
    return Results(runs[0].manifest, tuple(run.path for run in runs), shards, records, sets)
