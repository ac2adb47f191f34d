"""The rows of a comparison: what is run over all cases, as objects that were tried in a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from ..cases.base import Case
from ..editors.base import Editor
from ..editors.inversion import Inversion
from ..metrics.base import Task
from ..models.base import Model
from ..solvers.base import Solver
from .plan import Comparison
from .probe import Spend, probe, steps_within


class SameRowsError(ValueError):
    """Two methods that do the same, or would be called the same."""


@dataclass(frozen=True)
class Heading:
    """What a reader of results has to know of a row. `name`: unique among the rows of a comparison; `label`: what the table
    calls it; `control` rows are bounds and baselines, no methods; with `of_truth` the truth was edited in place of the source;
    `seeds`: those that it runs with."""

    name: str
    label: str
    task: Task
    steps: int
    control: bool
    of_truth: bool
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One line of a table: what is run over all cases. `control` rows are bounds and baselines, no methods. With `of_truth` the
    editor is given the truth in place of the source."""

    label: str
    task: Task
    editor: Editor
    solver: Solver[Any]
    steps: int
    spend: Spend
    seeds: tuple[int, ...]
    control: bool = False
    of_truth: bool = False

    @property
    def heading(self) -> Heading:
        """The same without the objects."""
        return Heading(self.name, self.label, self.task, self.steps, self.control, self.of_truth, self.seeds)

    @property
    def name(self) -> str:
        """Unique among the rows of a comparison, fit for a file's name."""
        what = self.label.replace(",", "").replace(" ", "-")
        named = f"reconstruct-{what}" if self.task == "reconstruct" else what
        return named if self.control else f"{named}-{self.steps}"

    @property
    def work(self) -> tuple[object, ...]:
        """What is done, whatever it is called."""
        return self.task, self.of_truth, repr(self.editor), repr(self.solver), self.steps

    def prepared(self, case: Case) -> Case:
        """The case as the editor gets it: a reconstruction asks for the source again."""
        given = case.truth if self.of_truth and case.truth is not None else case.picture
        target = case.source if self.task == "reconstruct" else case.target
        return replace(case, content=given, target=target)


def make_rows(plan: Comparison, model: Model[Any], cases: Sequence[Case], tasks: Sequence[Task]) -> list[Row]:
    """The rows of a comparison, reconstructions first, controls at the end of each task; a control that is also asked for as a
    method is left out.

    tasks: those that have a metric. Raises SameRowsError if two rows are one and the same or of one name, and what building
    and a dry run of every row raise: RegistryError, OptionError, ValueError, LookupError.
    """
    planner = _Planner(plan, model, (cases[0].source, cases[0].target))
    rows: list[Row] = []
    if "reconstruct" in tasks:
        rows += planner.reconstructions()
    if "edit" in tasks:
        rows += planner.edits(truth=any(case.truth is not None for case in cases))
    return list(_distinct(rows))


def _distinct(rows: Iterable[Row]) -> Iterator[Row]:
    seen: dict[tuple[object, ...], Row] = {}
    names: set[str] = set()
    for row in rows:
        twin = seen.setdefault(row.work, row)
        if twin is not row and not row.control:
            raise SameRowsError(f"{twin.name} and {row.name} are one and the same; leave one of them out")
        if twin is row:
            if row.name in names:
                raise SameRowsError(f"two rows would be called {row.name}; leave one of them out")
            names.add(row.name)
            yield row


@dataclass(frozen=True)
class _Planner:
    plan: Comparison
    model: Model[Any]
    prompts: tuple[str, str]

    def reconstructions(self) -> list[Row]:
        """Each solver once, however many editors use it; once more with its state carried where that makes it reversible."""
        counts: dict[str, dict[int, None]] = {}
        for method in self.plan.methods:
            counts.setdefault(method.solver, {}).update(dict.fromkeys(self.plan.steps_of(method)))
        rows = []
        for name, steps in counts.items():
            for at in self.plan.points(name):
                solver = self.plan.solver(name, at)
                for carry in (False, True) if solver.reversible else (False,):
                    label = at.named(f"{name}, state carried" if carry else name)
                    rows += self._rows(label, "reconstruct", _always(Inversion.reconstruction(carry)), solver, tuple(steps))
        return [*rows, *self._controls("codec", "reconstruct", "no-edit")]

    def edits(self, truth: bool) -> list[Row]:
        """Each method, then what no editing and what plain generation give, and the truth through the codec."""
        rows = []
        for method in self.plan.methods:
            for at, how in product(self.plan.points(method.editor), self.plan.points(method.solver)):
                editor = partial(self.plan.editor, method.editor, preset=method.preset, at=at)
                label = how.named(at.named(method.label))
                rows += self._rows(label, "edit", editor, self.plan.solver(method.solver, how), self.plan.steps_of(method))
        rows += [*self._controls("no edit", "edit", "no-edit"), *self._controls("from noise", "edit", "from-noise")]
        return [*rows, *self._controls("codec of the truth", "edit", "no-edit", of_truth=True)] if truth else rows

    def _rows(
        self, label: str, task: Task, editor: Callable[[int], Editor], solver: Solver[Any], counts: tuple[int, ...]
    ) -> list[Row]:
        """A row for each step count; `editor` makes the editor for one. What is raised is noted to be of `label`."""
        budget = self.plan.match_nfe
        try:
            if budget is not None:
                counts = (steps_within(budget, lambda steps: self._probe(editor(steps), solver, steps, task).rows),)
            return [self._row(label, task, editor(steps), solver, steps) for steps in counts]
        except Exception as fault:  # of a plug-in too
            fault.add_note(f"in {label}")
            raise

    def _controls(self, label: str, task: Task, editor: str, of_truth: bool = False) -> list[Row]:
        """A row for each point of the control's own grid."""
        steps = max(steps for method in self.plan.methods for steps in self.plan.steps_of(method))
        solver = self.plan.solver(self.plan.methods[0].solver)
        return [
            replace(
                self._row(at.named(label), task, self.plan.editor(editor, steps, at=at), solver, steps),
                control=True,
                of_truth=of_truth,
            )
            for at in self.plan.points(editor)
        ]

    def _row(self, label: str, task: Task, editor: Editor, solver: Solver[Any], steps: int) -> Row:
        spend = self._probe(editor, solver, steps, task)
        seeds = self.plan.seeds if spend.draws else self.plan.seeds[:1]  # without noise every seed gives the same
        return Row(label, task, editor, solver, steps, spend, seeds)

    def _probe(self, editor: Editor, solver: Solver[Any], steps: int, task: Task) -> Spend:
        source, target = self.prompts
        return probe(editor, solver, steps, self.model, (source, source if task == "reconstruct" else target))


def _always(editor: Editor) -> Callable[[int], Editor]:
    return lambda steps: editor
