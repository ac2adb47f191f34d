"""Where groups of cells are worked on: edited as one batch and decoded, then scored, whatever fails on the way."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, SupportsFloat

import torch
from torch import Tensor

from ..cases.base import Case
from ..metrics.base import Metric, Result, Task
from ..models.base import Model
from ..models.fitting import OutOfMemoryError
from ..models.preparing import is_compiled
from .attended import Attended
from .cells import Cell, Group
from .execute import Outcome, Walked, check_picture, decode, edit_cases, encode, why_not_finite
from .records import Finished, Record, Share, picture_name

Metrics = Mapping[Task, Mapping[str, Metric]]

LONGEST_REASON = 500


class Edited(NamedTuple):
    """Cells that went through the model together, and what came of it: their outcome, or why there is none."""

    cells: Sequence[Cell]
    outcome: Outcome | str


class Inside(NamedTuple):
    """Seconds of a run inside the network, the text encoders and the codec."""

    network: float = 0.0
    text: float = 0.0
    codec: float = 0.0

    def plus(self, more: Inside) -> Inside:
        return Inside(*map(sum, zip(self, more, strict=True)))

    def since(self, before: Inside) -> Inside:
        return Inside(*(now - then for now, then in zip(self, before, strict=True)))

    def of(self, whole: float, workers: int = 1) -> dict[str, float | None]:
        """Where the `whole` seconds of a run went, if these are the sums over its `workers`; `overhead` is by how much of the
        three it took longer (None where none of them did anything)."""
        useful = sum(self)
        return {"whole": whole, **self._asdict(), "overhead": whole * workers / useful - 1.0 if useful else None}


@dataclass
class Bench:
    """A model at work. `edit` and `finish` may run in different threads, as long as each runs in one: only `edit` meets the
    model and its device. `network_seconds`: inside the network, of the batches that came out.

    What an editor, solver, model or metric of a plug-in raises becomes the reason of its cells, unless it is no Exception
    (KeyboardInterrupt, SystemExit): that is how Python is told to stop, and it does."""

    model: Model[Any]
    metrics: Metrics
    pictures: bool = True
    network_seconds: float = 0.0
    _sources: tuple[Sequence[str], Mapping[str, Tensor]] = ((), {})
    _warm: set[Hashable] = field(default_factory=set)
    _room: dict[Hashable, int] = field(default_factory=dict)

    def edit(self, group: Group) -> list[Edited]:
        """Run a group as one batch; cases that do not come out finite are left out of what comes of it. If it does not fit the
        GPU's memory it is halved until it does, and later groups of the row start with what fitted; if it fails otherwise each
        cell runs alone, so that only the faulty ones are lost. With a compiled network every row runs once unseen for each size
        of a batch: what is compiled on the way is in nobody's seconds."""
        known = self._encoded(group.cases)
        together = [cell for cell in group.cells if cell.case.id in known or cell.row.of_truth]
        strange = [cell for cell in group.cells if cell.case.id not in known and not cell.row.of_truth]
        return self._attempted(together, known) + self._apart(strange, 1, known)

    def finish(self, edited: Sequence[Edited]) -> list[Finished]:
        """Score what came out; a cell whose score fails is recorded with the reason."""
        return [done for one in edited for done in self._finished(one.cells, one.outcome)]

    def suiting(self, cell: Cell) -> Mapping[str, Metric]:
        """The metrics that a cell is scored with, by name; none where the network's weights are random."""
        found = self.metrics.get(cell.row.task, {}) if self.model.trained else {}
        return {name: metric for name, metric in found.items() if metric.suits(cell.case)}

    @property
    def inside(self) -> Inside:
        """Where the time went until now."""
        return Inside(self.network_seconds, self._attended.text_seconds, self._attended.codec_seconds)

    @cached_property
    def _attended(self) -> Attended:
        return Attended(self.model)

    def _encoded(self, cases: tuple[Case, ...]) -> Mapping[str, Tensor]:
        """The latent of each case by its id, encoded together once for all groups of a batch, or in parts where that fails.
        Without those that fail alone: their cells meet, and record, the reason themselves."""
        names = [case.id for case in cases]
        if self._sources[0] != names:
            self._sources = (names, self._latents(cases))
        return self._sources[1]

    def _latents(self, cases: Sequence[Case]) -> dict[str, Tensor]:
        try:
            return dict(zip([case.id for case in cases], encode(self._attended, cases), strict=True))
        except Exception:  # too large for the GPU, or one of the pictures does not suit the model
            half = len(cases) // 2
        return self._latents(cases[:half]) | self._latents(cases[half:]) if half else {}

    def _attempted(self, cells: Sequence[Cell], known: Mapping[str, Tensor]) -> list[Edited]:
        if not cells:
            return []
        place = (cells[0].row.name, cells[0].case.shape)
        room = self._room.get(place, len(cells))
        if room < len(cells):
            return self._apart(cells, room, known)
        try:
            return self._edited(cells, known)
        except OutOfMemoryError as fault:
            reason, fewer = in_a_line(fault), (len(cells) + 1) // 2
            self._room[place] = fewer
        except Exception as fault:  # an editor, solver or model of a plug-in may fail in any way
            reason, fewer = in_a_line(fault), 1
        if len(cells) == 1:
            return [Edited(cells, reason)]
        return self._apart(cells, fewer, known)

    def _apart(self, cells: Sequence[Cell], size: int, known: Mapping[str, Tensor]) -> list[Edited]:
        parts = [cells[first : first + size] for first in range(0, len(cells), size)]
        return [one for part in parts for one in self._attempted(part, known)]

    def _edited(self, cells: Sequence[Cell], known: Mapping[str, Tensor]) -> list[Edited]:
        row, seed, cases = cells[0].row, cells[0].seed, [cell.row.prepared(cell.case) for cell in cells]
        ready = not row.of_truth and all(case.id in known for case in cases)
        source = torch.stack([known[case.id] for case in cases]) if ready else None
        walked = self._walked(cells, cases, source)
        finite = walked.finite
        found = []
        if any(finite):
            kept = [i for i, sound in enumerate(finite) if sound]
            found.append(Edited([cells[i] for i in kept], _on_host(decode(self._attended, _of(walked, kept)))))
        for i in (i for i, sound in enumerate(finite) if not sound):
            lost = walked.source_latents[i : i + 1]
            reason = why_not_finite(self.model, row.editor, row.solver, row.steps, cases[i], seed, lost)
            found.append(Edited([cells[i]], in_a_line(FloatingPointError(reason))))
        return found

    def _walked(self, cells: Sequence[Cell], cases: Sequence[Case], source: Tensor | None) -> Walked:
        row, seed = cells[0].row, cells[0].seed
        what = (row.name, len(cases), cases[0].shape)
        if is_compiled(self.model.network) and what not in self._warm:
            self._warm.add(what)
            edit_cases(self.model, row.editor, row.solver, row.steps, cases, seed, source=source)
        path = any(metric.needs_path for metric in self.metrics.get(row.task, {}).values())
        with _torch_as_it_is():
            walked = edit_cases(self._attended, row.editor, row.solver, row.steps, cases, seed, source=source, keep_path=path)
        self.network_seconds += walked.cost.network_seconds
        return walked

    def _finished(self, cells: Sequence[Cell], outcome: Outcome | str) -> list[Finished]:
        if isinstance(outcome, str):
            return [_failed(cell, outcome) for cell in cells]
        results = [_result(outcome, i) for i in range(len(cells))]
        scored = self._scores(cells, results)
        return [self._kept(*one, outcome) for one in zip(cells, results, scored, strict=True)]

    def _kept(self, cell: Cell, result: Result, scores: Mapping[str, float] | str, outcome: Outcome) -> Finished:
        if isinstance(scores, str):
            return _failed(cell, scores)
        record = _record(cell, cost=Share.of(outcome.cost), scores=dict(scores), counts=dict(outcome.edit.counts))
        try:
            record.to_json()  # what cannot be written down would end the run
        except Exception as fault:  # counts of a plug-in may be anything
            return _failed(cell, in_a_line(fault))
        if not (self.pictures and cell.case.is_picture):
            return Finished(record, None)
        return Finished(replace(record, picture=picture_name(cell.row.name, cell.picture)), result.picture)

    def _scores(self, cells: Sequence[Cell], results: Sequence[Result]) -> list[Mapping[str, float] | str]:
        """The scores of each cell by name, or why there are none: of all as one batch, and one by one where that fails."""
        try:
            return list(self._together(cells, results))
        except Exception as fault:  # a metric of a plug-in may fail in any way
            if len(cells) == 1:
                return [in_a_line(fault)]
        return [self._scores([cell], [result])[0] for cell, result in zip(cells, results, strict=True)]

    def _together(self, cells: Sequence[Cell], results: Sequence[Result]) -> list[dict[str, float]]:
        for result in results:
            check_picture(result.picture)
        found: list[dict[str, float]] = [{} for _ in cells]
        suiting = [self.suiting(cell) for cell in cells]
        for name, metric in self.metrics.get(cells[0].row.task, {}).items():
            mine = [i for i, known in enumerate(suiting) if name in known]
            scores = metric.many([cells[i].case for i in mine], [results[i] for i in mine]) if mine else []
            for i, score in zip(mine, scores, strict=True):
                found[i][name] = _number(name, score)
        return found


