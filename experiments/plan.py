"""What a comparison runs: a request in words becomes rows of objects, and every row's cells get a key.

The one place, beside `names` and the command line, that knows what a method or a metric is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from ..cases.base import Case
from ..editors.base import Editor
from ..editors.inversion import Inversion
from ..metrics.base import Metric, Task
from ..models.base import Model, Setup
from ..options import by_name, describe
from ..registry import CASES, EDITORS, SOLVERS, RegistryError
from ..solvers.base import Solver
from .defaults import default_settings, defaults_for
from .names import build_editor, build_metric, build_solver
from .presets import find_preset
from .probe import Spend, probe, steps_within
from .words import Asked, CaseChoice, Method

Settings = Mapping[str, Mapping[str, Any]]
"""Options by the name of the editor, solver or case set that they belong to; those of the model under "model"."""

SCORES: Mapping[Task, tuple[str, ...]] = {
    "reconstruct": ("rmse", "psnr", "ssim", "latent-mse"),
    "edit": ("truth-psnr", "changed", "kept", "source-ssim", "transport-cost", "wrong-mode", "mode-distance"),
}
"""The metrics of each task, the one that decides first; those that suit none of the cases are left out."""


@dataclass(frozen=True)
class Comparison:
    """A comparison with its gaps filled in. `steps` are step counts; without them a preset takes its own, and other methods
    what is usual for the model; with `match_nfe` every row instead takes as many steps as that many evaluations (network rows)
    for a picture allow. `settings`: what was said of options, which goes before what presets and the model's defaults say."""

    methods: tuple[Method, ...]
    model: str
    cases: str
    count: int | None
    steps: tuple[int, ...] = ()
    match_nfe: int | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=dict)
    setup: Setup = field(default_factory=Setup)

    def described(self) -> dict[str, Any]:
        """The comparison as plain values, for a record of the run."""
        return asdict(self) | {"methods": [str(method) for method in self.methods]}

    def steps_of(self, method: Method) -> tuple[int, ...]:
        """The step counts that a method is run with."""
        if self.steps:
            return self.steps
        return (find_preset(method.preset).steps if method.preset else defaults_for(self.model).steps,)

    def editor(self, name: str, steps: int, preset: str = "") -> Editor:
        """The editor of a method, with its options for that many steps. Raises RegistryError or OptionError."""
        if preset:
            usual: Mapping[str, Any] = find_preset(preset).options_for(steps)
        else:
            usual = default_settings(defaults_for(self.model), [name])[name]
        return build_editor(name, {**usual, **self.settings.get(name, {})})

    def solver(self, name: str) -> Solver[Any]:
        """The solver of a method. Raises RegistryError or OptionError."""
        return build_solver(name, self.settings.get(name))


CONTROLS = ("no-edit", "from-noise")


def planned(asked: Asked, model: str, setup: Setup, options: Mapping[str, Any]) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison that is asked for, with what suits `model` where nothing is said; and why methods were left out, a
    sentence each. options: by name, as `options.by_name` takes them. Raises RegistryError if no method is left,
    OptionError."""
    usual = defaults_for(model)
    product = tuple(Method(e, s) for e in asked.editors or usual.editors for s in asked.solvers or usual.solvers)
    methods, faults = usable(asked.methods or product)
    chosen = asked.cases or CaseChoice(usual.cases)
    count = usual.count if chosen.size is None and chosen.name == usual.cases else chosen.size
    names = [name for method in methods for name in method[:2]]
    settings = by_name(options, list(dict.fromkeys([*names, *CONTROLS, chosen.name, "model"])))
    if chosen.path is not None:
        if "path" not in {name for name, *_ in describe(CASES[chosen.name])}:
            raise ValueError(f"{chosen.name!r} reads no folder; write {chosen.name}:COUNT, such as {chosen.name}:24")
        settings[chosen.name].setdefault("path", chosen.path)
    plan = Comparison(methods, model, chosen.name, count, asked.steps, asked.match_nfe, asked.seeds, settings, setup)
    return plan, faults


def usable(methods: Iterable[Method]) -> tuple[tuple[Method, ...], tuple[str, ...]]:
    """The methods whose editor and solver can be imported, and why others cannot, a sentence each.
    Raises RegistryError if a name is unknown or no method is left."""
    kept: list[Method] = []
    faults: dict[str, None] = {}
    for method in methods:
        try:
            EDITORS[method.editor], SOLVERS[method.solver]
        except RegistryError as fault:
            if method.editor not in EDITORS or method.solver not in SOLVERS:
                raise
            faults[str(fault)] = None
        else:
            kept.append(method)
    if not kept:
        raise RegistryError("; ".join(faults))
    return tuple(dict.fromkeys(kept)), tuple(faults)


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
        counts: dict[str, dict[int, None]] = {}
        for method in self.plan.methods:
            counts.setdefault(method.solver, {}).update(dict.fromkeys(self.plan.steps_of(method)))
        rows = []
        for name, steps in counts.items():
            solver = self.plan.solver(name)
            for carry in (False, True) if solver.reversible else (False,):
                label = f"{name}, state carried" if carry else name
                rows += self._rows(label, "reconstruct", _always(Inversion.reconstruction(carry)), solver, tuple(steps))
        return [*rows, self._control("codec", "reconstruct", "no-edit")]

    def edits(self, truth: bool) -> list[Row]:
        """Each method, then what no editing and what plain generation give, and the truth through the codec."""
        rows = []
        for method in self.plan.methods:
            editor = partial(self.plan.editor, method.editor, preset=method.preset)
            rows += self._rows(str(method), "edit", editor, self.plan.solver(method.solver), self.plan.steps_of(method))
        rows += [self._control("no edit", "edit", "no-edit"), self._control("from noise", "edit", "from-noise")]
        return [*rows, self._control("codec of the truth", "edit", "no-edit", of_truth=True)] if truth else rows

    def _rows(
        self, label: str, task: Task, editor: Callable[[int], Editor], solver: Solver[Any], counts: tuple[int, ...]
    ) -> list[Row]:
        """A row for each step count; `editor` makes the editor for one."""
        budget = self.plan.match_nfe
        if budget is not None:
            try:
                counts = (steps_within(budget, lambda steps: self._probe(editor(steps), solver, steps, task).rows),)
            except ValueError as fault:
                raise ValueError(f"{label}: {fault}") from fault
        return [self._row(label, task, editor(steps), solver, steps) for steps in counts]

    def _control(self, label: str, task: Task, editor: str, of_truth: bool = False) -> Row:
        steps = max(steps for method in self.plan.methods for steps in self.plan.steps_of(method))
        solver = self.plan.solver(self.plan.methods[0].solver)
        row = self._row(label, task, self.plan.editor(editor, steps), solver, steps)
        return replace(row, control=True, of_truth=of_truth)

    def _row(self, label: str, task: Task, editor: Editor, solver: Solver[Any], steps: int) -> Row:
        spend = self._probe(editor, solver, steps, task)
        seeds = self.plan.seeds if spend.draws else self.plan.seeds[:1]  # without noise every seed gives the same
        return Row(label, task, editor, solver, steps, spend, seeds)

    def _probe(self, editor: Editor, solver: Solver[Any], steps: int, task: Task) -> Spend:
        source, target = self.prompts
        return probe(editor, solver, steps, self.model, (source, source if task == "reconstruct" else target))


def _always(editor: Editor) -> Callable[[int], Editor]:
    return lambda steps: editor
