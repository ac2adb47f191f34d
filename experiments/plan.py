"""What a comparison is: a request in words with its gaps filled in. `rows` makes objects of it.

The one place, beside `names` and the command line, that knows what a method or a metric is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..cases.base import Case
from ..editors.base import Editor
from ..metrics.base import Metric, Task
from ..models.base import Setup
from ..options import by_name, describe
from ..registry import CASES, EDITORS, SOLVERS, RegistryError
from ..solvers.base import Solver
from .defaults import default_settings, defaults_for
from .names import build_editor, build_metric, build_solver
from .presets import find_preset
from .sweep import Point, points
from .words import Asked, CaseChoice, Method

Settings = Mapping[str, Mapping[str, Any]]
"""Options by the name of the editor, solver or case set that they belong to; those of the model under "model"."""

SCORES: Mapping[Task, tuple[str, ...]] = {
    "reconstruct": ("rmse", "psnr", "ssim", "latent-mse"),
    "edit": ("truth-psnr", "changed", "kept", "source-ssim", "transport-cost", "wrong-mode", "mode-distance"),
}
"""The metrics of each task, the one that decides first; those that suit none of the cases are left out."""

CONTROLS = ("no-edit", "from-noise")


@dataclass(frozen=True)
class Comparison:
    """A comparison with its gaps filled in. `steps` are step counts; without them a preset takes its own, and other methods
    what is usual for the model; with `match_nfe` every row instead takes as many steps as that many evaluations (network rows)
    for a picture allow. `settings`: what was said of options, which goes before what presets and the model's defaults say;
    an option of an editor or solver may have several values, and then spans a grid."""

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

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Comparison:
        """The comparison that `described` tells of, also once it has been through JSON.
        Raises RegistryError for names that are not known here, ValueError for what is no such description."""
        try:
            given = {
                **described,
                "methods": tuple(map(Method.read, described["methods"])),
                "steps": tuple(described["steps"]),
                "seeds": tuple(described["seeds"]),
                "setup": Setup(**described["setup"]),
            }
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"this describes no comparison that can be read here ({fault}); run it again") from fault

    def steps_of(self, method: Method) -> tuple[int, ...]:
        """The step counts that a method is run with."""
        if self.steps:
            return self.steps
        return (find_preset(method.preset).steps if method.preset else defaults_for(self.model).steps,)

    def points(self, name: str) -> list[Point]:
        """The grid that what was said of the options of an editor or solver spans. Raises RegistryError or OptionError."""
        return points((EDITORS if name in EDITORS else SOLVERS)[name], self.settings.get(name, {}))

    def editor(self, name: str, steps: int, preset: str = "", at: Point | None = None) -> Editor:
        """The editor of a method, with its options for that many steps, at a point of its grid (the first one, if none is
        given). Raises RegistryError or OptionError."""
        if preset:
            usual: Mapping[str, Any] = find_preset(preset).options_for(steps)
        else:
            usual = default_settings(defaults_for(self.model), [name])[name]
        return build_editor(name, {**usual, **(at or self.points(name)[0]).options})

    def solver(self, name: str, at: Point | None = None) -> Solver[Any]:
        """The solver of a method, at a point of its grid (the first one, if none is given).
        Raises RegistryError or OptionError."""
        return build_solver(name, (at or self.points(name)[0]).options)

    def check(self) -> None:
        """Build the editors and solvers at every point of their grids, so that what is wrong with an option is said before a
        model is loaded. Raises RegistryError or OptionError."""
        for method in self.methods:
            for at in self.points(method.editor):
                for steps in self.steps_of(method):
                    self.editor(method.editor, steps, method.preset, at)
            for at in self.points(method.solver):
                self.solver(method.solver, at)
        for name in CONTROLS:
            self.points(name)


def planned(asked: Asked, model: str, setup: Setup, options: Mapping[str, Any]) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison that is asked for, with what suits `model` where nothing is said; and why methods were left out, a
    sentence each. options: by name, as `options.by_name` takes them. Raises RegistryError if no method is left, OptionError
    for what is wrong with an option of an editor or solver."""
    usual = defaults_for(model)
    methods, faults = usable(methods_of(asked, model))
    chosen = asked.cases or CaseChoice(usual.cases)
    count = usual.count if chosen.size is None and chosen.name == usual.cases else chosen.size
    settings = by_name(options, owners(asked, model))
    if chosen.path is not None:
        if "path" not in {name for name, *_ in describe(CASES[chosen.name])}:
            raise ValueError(f"{chosen.name!r} reads no folder; write {chosen.name}:COUNT, such as {chosen.name}:24")
        settings[chosen.name].setdefault("path", chosen.path)
    plan = Comparison(methods, model, chosen.name, count, asked.steps, asked.match_nfe, asked.seeds, settings, setup)
    plan.check()
    return plan, faults


def methods_of(asked: Asked, model: str) -> tuple[Method, ...]:
    """The methods that are asked for, or all editors with all solvers: those asked for, or what suits `model`."""
    usual = defaults_for(model)
    editors, solvers = asked.editors or usual.editors, asked.solvers or usual.solvers
    return asked.methods or tuple(Method(editor, solver) for editor in editors for solver in solvers)


def owners(asked: Asked, model: str) -> list[str]:
    """What options of that comparison can belong to: its editors and solvers, the controls, its case set, and "model"."""
    names = [name for method in methods_of(asked, model) for name in method[:2]]
    cases = asked.cases.name if asked.cases else defaults_for(model).cases
    return list(dict.fromkeys([*names, *CONTROLS, cases, "model"]))


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


def metrics_for(cases: Sequence[Case]) -> dict[Task, dict[str, Metric]]:
    """The metrics of each task that suit at least one of the cases, by name."""
    chosen: dict[Task, dict[str, Metric]] = {}
    for task, names in SCORES.items():
        built = {name: build_metric(name) for name in names}
        chosen[task] = {name: metric for name, metric in built.items() if any(metric.suits(case) for case in cases)}
    return chosen
