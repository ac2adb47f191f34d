"""`fe check`: a solver against what it claims, or a data set before hours are spent on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ..registry import CASES, SOLVERS, RegistryError
from .kinds import Name, Setting, as_options

if TYPE_CHECKING:
    from ..cases.base import Case, CaseSet
    from ..cases.survey import Survey


class SolverOrPath(Name):
    """A solver's name, which goes first, or the path of a data set, which need not be there before the command runs."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("what", type=SolverOrPath(SOLVERS))
@click.option("--kind", type=Name(CASES), help="Which data set WHAT is, where its files do not tell (fe list cases).")
@click.option("--set", "settings", type=Setting(), multiple=True, help="An option of what is checked: NAME.OPTION=VALUE.")
@click.pass_context
def check(ctx: click.Context, what: str, kind: str | None, settings: tuple[tuple[str, str, str], ...]) -> None:
    """Hold a solver to what it claims, or look through a data set before hours are spent on it.

    WHAT is a solver's name, built in or plugged in: its orders are measured, its evaluations counted, and it is tried whether
    runs stay apart and reversal holds. Or WHAT is the path of a data set: everything that is wrong with it is listed, line by
    line, every picture is read once, and then it is told what the set holds. Write ./NAME for a folder that is called as a
    solver is.

    \b
    fe check fireflow
    fe check album                       # a folder with a prompts.csv
    fe check ./data --kind pie-bench
    fe check album --set folder.side=512

    Exit code 0 if all is well, 1 if something is wrong, 2 if there is no such solver or no data set.
    """
    options = as_options(settings)
    if what in SOLVERS and kind is None:
        well = _solver_holds(what, options)
    elif Path(what).exists():
        well = _data_is_well(what, kind, options)
    elif "/" in what or kind is not None:
        raise ValueError(f"there is no file or folder {what!r}")
    else:
        raise ValueError(f"{SOLVERS.suggest(what)}; for a data set, name a file or folder that is there")
    ctx.exit(0 if well else 1)


def _solver_holds(name: str, options: Mapping[str, str]) -> bool:
    import torch

    from ..experiments.names import build_solver
    from ..options import by_name
    from ..solvers.conformance import examine
    from .screen import show, working

    built = build_solver(name, by_name(options, [name])[name])
    torch.set_num_threads(1)  # the tensors are tiny: several threads would only wait for each other
    with working(f"examining {name}"):
        findings = examine(built)
    rows = [[one.name, one.measured, one.wanted, "yes" if one.passed else "NO"] for one in findings]
    show(f"{name}: declared order {built.order}", ["examined", "measured", "wanted", "holds"], rows)
    failed = sum(not one.passed for one in findings)
    click.echo(f"{len(findings) - failed} of {len(findings)} hold" + ("" if failed else f": {name} is what it claims to be"))
    return not failed


def _data_is_well(path: str, kind: str | None, options: Mapping[str, str]) -> bool:
    from ..experiments.names import build_cases
    from ..options import by_name

    kind = kind or _recognised(path)
    if not _where(kind):
        raise ValueError(f"{kind} is not read from files, so there is nothing to check")
    data = build_cases(kind, {"path": path, **by_name(options, [kind])[kind]})
    with warnings.catch_warnings(record=True) as told:
        cases = _taken(data)
        faults = [*_faults(data, cases), *_clashes(cases)]
    for fault in faults:
        click.echo(fault)
    if cases:
        _show(f"{path} as {kind}", cases, list(dict.fromkeys(str(one.message) for one in told)))
    click.echo(f"licence: {data.licence or 'none is stated'}")
    click.echo(f"{_counted(faults)} wrong with {path}")
    return not faults


def _taken(data: CaseSet) -> Sequence[Case]:
    """All cases, or none where the list of them is wrong, which is then among the faults."""
    try:
        return data.take(None)
    except ValueError:
        return ()


def _faults(data: CaseSet, cases: Sequence[Case]) -> list[str]:
    from ..reports.progress import counted
    from .screen import console

    found = []
    with counted(console(stderr=True), "reading every picture", len(cases) or None, "cases") as count:
        for done, fault in enumerate(data.faults(), start=1):
            count(done)
            if fault is not None:
                found.append(fault)
    return found


def _clashes(cases: Sequence[Case]) -> Iterator[str]:
    from ..experiments.cells import check_ids

    try:
        check_ids(case.id for case in cases)
    except ValueError as fault:
        yield str(fault)


def _show(title: str, cases: Sequence[Case], told: Sequence[str]) -> None:
    """What the set holds. told: what was said while its pictures were read."""
    from ..cases.survey import NAMED, survey
    from .screen import show, working

    with working("looking at the masks"):
        seen = survey(cases)
    kinds = ", ".join(f"{kind or 'of no kind'} {count}" for kind, count in seen.kinds.items())
    rows = [["cases", str(seen.count)], ["kinds", kinds], *_sizes(seen), ["masks", str(seen.masks)]]
    notes = [*seen.notes, *told[:NAMED], *([f"{len(told) - NAMED} more notes of this kind"] if len(told) > NAMED else [])]
    show(title, ["what", "found"], [*rows, *(["note", note] for note in notes)])


def _sizes(seen: Survey) -> list[list[str]]:
    if seen.smallest is None or seen.largest is None:
        return []
    ends = dict.fromkeys(f"{width}x{height}" for height, width in (seen.smallest, seen.largest))
    return [["pictures", f"{' to '.join(ends)} pixels (width x height)"]]


def _counted(faults: Sequence[str]) -> str:
    if not faults:
        return "nothing is"
    return "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"


def _where(kind: str) -> str:
    """What the data set of that name is read from, "" if from no files."""
    from ..options import describe

    return next((meaning for name, _, _, meaning in describe(CASES[kind]) if name == "path"), "")


def _recognised(path: str) -> str:
    """The name of the data set that a path holds. Raises ValueError where there is none, or more than one."""
    found, known, unusable = [], [], []
    for name in CASES:
        try:
            kind: type[CaseSet] = CASES[name]
        except RegistryError as fault:  # a plug-in that does not load keeps nobody from checking other data
            unusable.append(f"; {fault}")
            continue
        if kind.recognises(Path(path)):
            found.append(name)
        if _where(name):
            known.append(f"{name} ({_where(name)})")
    if not found:
        raise ValueError(f"{path!r} is no data set; recognised would be {', '.join(known)}{''.join(unusable)}")
    if len(found) > 1:
        raise ValueError(f"{path!r} may be {' or '.join(found)}; say which, with --kind {found[0]}")
    return found[0]