def _of(walked: Walked, kept: Sequence[int]) -> Walked:
    """Some cases of a batch, at the whole batch's cost."""
    if len(kept) == len(walked.source_latents):
        return walked
    edit = walked.edit
    path, figures = tuple(state[kept] for state in edit.path), {name: values[kept] for name, values in edit.figures.items()}
    edit = replace(edit, latent=edit.latent[kept], path=path, figures=figures)
    return replace(walked, edit=edit, source_latents=walked.source_latents[kept])


def _on_host(outcome: Outcome) -> Outcome:
    """The same where nothing that looks at it needs the model's device."""
    path = tuple(state.cpu() for state in outcome.edit.path)
    edit = replace(outcome.edit, path=path, figures={name: values.cpu() for name, values in outcome.edit.figures.items()})
    return replace(outcome, latents=outcome.latents.cpu(), source_latents=outcome.source_latents.cpu(), edit=edit)


def _result(outcome: Outcome, i: int) -> Result:
    """What came of the case at place `i` of a batch."""
    path = tuple(state[i] for state in outcome.edit.path)
    figures = {name: float(values[i]) for name, values in outcome.edit.figures.items()}
    return Result(outcome.pictures[i], outcome.latents[i], outcome.source_latents[i], path, figures)


def _number(metric: str, score: object) -> float:
    """A score as JSON can hold it. Raises TypeError for what is no number, ValueError for an infinite one."""
    if not isinstance(score, SupportsFloat):
        raise TypeError(f"the metric {metric} must give a number, got {score!r}")
    if math.isinf(number := float(score)):
        raise ValueError(f"the metric {metric} must give a finite number, or NaN where it is not defined, got {number}")
    return number


@contextmanager
def _torch_as_it_is() -> Iterator[None]:
    """What an editor of a plug-in sets for the whole process is set back: the next cell must not depend on it."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def in_a_line(fault: BaseException) -> str:
    """What went wrong, in one line."""
    try:
        said = str(fault)
    except Exception:  # of a plug-in too
        said = "it does not say why"
    return textwrap.shorten(f"{type(fault).__name__}: {said}", LONGEST_REASON, placeholder=" ...")


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
