"""Run what a folder does not hold yet, group after group, written down as it goes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..cases.base import Case
from ..models.base import Model
from .bench import Bench, Edited, Metrics
from .cells import Cell, groups
from .finishing import finishing
from .folder import RunFolder
from .records import Record


class Watch(Protocol):
    """Told how far a run has come, in cells."""

    def __call__(self, done: int, total: int, failed: int) -> None: ...


@dataclass(frozen=True)
class Effort:
    """How a comparison is run, which changes nothing but rounding: at most `batch` cases go through the model at once;
    `pictures` are kept; cells that failed before are tried again with `retry`; `workers` of Ray (0: this process alone), where
    the Ray at `address` runs (empty: one that is started here). Raises ValueError for numbers out of range, and for an address
    without workers."""

    batch: int = 8
    pictures: bool = True
    retry: bool = False
    workers: int = 0
    address: str = ""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        if self.address and not self.workers:
            raise ValueError(f"the Ray at {self.address!r} is for workers; say how many with workers (--workers)")


@dataclass
class Tally:
    """How far a run has come, told to whoever watches."""

    watch: Watch
    total: int
    done: int = 0
    failed: int = 0

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.done += 1
            self.failed += record.error is not None
        self.watch(self.done, self.total, self.failed)


def run(
    model: Model[Any],
    cells: Sequence[Cell],
    metrics: Metrics,
    folder: RunFolder,
    watch: Watch,
    effort: Effort,
    session: Mapping[str, Any],
    beside: bool = False,
) -> None:
    """Run what `folder` does not hold yet. A cell that fails is recorded with its reason, and the run goes on.

    session: where and how this takes place, noted before the first record; at the end, where the seconds went. beside: score
    and write in a thread of its own while the next group is edited, for models on a GPU; `watch` hears from that thread. On a
    CPU both would share the cores, and the measured seconds of an edit would count the other's work. Nor is anything decoded
    beside an edit on a GPU, whose seconds and peak memory would count that, while the device is busy either way.
    Raises OSError if the folder cannot be written.
    """
    started = time.perf_counter()
    bench = Bench(model, metrics, effort.pictures)
    held = finished(cells, folder, effort)
    tally = Tally(watch, len(cells))
    tally.add(held.values())
    todo = [group for group in groups(cells, effort.batch) if any(cell.key not in held for cell in group.cells)]
    if not todo:
        return

    def finish(edited: Sequence[Edited]) -> None:
        if effort.pictures:
            keep_originals(folder, [cell.case for one in edited for cell in one.cells])
        kept = [one for one in bench.finish(edited) if one.record.key not in held]
        folder.keep(kept)
        tally.add(record for record, _ in kept)

    folder.begin(session)
    with finishing(finish, beside) as give:
        for group in todo:
            give(bench.edit(group))
    folder.end({"seconds": bench.inside.of(time.perf_counter() - started)})


def finished(cells: Sequence[Cell], folder: RunFolder, effort: Effort) -> dict[str, Record]:
    """The records that need not be made again, by key: those whose picture is there if one is wanted; and, unless they are to
    be tried again, those of cells that failed."""
    records = {record.key: record for record in folder.records()}
    held = {}
    for cell in cells:
        record = records.get(cell.key)
        if record is not None and (not effort.retry if record.error is not None else _is_whole(cell, record, folder, effort)):
            held[cell.key] = record
    return held


def _is_whole(cell: Cell, record: Record, folder: RunFolder, effort: Effort) -> bool:
    if not (effort.pictures and cell.case.is_picture):
        return True
    return record.picture is not None and (folder.path / record.picture).exists()


def keep_originals(folder: RunFolder, cases: Collection[Case]) -> None:
    """Keep the sources and the truths of those cases, if they are pictures."""
    for case in cases:
        for group, picture in (("source", case.picture), ("truth", case.truth)):
            if picture is not None and case.is_picture:
                folder.keep_original(group, case.id, picture)
