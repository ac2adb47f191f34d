"""`fe compare`: solvers and editors over many cases, quality beside cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ..registry import CASES, EDITORS, SOLVERS
from .kinds import Counts, Kind, Name, Names, grouped
from .refusal import Interrupted, Refused
from .shared import Wanted, model_options, set_option

if TYPE_CHECKING:
    from ..experiments.compare import Prepared
    from ..experiments.folder import RunFolder
    from ..experiments.plan import Comparison
    from ..experiments.summary import Summary

Setting = tuple[str, str, str]


class CaseChoice(NamedTuple):
    """A case set, how many of it, and the folder for a set that reads one."""

    name: str
    size: int | None = None
    path: str | None = None


class CaseSpec(Kind):
    """A case set: NAME, NAME:COUNT or NAME:FOLDER."""

    name = "name:count"

    def convert(self, value: str | CaseChoice, param: click.Parameter | None, ctx: click.Context | None) -> CaseChoice:
        if isinstance(value, CaseChoice):
            return value
        name, _, rest = value.partition(":")
        Name(CASES).convert(name, param, ctx)
        if re.fullmatch(r"-?\d+", rest):
            return CaseChoice(name, Counts().convert(rest, param, ctx)[0])
        return CaseChoice(name, None, rest or None)


class MethodList(Kind):
    """Editors with their solvers: EDITOR+SOLVER, separated by commas."""

    name = "editor+solver,..."

    def convert(
        self, value: str | tuple[tuple[str, str], ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, str], ...]:
        if isinstance(value, tuple):
            return value
        pairs = []
        for part in value.split(","):
            editor, plus, solver = part.strip().partition("+")
            if not (editor and plus and solver):
                self.fail(f"{part.strip()!r} is no method; write EDITOR+SOLVER, such as flowedit+euler", param, ctx)
            pairs.append((Name(EDITORS).convert(editor, param, ctx), Name(SOLVERS).convert(solver, param, ctx)))
        return tuple(dict.fromkeys(pairs))


@click.command()
@click.option("--solvers", "--solver", "solvers", type=Names(SOLVERS), help="Separated by commas. [default: euler,fireflow]")
@click.option("--editors", "--editor", "editors", type=Names(EDITORS), help="Separated by commas. [default: flowedit]")
@click.option("--methods", type=MethodList(), help="EDITOR+SOLVER,... in place of all editors with all solvers.")
@click.option("--steps", type=Counts(), help="Step counts, separated by commas. [default: 28]")
@click.option("--match-nfe", type=click.IntRange(1, 100_000), help="Instead: as many steps as this many NFE allow.")
@model_options
@click.option("--cases", type=CaseSpec(), help="NAME, NAME:COUNT or folder:PATH. [default: scenes:24]")
@set_option
@click.option("--seeds", type=Counts(low=0), default="0", help="Seeds of the noise, separated by commas.")
@click.option("--batch", type=click.IntRange(1, 4096), default=8, help="Cases that go through the model at once.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results. [default: one under results/]")
@click.option("--no-pictures", is_flag=True, help="Write no pictures.")
@click.option("--overwrite", is_flag=True, help="Replace a run that the folder holds.")
def compare(
    solvers: tuple[str, ...] | None,
    editors: tuple[str, ...] | None,
    methods: tuple[tuple[str, str], ...] | None,
    steps: tuple[int, ...] | None,
    match_nfe: int | None,
    wanted: Wanted,
    cases: CaseChoice | None,
    settings: tuple[Setting, ...],
    seeds: tuple[int, ...],
    batch: int,
    out: Path | None,
    no_pictures: bool,
    overwrite: bool,
) -> None:
    """Run solvers and editors over cases; show what each costs and what it gives, with 95 % intervals.

    Every solver also reconstructs the pictures: inverts them, and generates them again. A run that was cut short goes on when
    the same command is given again; a finished one is shown again.

    \b
    fe compare --solvers euler,fireflow --editor flowedit
    fe compare --methods inversion+euler,injection+fireflow,flowedit+euler --match-nfe 48
    fe compare --model mixture
    """
    if methods and (solvers or editors):
        raise click.UsageError("--methods names editors and solvers already; leave out --solvers and --editors")
    if steps and match_nfe:
        raise click.UsageError("--match-nfe chooses the steps; leave out --steps")
    from ..experiments.compare import open_folder, prepare
    from ..experiments.folder import check_writable
    from .screen import working

    plan = _plan(solvers, editors, methods, steps, match_nfe, wanted, cases, settings, seeds)
    check_writable(out or Path("results"))
    with working(f"loading {wanted.spec}"):
        prepared = prepare(plan)
    folder = open_folder(prepared, out or Path("results") / _default_name(prepared), overwrite)
    summaries = _run(prepared, folder, batch, not no_pictures)
    _show(prepared, folder, summaries)


def _plan(
    solvers: tuple[str, ...] | None,
    editors: tuple[str, ...] | None,
    methods: tuple[tuple[str, str], ...] | None,
    steps: tuple[int, ...] | None,
    match_nfe: int | None,
    wanted: Wanted,
    cases: CaseChoice | None,
    settings: tuple[Setting, ...],
    seeds: tuple[int, ...],
) -> Comparison:
    """The request with the model's defaults filled in. Plug-ins that cannot be imported are named and left out."""
    from ..experiments.compare import usable
    from ..experiments.plan import Comparison, Method
    from ..experiments.presets import preset_for, preset_settings

    preset = preset_for(wanted.spec)
    product = ((editor, solver) for editor in editors or preset.editors for solver in solvers or preset.solvers)
    kept, faults = usable(Method(*pair) for pair in methods or product)
    for fault in faults:
        click.echo(f"fe: left out: {fault}", err=True)
    choice = cases or CaseChoice(preset.cases, preset.count)
    if choice.size is None and choice.name == preset.cases:
        choice = choice._replace(size=preset.count)
    used_editors = dict.fromkeys([*(method.editor for method in kept), "no-edit", "from-noise"])
    used_solvers = dict.fromkeys(method.solver for method in kept)
    given = grouped(settings, [*used_editors, *used_solvers, choice.name, "model"])
    if choice.path is not None:
        given[choice.name].setdefault("path", choice.path)
    usual = preset_settings(preset, used_editors)
    return Comparison(
        methods=kept,
        model=wanted.spec,
        cases=choice.name,
        count=choice.size,
        steps=steps or (preset.steps,),
        match_nfe=match_nfe,
        seeds=seeds,
        settings={name: usual.get(name, {}) | options for name, options in given.items()},
        setup=wanted.setup(),
    )


