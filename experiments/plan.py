"""What a comparison is: a request in words with its gaps filled in. `rows` makes objects of it.

The one place, beside `names` and the command line, that knows what a method or a metric is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, get_args

from ..cases.base import Case
from ..editors.base import Editor
from ..metrics.base import Score, Task
from ..models.base import Setup
from ..options import by_name, describe
from ..registry import CASES, EDITORS, METRICS, SOLVERS, RegistryError
from ..solvers.base import Solver
from .defaults import default_settings, defaults_for
from .names import build_editor, build_metric, build_solver
from .presets import find_preset
from .protocols import find_protocol
from .sweep import Point, points
from .words import Asked, CaseChoice, Method

Settings = Mapping[str, Mapping[str, Any]]
"""Options by the name of the editor, solver or case set that they belong to; those of the model under "model"."""

DRAWN: Final = (
    *("rmse", "psnr", "ssim", "latent-mse"),
    *("truth-psnr", "changed", "kept", "source-ssim", "transport-cost", "wrong-mode", "mode-distance"),
)
PHOTOGRAPHS: Final = (
    *("rmse", "psnr", "ssim", "latent-mse"),
    *("clip-t", "clip-i", "dino", "lpips", "structure-distance", "source-psnr", "source-ssim"),
)
SCORES: Final[Mapping[str, tuple[str, ...]]] = {"scenes": DRAWN, "mixture": DRAWN}
"""The metrics that are usual for a case set, for each task the one that decides first; PHOTOGRAPHS for all others. Those that
suit none of the cases are left out."""

TASKS: Final[tuple[Task, ...]] = get_args(Task)
CONTROLS = ("no-edit", "from-noise")


@dataclass(frozen=True)
class Comparison:
    """A comparison with its gaps filled in. `steps` are step counts; without them a preset takes its own, and other methods
    what is usual for the model; with `match_nfe` every row instead takes as many steps as that many evaluations (network rows)
    for a picture allow. `settings`: what was said of options, which goes before what presets and the model's defaults say;
    an option of an editor or solver may have several values, and then spans a grid. `metrics`: by name, without any what is
    usual for the cases; `tasks`: those of the metrics that are run, without any all of them; `protocol`: the recipe that it
    follows, with its version, if it follows one."""

    methods: tuple[Method, ...]
    model: str
    cases: str
    count: int | None
    steps: tuple[int, ...] = ()
    match_nfe: int | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=dict)
    setup: Setup = field(default_factory=Setup)
    metrics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    protocol: str = ""

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
                "metrics": tuple(described.get("metrics", ())),
                "tasks": tuple(described.get("tasks", ())),
                "setup": Setup(**described["setup"]),
            }
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"this describes no comparison that can be read here ({fault}); run it again") from fault

    def steps_of(self, method: Method) -> tuple[int, ...]:
        """The step counts that a method is run with."""
        if self.steps or method.steps:
            return self.steps or (method.steps,)
        return (find_preset(method.preset).steps if method.preset else defaults_for(self.model).steps,)

    @property
    def case_options(self) -> Mapping[str, Any]:
        """What was said of the case set's options. Where one of the editors goes by the same name (flowedit), an option is the
        case set's if that has it. Raises RegistryError."""
        said = self.settings.get(self.cases, {})
        if not any(self.cases in method[:2] for method in self.methods):
            return said
        own = {name for name, *_ in describe(CASES[self.cases])}
        return {name: value for name, value in said.items() if name.replace("-", "_") in own}

    def points(self, name: str) -> list[Point]:
        """The grid that what was said of the options of an editor or solver spans. Raises RegistryError or OptionError."""
        others = self.case_options if name == self.cases else {}
        said = {option: value for option, value in self.settings.get(name, {}).items() if option not in others}
        return points((EDITORS if name in EDITORS else SOLVERS)[name], said)

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
        for name in self.metrics_named:
            self.metric(name)

    @property
    def metrics_named(self) -> tuple[str, ...]:
        """The names of the metrics that it is scored with, if they suit its cases."""
        return self.metrics or SCORES.get(self.cases, PHOTOGRAPHS)

    def metric(self, name: str) -> Score:
        """A metric with its options; its network computes where the model does, unless it is said otherwise.
        Raises RegistryError or OptionError."""
        computes = "device" in {option_name for option_name, *_ in describe(METRICS[name])}
        usual = {"device": self.setup.device} if computes else {}
        return build_metric(name, {**usual, **self.settings.get(name, {})})


