"""`fe report`: the tables of runs again, from their folders alone."""

from __future__ import annotations

from pathlib import Path

import click

from .kinds import Folder


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Folder(), metavar="RUN...")
@click.option("--out", type=Folder(), help="Also write table.txt, grid.png and quality.png into this folder.")
@click.pass_context
def report(ctx: click.Context, runs: tuple[Path, ...], out: Path | None) -> None:
    """Show what fe compare left in one or several folders: the tables, what is missing from them, and what they say.

    Neither the model nor the pictures are needed. Shards of one comparison are joined, wherever they lie; different comparisons
    follow one another. A folder that holds runs stands for them all; one that is not finished is shown as far as it came. One
    that cannot be read is named and left out; the exit code is then 1.

    \b
    fe report results/compare-scenes-1a2b3c4d
    fe report results
    fe report out/shard-1-of-2 /mnt/other/shard-2-of-2 --out joined
    """
    from ..experiments.folder import check_writable
    from ..experiments.results import find_results
    from ..reports.page import Page, summed_up
    from .screen import console, show_page, working

    if out is not None:
        check_writable(out)
    comparisons, faults = find_results(runs)
    for fault in faults:
        click.echo(f"fe: left out: {fault}", err=True)
    if out is not None and len(comparisons) > 1:
        raise ValueError(f"--out takes one comparison, got {len(comparisons)}; report them one by one")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    screen = console()
    for results in comparisons:
        if results.sets_to_come:
            from ..experiments.sets import completed  # brings all that runs a comparison

            with working(f"finding {', '.join(results.sets_to_come)}"):
                results = completed(results, results.sets_to_come)
        if len(comparisons) > 1:
            screen.print(", ".join(map(str, results.folders)), style="bold underline", markup=False, soft_wrap=True)
        show_page(screen, Page.of(results), "" if out is None else f"{out}: {', '.join(summed_up(results, out))}")
    if faults:
        ctx.exit(1)
