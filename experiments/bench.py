"""Where groups of cells are worked on: edited as one batch, then decoded and scored, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cases.base import Case
from ..metrics.base import Metric, Result, Task
from ..metrics.pixels import is_picture
from ..models.base import Model
from ..models.preparing import is_compiled
from .cells import Cell, Group
from .execute import Outcome, encode, execute
from .records import Finished, Record, Share, picture_name

Metrics = Mapping[Task, Mapping[str, Metric]]


class Edited(NamedTuple):
    """Cells that went through the model together, and what came of it: their outcome, or why there is none."""

    cells: Sequence[Cell]
    outcome: Outcome | str


@dataclass
class Bench:
    """A model at work. `edit` and `finish` may run in different threads, as long as each runs in one."""

    model: Model[Any]
    metrics: Metrics
    pictures: bool = True
    _sources: tuple[Sequence[str], Mapping[str, Tensor]] = ((), {})
    _warm: set[Hashable] = field(default_factory=set)

    def edit(self, group: Group) -> list[Edited]:
        """Run a group as one batch; if that fails, each cell alone, so that only the faulty ones are lost. With a compiled
        network every row runs once unseen for each size of a batch: what is compiled on the way is in nobody's seconds."""
        known = self._encoded(group.cases)
        return list(self._attempts(group.cells, known))

    def finish(self, edited: Sequence[Edited]) -> list[Finished]:
        """Score what came out; a cell whose score fails is recorded with the reason."""
        return [
            _failed(cell, one.outcome) if isinstance(one.outcome, str) else self._scored(cell, one.outcome, i)
            for one in edited
            for i, cell in enumerate(one.cells)
        ]

    def suiting(self, cell: Cell) -> Mapping[str, Metric]:
        """The metrics that a cell is scored with, by name; none where the network's weights are random."""
        found = self.metrics.get(cell.row.task, {}) if self.model.trained else {}
        return {name: metric for name, metric in found.items() if metric.suits(cell.case)}

    def _encoded(self, cases: tuple[Case, ...]) -> Mapping[str, Tensor]:
        """The latent of each case by its id, encoded together once for all groups of a batch. Empty where that fails: then
        every cell meets, and records, the reason itself."""
        names = [case.id for case in cases]
        if self._sources[0] != names:
            try:
                self._sources = (names, dict(zip(names, encode(self.model, cases), strict=True)))
            except Exception:
                self._sources = (names, {})
        return self._sources[1]

    def _attempts(self, cells: Sequence[Cell], known: Mapping[str, Tensor]) -> Iterator[Edited]:
        try:
            yield Edited(cells, self._executed(cells, known))
            return
        except Exception as fault:  # an editor, solver or model of a plug-in may fail in any way
            reason = f"{type(fault).__name__}: {fault}"
        if len(cells) == 1:
            yield Edited(cells, reason)
            return
        for cell in cells:
            yield from self._attempts([cell], known)

    def _executed(self, cells: Sequence[Cell], known: Mapping[str, Tensor]) -> Outcome:
        row, cases = cells[0].row, [cell.row.prepared(cell.case) for cell in cells]
        source = None if row.of_truth or not known else torch.stack([known[case.id] for case in cases])
        what = (row.name, len(cases), cases[0].picture.shape)
        if is_compiled(self.model.network) and what not in self._warm:
            self._warm.add(what)
            execute(self.model, row.editor, row.solver, row.steps, cases, cells[0].seed, source=source)
        return execute(self.model, row.editor, row.solver, row.steps, cases, cells[0].seed, source=source)

    def _scored(self, cell: Cell, outcome: Outcome, i: int) -> Finished:
        result = Result(outcome.pictures[i], outcome.latents[i], outcome.source_latents[i])
        try:
            scores = {name: metric(cell.case, result) for name, metric in self.suiting(cell).items()}
        except Exception as fault:  # a metric of a plug-in may fail in any way
            return _failed(cell, f"{type(fault).__name__}: {fault}")
        record = _record(cell, cost=Share.of(outcome.cost), scores=scores, counts=dict(outcome.edit.counts))
        if not (self.pictures and is_picture(result.picture)):
            return Finished(record, None)
        return Finished(replace(record, picture=picture_name(cell.row.name, cell.picture)), result.picture)


def _failed(cell: Cell, reason: str) -> Finished:
    return Finished(_record(cell, error=reason), None)


def _record(
    cell: Cell,
    cost: Share | None = None,
    scores: dict[str, float] | None = None,
    counts: dict[str, int] | None = None,
    error: str | None = None,
) -> Record:
    row, case = cell.row, cell.row.prepared(cell.case)
    return Record(
        key=cell.key,
        row=row.name,
        task=row.task,
        case=case.id,
        kind=case.kind,
        source=case.source,
        target=case.target,
        editor=repr(row.editor),
        solver=repr(row.solver),
        steps=row.steps,
        seed=cell.seed,
        cost=cost,
        scores=scores or {},
        counts=counts or {},
        error=error,
    )
