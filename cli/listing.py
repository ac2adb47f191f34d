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
@click.argument("what", type=click.Choice([*TABLES, "presets"]), required=False)
def listing(what: str | None) -> None:
    """Show solvers, editors, models, metrics, cases and presets, with what can be set (all, unless one is named).

    A plug-in that fails to import is shown with the reason.
    """
    for kind in TABLES if what is None else [what]:
        if kind in TABLES:
            _show(kind, TABLES[kind])
    if what in (None, "presets"):
        _show_presets()


def _show(kind: str, table: Table) -> None:
    from .screen import console, show

    headings, cells = COLUMNS[kind]
    rows: list[Row] = []
    options: list[Row] = []
    faults: list[str] = []
    for name in table:
        try:
            rows.append([name, *cells(name, table[name]), table.origin(name), _first_sentence(table[name])])
            options += _options(name, table[name])
        except RegistryError as fault:
            faults.append(str(fault))
        except Exception as fault:  # a plug-in may fail in any way; the rest must go on
            faults.append(f"{table.kind} {name!r} of {table.origin(name)} cannot be used: {fault!r}")
    show(kind, ["name", *headings, "from", "what it is"], rows, right=headings if kind != "models" else ())
    if options and kind == "models":
        show("options of models", ["option", "default", "allowed", "meaning", "of"], _of_models(options))
    elif options:
        show(f"options of {kind}", ["option", "default", "allowed", "meaning"], options)
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
    return [metric.label, metric.unit, better, ", ".join(metric.tasks)]


def _nothing(name: str, kind: type) -> Row:
    return []


COLUMNS: dict[str, tuple[list[str], Callable[[str, type], Row]]] = {
    "solvers": (["order", f"evaluations in {STEPS} steps", "reversible"], _solver),
    "editors": ([], _nothing),
    "models": (["weights"], _model),
    "metrics": (["label", "unit", "better", "for"], _metric),
    "cases": ([], _nothing),
}


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