def planned(asked: Asked, model: str, setup: Setup, options: Mapping[str, Any]) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison that is asked for, with what suits `model` where nothing is said; and why methods were left out, a
    sentence each. options: by name, as `options.by_name` takes them. Raises RegistryError if no method is left, OptionError
    for what is wrong with an option of an editor or solver."""
    usual = defaults_for(model)
    asked, given, version = _by_protocol(asked)
    methods, faults = usable(methods_of(asked, model))
    chosen = asked.cases or CaseChoice(usual.cases)
    count = usual.count if chosen.size is None and chosen.name == usual.cases else chosen.size
    settings = by_name(options, owners(asked, model))
    settings = {name: {**given.get(name, {}), **said} for name, said in settings.items()}
    _locate(chosen, settings)
    plan = Comparison(
        methods=methods,
        model=model,
        cases=chosen.name,
        count=count,
        steps=asked.steps,
        match_nfe=asked.match_nfe,
        seeds=asked.seeds,
        settings=settings,
        setup=setup,
        metrics=asked.metrics,
        tasks=asked.tasks,
        protocol=version,
    )
    plan.check()
    return plan, faults


def _by_protocol(asked: Asked) -> tuple[Asked, Settings, str]:
    """What is asked for, with what the protocol says where nothing was said; the protocol's settings; its name and version.
    Raises RegistryError for a protocol that is not known."""
    if not asked.protocol:
        return asked, {}, ""
    recipe = find_protocol(asked.protocol)
    said = asked.methods or asked.editors or asked.solvers
    filled = replace(
        asked,
        methods=asked.methods if said else tuple(map(Method.read, recipe.methods)),
        cases=asked.cases or CaseChoice.read(recipe.cases),
        metrics=asked.metrics or recipe.metrics,
        tasks=asked.tasks or recipe.tasks,
    )
    return filled, recipe.settings, f"{asked.protocol} version {recipe.version}"


def _locate(chosen: CaseChoice, settings: dict[str, dict[str, Any]]) -> None:
    """Say in the settings where the cases are read from. Raises ValueError if they are read from nowhere, or from somewhere and
    it is not said where."""
    homes = {name: default for name, default, *_ in describe(CASES[chosen.name])}
    reads = "path" in homes
    if chosen.path is not None:
        if not reads:
            raise ValueError(f"{chosen.name!r} reads no folder; write {chosen.name}:COUNT, such as {chosen.name}:24")
        settings[chosen.name].setdefault("path", chosen.path)
    if reads and not (settings[chosen.name].get("path") or homes["path"]):
        raise ValueError(f"the cases {chosen.name} are read from a folder; say which: --cases {chosen.name}:FOLDER")


def usual_model(protocol: str) -> str:
    """The model where none is said: that of the protocol, if there is one. Raises RegistryError for one that is not known."""
    return find_protocol(protocol).model if protocol else "scenes"


def methods_of(asked: Asked, model: str) -> tuple[Method, ...]:
    """The methods that are asked for, or all editors with all solvers: those asked for, or what suits `model`."""
    usual = defaults_for(model)
    editors, solvers = asked.editors or usual.editors, asked.solvers or usual.solvers
    return asked.methods or tuple(Method(editor, solver) for editor in editors for solver in solvers)


def owners(asked: Asked, model: str) -> list[str]:
    """What options of that comparison can belong to: its editors and solvers, the controls, its case set, its metrics, and
    "model"."""
    asked, _, _ = _by_protocol(asked)
    names = [name for method in methods_of(asked, model) for name in method[:2]]
    cases = asked.cases.name if asked.cases else defaults_for(model).cases
    metrics = asked.metrics or SCORES.get(cases, PHOTOGRAPHS)
    return list(dict.fromkeys([*names, *CONTROLS, cases, *metrics, "model"]))


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


def scores_for(plan: Comparison, cases: Sequence[Case]) -> dict[Task, dict[str, Score]]:
    """The metrics of each task that suit at least one of the cases, by name; whether they can be had is not asked. Of those
    that were named and suit none a warning tells. Raises ValueError if no metric is left."""
    built = {name: plan.metric(name) for name in plan.metrics_named}
    suiting = {name: one for name, one in built.items() if any(map(one.suits, cases))}
    wanted = plan.tasks or TASKS
    found = {task: {name: one for name, one in suiting.items() if task in wanted and task in one.tasks} for task in TASKS}
    if not any(found.values()):
        what, doing = ", ".join(built), f" in the task {', '.join(plan.tasks)}" if plan.tasks else ""
        raise ValueError(f"none of the metrics {what} says anything about the cases {plan.cases}{doing}; see fe list metrics")
    silent = [name for name in plan.metrics if not any(name in named for named in found.values())]
    if silent:
        warnings.warn(f"left out: {', '.join(silent)}, which says nothing about the cases {plan.cases}", stacklevel=2)
    return found
