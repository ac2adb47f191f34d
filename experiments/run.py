"""Run a comparison: batch after batch of cases through every row, scored and written down as it goes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cases.base import Case
from ..metrics.base import Metric, Result, Task
from ..metrics.pixels import is_picture
from ..models.base import Model
from ..models.preparing import is_compiled
from .execute import Outcome, encode, execute
from .fingerprint import cell_key, hash_case
from .folder import RunFolder
from .plan import Row
from .records import Record, Share

Metrics = Mapping[Task, Mapping[str, Metric]]


class Watch(Protocol):
    """Told how far a run has come, in cells."""

    def __call__(self, done: int, total: int, failed: int) -> None: ...


@dataclass(frozen=True)
class Cell:
    """One case through one row with one seed. `key` is the identity of its result, `picture` the name of its picture."""

    key: str
    row: Row
    case: Case
    seed: int
    picture: str


def make_cells(rows: Iterable[Row], cases: Sequence[Case], model: str, numerics: str) -> list[Cell]:
    """All cells of a comparison. model: the hash of the model. numerics: what else the numbers depend on (dtype, device)."""
    hashes = {case.id: hash_case(case) for case in cases}
    cells = []
    for row in rows:
        for case in (case for case in cases if not row.of_truth or case.truth is not None):
            for seed in row.seeds:
                key = cell_key(row, hashes[case.id], seed, model, numerics)
                cells.append(Cell(key, row, case, seed, case.id if len(row.seeds) == 1 else f"{case.id}-seed{seed}"))
    return cells


def run(
    model: Model[Any],
    cells: Sequence[Cell],
    metrics: Metrics,
    folder: RunFolder,
    watch: Watch,
    *,
    batch: int = 8,
    pictures: bool = True,
) -> None:
    """Run what `folder` does not hold yet. A cell that fails is recorded with its reason, and the run goes on.

    batch: at most so many cases go through the model at once; all rows meet a batch before the next one begins, so that
    a run that is cut short holds every row for the cases it came to. With a compiled network, every row runs once unseen for
    each size of a batch. Raises OSError if the folder cannot be written.
    """
    runner = _Runner(model, metrics, folder, pictures, is_compiled(model.network))
    done = folder.done({cell.key for cell in cells})
    todo = [cell for cell in cells if not runner.is_done(cell, done.get(cell.key))]
    finished, failed = len(cells) - len(todo), 0
    watch(finished, len(cells), failed)
    for together in _batches(todo, batch):
        source = runner.begin(together)
        for group in _groups(together):
            records = runner.attempt(group, source)
            folder.append(records)
            finished += len(records)
            failed += sum(record.error is not None for record in records)
            watch(finished, len(cells), failed)


def _batches(cells: Sequence[Cell], size: int) -> Iterator[list[Cell]]:
    """The cells of up to `size` cases of one shape at a time, in the order of the cases."""
    by_shape: dict[torch.Size, dict[str, list[Cell]]] = {}
    for cell in cells:
        by_shape.setdefault(cell.case.picture.shape, {}).setdefault(cell.case.id, []).append(cell)
    for by_case in by_shape.values():
        cases = list(by_case.values())
        for first in range(0, len(cases), size):
            yield [cell for cells_of_case in cases[first : first + size] for cell in cells_of_case]


def _groups(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """The cells that run together: those of one row and one seed."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.row.name, cell.seed), []).append(cell)
    yield from groups.values()


@dataclass(frozen=True)
class _Runner:
    model: Model[Any]
    metrics: Metrics
    folder: RunFolder
    pictures: bool
    compiled: bool
    warm: set[Hashable] = field(default_factory=set)

    def is_done(self, cell: Cell, record: Record | None) -> bool:
        """Whether the record has every score, and the picture is there if one is wanted."""
        if record is None or not self._metrics(cell).keys() <= record.scores.keys():
            return False
        wanted = self.pictures and is_picture(cell.case.picture)
        return not wanted or self.folder.picture(cell.row.name, cell.picture).exists()

    def _metrics(self, cell: Cell) -> Mapping[str, Metric]:
        return {name: metric for name, metric in self.metrics[cell.row.task].items() if metric.suits(cell.case)}

    def begin(self, cells: Sequence[Cell]) -> dict[str, Tensor]:
        """Encode each case of a batch once: its latent by its id. Empty where that fails: then every cell meets, and records,
        the reason itself."""
        cases = list({cell.case.id: cell.case for cell in cells}.values())
        if self.pictures:
            self._keep_originals(cases)
        try:
            return dict(zip((case.id for case in cases), encode(self.model, cases), strict=True))
        except Exception:
            return {}

    def attempt(self, cells: Sequence[Cell], source: Mapping[str, Tensor]) -> list[Record]:
        """Run cells of one row and seed as one batch; if that fails, each alone, so that only the faulty ones are lost."""
        try:
            results = self._results(cells, source)
        except Exception as fault:  # an editor, solver, model or metric of a plug-in may fail in any way
            if len(cells) > 1:
                return [record for cell in cells for record in self.attempt([cell], source)]
            return [_record(cells[0], error=f"{type(fault).__name__}: {fault}")]
        if self.pictures:
            for cell, (_, picture) in zip(cells, results, strict=True):
                if is_picture(picture):
                    self.folder.save_picture(cell.row.name, cell.picture, picture)
        return [record for record, _ in results]

    def _results(self, cells: Sequence[Cell], source: Mapping[str, Tensor]) -> list[tuple[Record, Tensor]]:
        row, cases = cells[0].row, [cell.row.prepared(cell.case) for cell in cells]
        known = None if row.of_truth or not source else torch.stack([source[case.id] for case in cases])
        what = (row.name, len(cases), cases[0].picture.shape)
        if self.compiled and what not in self.warm:  # what is compiled on the way belongs to nobody's seconds
            self.warm.add(what)
            execute(self.model, row.editor, row.solver, row.steps, cases, cells[0].seed, source=known)
        outcome = execute(self.model, row.editor, row.solver, row.steps, cases, cells[0].seed, source=known)
        return [self._scored(cell, outcome, i) for i, cell in enumerate(cells)]

    def _scored(self, cell: Cell, outcome: Outcome, i: int) -> tuple[Record, Tensor]:
        result = Result(outcome.pictures[i], outcome.latents[i], outcome.source_latents[i])
        scores = {name: metric(cell.case, result) for name, metric in self._metrics(cell).items()}
        return _record(cell, Share.of(outcome.cost), scores, outcome.edit.counts), result.picture

    def _keep_originals(self, cases: Iterable[Case]) -> None:
        for case in cases:
            for group, picture in (("source", case.picture), ("truth", case.truth)):
                if picture is not None and is_picture(picture) and not self.folder.picture(group, case.id).exists():
                    self.folder.save_picture(group, case.id, picture)


def _record(
    cell: Cell,
    cost: Share | None = None,
    scores: Mapping[str, float] | None = None,
    counts: Mapping[str, int] | None = None,
    error: str | None = None,
) -> Record:
    row, case = cell.row, cell.case
    return Record(
        key=cell.key,
        row=row.name,
        task=row.task,
        case=case.id,
        kind=case.kind,
        editor=repr(row.editor),
        solver=repr(row.solver),
        steps=row.steps,
        seed=cell.seed,
        cost=cost,
        scores=dict(scores or {}),
        counts=dict(counts or {}),
        error=error,
    )
