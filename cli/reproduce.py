"""`fe reproduce`: one cell of a run once more."""

from __future__ import annotations

from pathlib import Path

import click

from .kinds import Device, Folder
from .shared import offline_option


@click.command()
@click.argument("run", type=Folder())
@click.argument("cell", required=False)
@click.option("--device", type=Device(), help="Where to run it. [default: as the run was asked for]")
@offline_option
@click.pass_context
def reproduce(ctx: click.Context, run: Path, cell: str | None, device: str | None) -> None:
    """Run one CELL of a RUN again, in the batch that it was part of, and say whether it is identical.

    RUN is the folder of a comparison. CELL is the key of a cell (records.jsonl has them), or ROW/CASE as its picture is called,
    or as much of either as no other cell has; the first one that came out if none is given. Scores, counts, network calls and
    rows are compared to the last bit, and the picture to the last pixel; nothing is written. The exit code is 0 if all is
    identical, 1 if not.

    \b
    fe reproduce results/compare-scenes-1a2b3c4d
    fe reproduce results/compare-scenes-1a2b3c4d flowedit+euler-28/scenes/test/000002-size
    """
    from ..experiments.reproduce import reproduce as run_again
    from .screen import working

    with working(f"running a cell of {run} again"):
        found = run_again(run, cell, device)
    click.echo(repr(found))
    ctx.exit(0 if found.identical else 1)
