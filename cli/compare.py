"""`fe compare`: solvers and editors over many cases, quality beside cost."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..experiments.words import Asked, CaseChoice, Method, Shard
from ..registry import EDITORS, METRICS, SOLVERS
from .ending import keeping, stoppable
from .experiment import ComparisonCommand, Experiment
from .kinds import Cases, Counts, Folder, Methods, Names, ProtocolName, ShardOf, Whole, as_options
from .shared import Wanted, gathered, model_options, set_option

if TYPE_CHECKING:
    from ..experiments.compare import Prepared
    from ..experiments.folder import RunFolder
    from ..experiments.results import Results
    from ..experiments.run import Effort


@dataclass(frozen=True)
class Flags:
    """What to compare, as it came from the command line."""

    solvers: tuple[str, ...] | None
    editors: tuple[str, ...] | None
    methods: tuple[Method, ...] | None
    steps: tuple[int, ...] | None
    match_nfe: int | None
    cases: CaseChoice | None
    seeds: tuple[int, ...]
    metrics: tuple[str, ...] | None
    protocol: str | None

    def asked(self) -> Asked:
        """The same for whoever plans it. Raises ValueError for wishes that contradict each other."""
        return Asked(
            methods=self.methods or (),
            solvers=self.solvers or (),
            editors=self.editors or (),
            steps=self.steps or (),
            match_nfe=self.match_nfe,
            cases=self.cases,
            seeds=self.seeds,
            metrics=self.metrics or (),
            protocol=self.protocol or "",
        )


FLAGS = (
    click.option("--solvers", "--solver", "solvers", type=Names(SOLVERS), help="With commas. [default: euler,fireflow]"),
    click.option("--editors", "--editor", "editors", type=Names(EDITORS), help="With commas. [default: flowedit]"),
    click.option("--methods", type=Methods(), help="EDITOR+SOLVER or presets, in place of all editors with all solvers."),
    click.option("--steps", type=Counts(), help="Step counts, separated by commas. [default: a preset's own, else 28]"),
    click.option("--match-nfe", type=Whole(1, 100_000), help="Instead: as many steps as this many NFE allow."),
    click.option("--cases", type=Cases(), help="NAME, NAME:COUNT, NAME:PATH or NAME:PATH:COUNT. [default: scenes:24]"),
    click.option("--seeds", type=Counts(low=0), default="0", help="Seeds of the noise, separated by commas."),
    click.option("--metrics", type=Names(METRICS), help="With commas. [default: what is usual for the cases]"),
    click.option("--protocol", type=ProtocolName(), help="A published recipe; other flags go before what it says."),
)


@dataclass(frozen=True)
class Manner:
    """How to run it, and where to, as it came from the command line."""

    batch: int
    out: Path | None
    pictures: bool
    overwrite: bool
    retry_failed: bool
    shard: Shard | None
    workers: int
    ray_address: str
    dry_run: bool

    def effort(self) -> Effort:
        """The same for whoever runs it. Raises ValueError for wishes that contradict each other."""
        from ..experiments.run import Effort

        return Effort(self.batch, self.pictures, self.retry_failed, self.workers, self.ray_address)

    def folder(self, prepared: Prepared) -> Path:
        """Where the results go: shards have a folder each inside of one for all."""
        whole = self.out or Path("results") / prepared.name
        return whole if self.shard is None else whole / f"shard-{self.shard.number}-of-{self.shard.of}"


MANNER = (
    click.option("--batch", type=Whole(1, 4096), default=8, help="Cases that go through the model at once."),
    click.option("--out", type=Folder(), help="Folder of the results. [default: one under results/]"),
    click.option("--pictures/--no-pictures", default=True, help="Write the pictures."),
    click.option("--overwrite", is_flag=True, help="Replace a run that the folder holds."),
    click.option("--retry-failed", is_flag=True, help="Run cells again that failed before."),
    click.option("--shard", type=ShardOf(), help="Run one of N equal parts, I/N; fe report shows them together."),
    click.option("--workers", type=Whole(0, 4096), default=0, help="Ray workers, each with a model; 0: none."),
    click.option("--ray-address", default="", show_default="one is started", help="HOST:PORT of a Ray that runs, or auto."),
    click.option("--dry-run", is_flag=True, help="Show what it would take, from one batch that is tried; write nothing."),
)


@click.command(cls=ComparisonCommand)
@click.argument("experiment", required=False, type=click.Path(dir_okay=False))
@gathered("flags", Flags, FLAGS)
@model_options
@set_option
@gathered("manner", Manner, MANNER)
@stoppable()
def compare(
    experiment: Experiment | None,
    flags: Flags,
    wanted: Wanted,
    settings: tuple[tuple[str, str, str], ...],
    manner: Manner,
) -> None:
    """Run solvers and editors over cases; show what each costs and what it gives, with 95 % intervals.

    Every solver also reconstructs the pictures: inverts them, and generates them again. A run that was cut short goes on when
    the same command is given again; a finished one is shown again. Several values of an option make a row each. The exit code
    is 1 if cells failed. EXPERIMENT is a YAML or TOML file that holds what flags say; flags go before it.

    \b
    fe compare --solvers euler,fireflow --editor flowedit
    fe compare --methods inversion+euler,injection+fireflow,flowedit+euler --match-nfe 48
    fe compare --methods flowedit@flux,fireflow@paper-8,inversion+euler
    fe compare --editor flowedit --set flowedit.n_max=19,21,23,25
    fe compare --model mixture
    fe compare experiment.yaml --steps 8
    """
    asked = flags.asked()
    from ..experiments.compare import check_effort, open_folder, prepare
    from ..experiments.folder import check_writable
    from ..experiments.plan import planned
    from ..experiments.workers import check_workers
    from .screen import working

    effort = manner.effort()
    check_workers(effort, wanted.setup())
    spec = _spec(asked, wanted)
    plan, faults = planned(asked, spec, wanted.setup(), as_options(settings))
    for fault in faults:
        click.echo(f"fe: left out: {fault}", err=True)
    if not manner.dry_run:
        check_writable(manner.out or Path("results"))
    with working(f"loading {spec}"), experiment.blamed() if experiment else nullcontext():
        elsewhere = effort.workers > 0 and not manner.dry_run
        prepared = replace(prepare(plan, elsewhere=elsewhere), shard=manner.shard)
    check_effort(prepared, effort)
    if prepared.absent:
        click.echo(f"fe: no figures for {', '.join(prepared.absent)}, as fe list metrics explains", err=True)
    if manner.dry_run:
        _foretell(prepared, manner.folder(prepared), effort, manner.overwrite)
        return
    with open_folder(prepared, manner.folder(prepared), manner.overwrite) as folder, keeping(folder, len(prepared.mine)):
        _show(prepared, _run(prepared, folder, effort))


def _spec(asked: Asked, wanted: Wanted) -> str:
    """The model: the one that was said, or that of the protocol."""
    from ..experiments.plan import usual_model

    said = click.get_current_context().get_parameter_source("spec") is not ParameterSource.DEFAULT
    return wanted.spec if said else usual_model(asked.protocol)


def _foretell(prepared: Prepared, folder: Path, effort: Effort, overwrite: bool) -> None:
    """Print the plan, and what it would take."""
    from ..experiments.forecast import forecast
    from ..reports.forecast import foretold, plan_table
    from ..reports.table import put
    from .screen import console, working

    with working("trying one batch"):
        found = forecast(prepared, folder, effort, overwrite)
    screen = console()
    put(screen, [plan_table(found)])
    for line in foretold(found, folder):
        screen.print(line, markup=False, soft_wrap=True)


def _run(prepared: Prepared, folder: RunFolder, effort: Effort) -> Results:
    from ..experiments.compare import carry_out
    from ..reports.progress import watched
    from .screen import console

    with watched(console(stderr=True)) as watch:
        return carry_out(prepared, folder, watch, effort)


def _show(prepared: Prepared, results: Results) -> None:
    """Print the tables and what they say, also to a file; draw what can be drawn."""
    from ..reports.page import Page, written
    from .screen import console, show_page

    files = f"{results.folders[0]}: {', '.join(written(prepared, results))}"
    show_page(console(), Page.of(results), files)
    if results.failures:
        click.get_current_context().exit(1)
