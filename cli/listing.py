"""`fe list`: what can be combined, with where it comes from and what can be set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import click

from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS, RegistryError, Table

TABLES = {"solvers": SOLVERS, "editors": EDITORS, "models": MODELS, "metrics": METRICS, "cases": CASES}
STEPS = 28
Row = list[str]


@click.command("list")
@click.argument("what", type=click.Choice([*TABLES, "presets", "protocols"]), required=False)
def listing(what: str | None) -> None:
    """Show solvers, editors, models, metrics, cases, presets and protocols, with what can be set (all, unless one is named).

    A plug-in that fails to import is shown with the reason, and so is a metric whose weights are not on this machine, with what
    would fetch them. Nothing is fetched.
    """
    for kind in TABLES if what is None else [what]:
        if kind in TABLES:
            _show(kind, TABLES[kind])
    if what in (None, "presets"):
        _show_presets()
    if what in (None, "protocols"):
        _show_protocols()


def _show(kind: str, table: Table) -> None:
    from .screen import console, show

    headings, cells = COLUMNS[kind]
    rows: list[Row] = []
    options: list[Row] = []
    faults: list[str] = []
    told: dict[str, list[str]] = {}
    for name in table:
        try:
            rows.append([name, *cells(name, table[name]), table.origin(name), _first_sentence(table[name])])
            options += _options(name, table[name])
            if kind in BELOW and (note := BELOW[kind][1](name, table[name])):
                told.setdefault(note.rstrip("."), []).append(name)
        except RegistryError as fault:
            faults.append(str(fault))
        except Exception as fault:  # a plug-in may fail in any way; the rest must go on
            faults.append(f"{table.kind} {name!r} of {table.origin(name)} cannot be used: {fault!r}")
    if kind == "metrics":  # one table of all columns would be too wide for many terminals
        show(kind, ["name", *headings], [row[:-2] for row in rows])
        show("what metrics are", ["name", "from", "what it is"], [[row[0], *row[-2:]] for row in rows])
    else:
        show(kind, ["name", *headings, "from", "what it is"], rows, right=headings if kind == "solvers" else ())
    if options and kind == "models":
        show("options of models", ["option", "default", "allowed", "meaning", "of"], _of_models(options))
    elif options:
        show(f"options of {kind}", ["option", "default", "allowed", "meaning"], options)
    if told:
        console().print(f"{BELOW[kind][0]}:", style="bold")
    for note, names in told.items():
        console().print(f"  {', '.join(names)}: {note}", markup=False, soft_wrap=True)  # commands are to be copied
    for line in faults:
        console().print(f"not usable: {line}", style="red", markup=False)


def _show_presets() -> None:
    from ..experiments.presets import PRESETS
    from .screen import console, show

    rows = []
    for name, one in PRESETS.items():
        options = "\n".join(f"{option}={value}" for option, value in one.options.items())
        rows.append([name, one.family, f"{one.editor} + {one.solver}", str(one.steps), options])
    show("presets", ["name", "for", "editor + solver", "steps", "options"], rows, right=["steps"])
    show("sources of presets", ["name", "paper", "note"], [[name, one.paper, one.note] for name, one in PRESETS.items()])
    console().print("--preset NAME uses one; --steps, --solver and --set go before what it says.", style="dim", markup=False)


def _show_protocols() -> None:
    from ..experiments.protocols import PROTOCOLS
    from .screen import console, show

    rows, runs, options = [], [], []
    for name, one in PROTOCOLS.items():
        rows.append([name, str(one.version), one.model, one.cases])
        runs.append([name, "\n".join(one.methods), "\n".join(one.metrics)])
        said = [f"{owner}.{option}={value}" for owner, values in one.settings.items() for option, value in values.items()]
        options += [[name, option] for option in said]
    show("protocols", ["name", "version", "model", "cases"], rows, right=["version"])
    show("what protocols show", ["name", "what", "paper"], [[name, one.what, one.paper] for name, one in PROTOCOLS.items()])
    show("what protocols run", ["name", "methods", "metrics"], runs)
    show("options of protocols", ["name", "option"], options)
    console().print("fe compare --protocol NAME follows one; other flags go before what it says.", style="dim", markup=False)


def _model(name: str, kind: type) -> Row:
    from ..models.pipelines import PipelineLoader

    return [(kind.home if issubclass(kind, PipelineLoader) else None) or ""]


def _solver(name: str, kind: type) -> Row:
    from ..experiments.names import build_solver

    solver = build_solver(name)
    return [str(solver.order), str(solver.nfe(STEPS)), "yes" if solver.reversible else ""]


def _metric(name: str, kind: type) -> Row:
    from ..experiments.names import build_metric

    metric = build_metric(name)
    better = {True: "higher", False: "lower", None: ""}[metric.higher_is_better]
    return ["no" if metric.missing() else "yes", metric.label, metric.unit, better, ", ".join(metric.tasks)]


def _missing(name: str, kind: type) -> str:
    from ..experiments.names import build_metric

    return build_metric(name).missing()


def _licence(name: str, kind: type) -> str:
    licence: str = kind.licence  # type: ignore[attr-defined]  # a CaseSet, as the table has seen to
    return licence


def _nothing(name: str, kind: type) -> Row:
    return []


COLUMNS: dict[str, tuple[list[str], Callable[[str, type], Row]]] = {
    "solvers": (["order", f"evaluations in {STEPS} steps", "reversible"], _solver),
    "editors": ([], _nothing),
    "models": (["weights"], _model),
    "metrics": (["here", "label", "unit", "better", "for"], _metric),
    "cases": ([], _nothing),
}
BELOW: dict[str, tuple[str, Callable[[str, type], str]]] = {
    "metrics": ("metrics that are not here, and what would fetch them", _missing),
    "cases": ("licences", _licence),
}
"""What is told below a table, of those that have something to tell."""


def _options(name: str, kind: type) -> Iterator[Row]:
    from ..options import describe

    for option, default, allowed, meaning in describe(kind):
        yield [f"{name}.{option}", default, allowed, meaning]


def _of_models(options: list[Row]) -> list[Row]:
    """Options as they are set, model.OPTION, each once with the models that have it."""
    models: dict[tuple[str, ...], list[str]] = {}
    for option, *rest in options:
        model, _, name = option.rpartition(".")
        models.setdefault((f"model.{name}", *rest), []).append(model)
    return [[*option, ", ".join(names)] for option, names in models.items()]


def _first_sentence(kind: type) -> str:
    paragraph = (kind.__doc__ or "").strip().partition("\n\n")[0]
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(paragraph.split()))[0].rstrip(".")