def _default_name(prepared: Prepared) -> str:
    """A folder's name that the same comparison always gets, and no other: an edited solver or new weights go elsewhere."""
    model = re.sub(r"[^\w-]", "", prepared.plan.model.partition(":")[0])
    return f"compare-{model}-{prepared.hash[:8]}"


def _run(prepared: Prepared, folder: RunFolder, batch: int, pictures: bool) -> list[Summary]:
    from ..experiments.compare import carry_out
    from ..reports.progress import watched
    from .screen import console

    try:
        with watched(console(stderr=True)) as watch:
            return carry_out(prepared, folder, watch, batch=batch, pictures=pictures)
    except KeyboardInterrupt:
        kept = len(folder.done({cell.key for cell in prepared.cells}))
        raise Interrupted(
            f"interrupted: {kept} of {len(prepared.cells)} cells are kept in {folder.path}; the same command goes on from there"
        ) from None


def _show(prepared: Prepared, folder: RunFolder, summaries: list[Summary]) -> None:
    """Print the tables and what they say, also to a file; draw what can be drawn."""
    from rich.console import Console

    from ..reports.kinds import kinds_table
    from ..reports.reading import reading
    from ..reports.table import notes, table
    from .screen import FILE_WIDTH, console

    failed = sum(line.failed for summary in summaries for line in summary.lines)
    if failed == len(prepared.cells):
        raise Refused(f"every cell failed; the first: {folder.failures()[0]}")
    tables = [shown for one in summaries for shown in (table(one), kinds_table(one)) if shown is not None]
    explained = notes(summaries, on_gpu=prepared.on_gpu)
    said = " ".join(filter(None, map(reading, summaries)))
    screen = console()
    screen.print(*tables, sep="\n")
    screen.print(explained, style="dim", markup=False)
    screen.print(_drawn(prepared, folder, summaries), markup=False, soft_wrap=True)
    if failed:
        screen.print(f"{failed} cells failed; the first: {folder.failures()[0]}", style="red", markup=False, soft_wrap=True)
    screen.print(said, style="bold", markup=False, soft_wrap=not screen.is_terminal)  # one line in a file
    with (folder.path / "table.txt").open("w", encoding="utf-8") as file:
        page = Console(file=file, width=FILE_WIDTH, highlight=False)
        page.print(*tables, sep="\n")
        page.print(explained, said, sep="\n\n", markup=False)


def _drawn(prepared: Prepared, folder: RunFolder, summaries: list[Summary]) -> str:
    """Write the pictures that a run is read by; say which."""
    from ..experiments.compare import paths
    from ..metrics.pixels import is_picture
    from ..reports.pictures import grid
    from ..reports.plots import path_plot, quality_plot

    written = ["records.jsonl", "table.txt"]
    if grid(folder, prepared.cells, folder.path / "grid.png"):
        written.append("grid.png")
    if quality_plot(summaries, folder.path / "quality.png"):
        written.append("quality.png")
    if not is_picture(prepared.cases[0].picture):
        path_plot(paths(prepared), folder.path / "paths.png")
        written.append("paths.png")
    return f"{folder.path}: {', '.join(written)}"
