"""What a comparison runs: a request in words becomes rows of objects, and every row's cells get a key.

The one place, beside `names` and the command line, that knows what a method or a metric is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ..cases.base import Case
from ..editors.base import Editor
from ..editors.inversion import Inversion
from ..metrics.base import Metric, Task
from ..models.base import Model, Setup
from ..solvers.base import Solver
from .names import build_editor, build_metric, build_solver
from .probe import Spend, probe, steps_within

Settings = Mapping[str, Mapping[str, str]]
"""Options as text, by the name of the editor, solver or case set that they belong to; those of the model under "model"."""

SCORES: Mapping[Task, tuple[str, ...]] = {
    "reconstruct": ("rmse", "psnr", "ssim", "latent-mse"),
    "edit": ("truth-psnr", "changed", "kept", "source-ssim", "transport-cost", "wrong-mode", "mode-distance"),
}
"""The metrics of each task, the one that decides first; those that suit none of the cases are left out."""


class Method(NamedTuple):
    """An editor and the solver it walks with, by name."""

    editor: str
    solver: str

    def __str__(self) -> str:
        return f"{self.editor}+{self.solver}"


@dataclass(frozen=True)
class Comparison:
    """A comparison as it was asked for: names, numbers and options as text. `steps` are step counts; with `match_nfe` every
    row instead takes as many steps as that many evaluations (network rows) for a picture allow."""

    methods: tuple[Method, ...]
    model: str
    cases: str
    count: int | None
    steps: tuple[int, ...] = (28,)
    match_nfe: int | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=dict)
    setup: Setup = field(default_factory=Setup)

    def described(self) -> dict[str, Any]:
        """The comparison as plain values, for a record of the run."""
        return asdict(self) | {"methods": [str(method) for method in self.methods]}


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
    def name(self) -> str:
        """Unique among the rows of a comparison, fit for a file's name."""
        what = self.label.replace(",", "").replace(" ", "-")
        named = f"reconstruct-{what}" if self.task == "reconstruct" else what
        return named if self.control else f"{named}-{self.steps}"

    def prepared(self, case: Case) -> Case:
        """The case as the editor gets it: a reconstruction asks for the source again."""
        given = case.truth if self.of_truth and case.truth is not None else case.picture
        target = case.source if self.task == "reconstruct" else case.target
        return replace(case, picture=given, target=target)


def metrics_for(cases: Sequence[Case]) -> dict[Task, dict[str, Metric]]:
    """The metrics of each task that suit at least one of the cases, by name."""
    chosen: dict[Task, dict[str, Metric]] = {}
    for task, names in SCORES.items():
        built = {name: build_metric(name) for name in names}
        chosen[task] = {name: metric for name, metric in built.items() if any(metric.suits(case) for case in cases)}
    return chosen


def make_rows(plan: Comparison, model: Model[Any], cases: Sequence[Case], tasks: Sequence[Task]) -> list[Row]:
    """The rows of a comparison, reconstructions first, controls at the end of each task.

    tasks: those that have a metric. Raises what building and a dry run of every row raise: RegistryError, OptionError,
    ValueError, LookupError.
    """
    planner = _Planner(plan, model, (cases[0].source, cases[0].target))
    rows: list[Row] = []
    if "reconstruct" in tasks:
        rows += planner.reconstructions()
    if "edit" in tasks:
        rows += planner.edits(truth=any(case.truth is not None for case in cases))
    return rows


@dataclass(frozen=True)
class _Planner:
    plan: Comparison
    model: Model[Any]
    prompts: tuple[str, str]

    def reconstructions(self) -> list[Row]:
        """Each solver once, however many editors use it; once more with its state carried where that makes it reversible."""
        rows = []
        for name in dict.fromkeys(method.solver for method in self.plan.methods):
            solver = build_solver(name, self.plan.settings.get(name))
            for carry in (False, True) if solver.reversible else (False,):
                label = f"{name}, state carried" if carry else name
                rows += self._steps(label, "reconstruct", Inversion.reconstruction(carry), solver)
        return [*rows, self._control("codec", "reconstruct", "no-edit")]

    def edits(self, truth: bool) -> list[Row]:
        """Each method, then what no editing and what plain generation give, and the truth through the codec."""
        rows = []
        for method in self.plan.methods:
            editor = build_editor(method.editor, self.plan.settings.get(method.editor))
            solver = build_solver(method.solver, self.plan.settings.get(method.solver))
            rows += self._steps(str(method), "edit", editor, solver)
        rows += [self._control("no edit", "edit", "no-edit"), self._control("from noise", "edit", "from-noise")]
        return [*rows, self._control("codec of the truth", "edit", "no-edit", of_truth=True)] if truth else rows

    def _steps(self, label: str, task: Task, editor: Editor, solver: Solver[Any]) -> list[Row]:
        counts = self.plan.steps
        if self.plan.match_nfe is not None:
            try:
                counts = (steps_within(self.plan.match_nfe, lambda steps: self._probe(editor, solver, steps, task).rows),)
            except ValueError as fault:
                raise ValueError(f"{label}: {fault}") from fault
        return [self._row(label, task, editor, solver, steps) for steps in counts]

    def _control(self, label: str, task: Task, editor: str, of_truth: bool = False) -> Row:
        built = build_editor(editor, self.plan.settings.get(editor))
        solver = build_solver(self.plan.methods[0].solver, self.plan.settings.get(self.plan.methods[0].solver))
        row = self._row(label, task, built, solver, max(self.plan.steps))
        return replace(row, control=True, of_truth=of_truth)

    def _row(self, label: str, task: Task, editor: Editor, solver: Solver[Any], steps: int) -> Row:
        spend = self._probe(editor, solver, steps, task)
        seeds = self.plan.seeds if spend.draws else self.plan.seeds[:1]  # without noise every seed gives the same
        return Row(label, task, editor, solver, steps, spend, seeds)

    def _probe(self, editor: Editor, solver: Solver[Any], steps: int, task: Task) -> Spend:
        source, target = self.prompts
        return probe(editor, solver, steps, self.model, (source, source if task == "reconstruct" else target))
