"""`fe reconstruct`: how well solvers bring a picture back, at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..registry import SOLVERS
from .kinds import Counts, Folder, Names, as_options
from .shared import Wanted, model_options, set_option, side_option

if TYPE_CHECKING:
    from ..cases.base import Case
    from ..experiments.round_trip import Gap, Trip
    from ..models.base import Model
    from ..reports.results import Reconstructed
    from ..solvers.base import Solver


@click.command()
@click.argument("picture")
@click.option("--prompt", help="What the picture shows (a case of scenes brings its own; otherwise nothing).")
@click.option("--solvers", type=Names(SOLVERS), default="euler,midpoint,fireflow,alf", help="Separated by commas.")
@click.option("--steps", type=Counts(), default="4,8,16,28", help="Step counts, separated by commas.")
@model_options
@set_option
@side_option
@click.option("--out", type=Folder(), default="results/reconstruct", help="Folder of the plot.")
def reconstruct(
    picture: str,
    prompt: str | None,
    solvers: tuple[str, ...],
    steps: tuple[int, ...],
    wanted: Wanted,
    settings: tuple[tuple[str, str, str], ...],
    side: int | None,
    out: Path,
) -> None:
    """Invert PICTURE (a file, or a case such as scenes:7) with each solver, bring it back, and show error against cost.

    Both ways use the same prompt at guidance 1. A solver that is exactly reversible is also run with its state carried from one
    way to the other: it then lands on the codec's own error, the bound of every method.
    """
    from .. import api
    from ..cases.pictures import put
    from ..experiments.folder import check_writable
    from ..experiments.names import build_solver
    from ..experiments.round_trip import codec_trip, velocity_gaps
    from ..experiments.subjects import fit, subjects
    from ..options import by_name
    from .screen import working

    options = by_name(as_options(settings), [*solvers, "model"])
    built = {name: build_solver(name, options[name]) for name in solvers}
    found = subjects(picture)
    if len(found) != 1:
        raise ValueError(f"one picture is reconstructed at a time, got {len(found)}")
    check_writable(out)
    loaded = wanted.load(options["model"])
    shown = (found[0].source or "") if prompt is None else prompt
    fitted = fit(found[0].prompted(shown, shown), loaded, side=side)
    for note in api.notes_of(loaded, fitted.notes):
        click.echo(f"{found[0].name}: {note}")
    lines = list(_lines(loaded, built, steps, fitted.case))
    with working("measuring the codec and FireFlow's assumption"):
        codec = codec_trip(loaded, fitted.case)
        gaps = {count: velocity_gaps(loaded, count, fitted.case) for count in steps}
    _show(lines, codec, gaps)
    out.mkdir(parents=True, exist_ok=True)
    plot = out / f"{found[0].name}.reconstruct.png"
    put(_plot(lines, codec, gaps), plot)
    click.echo(f"{plot}: the same as curves")


class Line(NamedTuple):
    """One solver with one step count; `carried` is None where a solver has no state that makes it reversible."""

    solver: str
    steps: int
    memoryless: Reconstructed
    carried: Reconstructed | None


def _lines(model: Model[Any], solvers: Mapping[str, Solver[Any]], steps: Sequence[int], case: Case) -> Iterator[Line]:
    from ..api import reconstruct

    for name, solver in solvers.items():
        for count in steps:
            carried = reconstruct(model, case, solver=solver, steps=count, carry=True) if solver.reversible else None
            yield Line(name, count, reconstruct(model, case, solver=solver, steps=count), carried)


def _show(lines: Sequence[Line], codec: Trip, gaps: Mapping[int, Sequence[Gap]]) -> None:
    from .screen import show

    kinds = ("", "\nstate carried")
    numbers = ["steps", *(f"{what}{kind}" for kind in kinds for what in ("evaluations", "RMSE (0-255)", "PSNR dB"))]
    rows = [[one.solver, str(one.steps), *_cells(one.memoryless), *_cells(one.carried)] for one in lines]
    rows.append(["codec alone", "", *_cells(codec), *_cells(None)])
    show("reconstruction (evaluations: network rows, there and back)", ["solver", *numbers], rows, right=numbers)
    cells = [
        [str(count), f"{_mean([g.size for g in some]):.4f}", f"{100 * _mean([g.size / g.velocity for g in some]):.1f} %"]
        for count, some in gaps.items()
    ]
    headings = ["steps", "mean |v_mid - v_prev|", "of |v_mid|"]
    show("FireFlow's assumption, along its inversion (root mean squares)", headings, cells, right=headings)


def _cells(trip: Reconstructed | Trip | None) -> list[str]:
    return ["", "", ""] if trip is None else [str(trip.cost.rows), f"{trip.rmse:.3f}", f"{trip.psnr:.2f}"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plot(lines: Sequence[Line], codec: Trip, gaps: Mapping[int, Sequence[Gap]]) -> Any:
    from ..reports.recon_plot import Curve, recon_plot

    curves = []
    for name in dict.fromkeys(one.solver for one in lines):
        mine = [one for one in lines if one.solver == name]
        curves.append(Curve(name, [(one.memoryless.cost.rows, one.memoryless.rmse) for one in mine]))
        carried = [(one.carried.cost.rows, one.carried.rmse) for one in mine if one.carried is not None]
        if carried:
            curves.append(Curve(f"{name}, state carried", carried, carried=True))
    steps = {f"{count} steps": [(g.t + g.h / 2, g.size / g.velocity) for g in some] for count, some in gaps.items()}
    return recon_plot(curves, codec.rmse, steps)
