"""`fe check`: a solver against what it claims."""

from __future__ import annotations

from pathlib import Path

import click

from ..registry import SOLVERS
from .kinds import Name, Setting, as_options


class SolverName(Name):
    """A solver's name; a path is refused by saying that it is one."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in SOLVERS and Path(value).exists():
            self.fail(f"{value!r} is a file or folder; only solvers can be checked, by name", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("solver", type=SolverName(SOLVERS))
@click.option("--set", "settings", type=Setting(), multiple=True, help="An option of the solver: NAME.OPTION=VALUE.")
@click.pass_context
def check(ctx: click.Context, solver: str, settings: tuple[tuple[str, str, str], ...]) -> None:
    """Examine SOLVER, built in or plugged in: orders, counted evaluations, isolation of runs, reversal.

    Exit code 0 if everything holds, 1 if something does not, 2 if there is no such solver.
    """
    import torch

    from ..experiments.names import build_solver
    from ..options import by_name
    from ..solvers.conformance import examine
    from .screen import show, working

    built = build_solver(solver, by_name(as_options(settings), [solver])[solver])
    torch.set_num_threads(1)  # the tensors are tiny: several threads would only wait for each other
    with working(f"examining {solver}"):
        findings = examine(built)
    rows = [[one.name, one.measured, one.wanted, "yes" if one.passed else "NO"] for one in findings]
    show(f"{solver}: declared order {built.order}", ["examined", "measured", "wanted", "holds"], rows)
    failed = sum(not one.passed for one in findings)
    click.echo(f"{len(findings) - failed} of {len(findings)} hold" + ("" if failed else f": {solver} is what it claims to be"))
    ctx.exit(1 if failed else 0)
