"""The table of observed orders."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from ..experiments.orders import orders
from ..experiments.results import Results
from ..experiments.statistics import Estimate
from .table import stacked


def orders_table(results: Results) -> Table | None:
    """How fast each method's round trip falls from one number of steps to the next; None where steps do not vary."""
    found = orders(results.manifest.rows, results.records)
    if not found:
        return None
    pairs = sorted({pair for one in found for pair in one.slopes})
    table = Table(
        title="Observed order: slope of the latents' round-trip error (root of latent MSE) between two numbers of steps",
        title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column("method", no_wrap=True)
    for fewer, more in pairs:
        table.add_column(f"{fewer} to {more}", overflow="fold")
    for one in found:
        table.add_row(stacked(one.method), *(_cell(one.slopes.get(pair)) for pair in pairs))
    return table


def _cell(slope: Estimate | None) -> str:
    if slope is None or slope.count == 0:
        return ""
    return f"{slope.mean:.2f}" + ("" if slope.count == 1 else f" ±{slope.half:.2f}")
