"""What stands beside our tables where a run follows a protocol: what was assumed, and what others printed, apart from ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..experiments.defaults import defaults_for
from ..experiments.protocols import PROTOCOLS, Protocol
from ..experiments.published import Printed
from ..experiments.results import Results
from .pie_bench import COLUMNS, pie_bench_csv
from .table import put

TITLE = "Published, measured by others: not to be mixed with the rows above"
PIE_BENCH_FILE = "pie-bench.csv"
HOW = frozenset({"path", "device"})
"""Options that say where data is and where networks compute, and nothing of what is measured."""


def beside(results: Results) -> tuple[str | Table, ...]:
    """Text and tables that follow those of a run, in order; nothing if it follows no protocol."""
    comparison = results.manifest.comparison
    name, _, version = comparison.get("protocol", "").rpartition(" version ")
    if not name:
        return ()
    if name not in PROTOCOLS:
        return (f"Protocol {name} version {version}: it is not known here, so nothing can be laid beside these rows.",)
    recipe = PROTOCOLS[name]
    told = [f"Protocol {name} version {version}: {recipe.what} ({recipe.paper})."]
    if version != str(recipe.version):
        told.append(f"What follows is of version {recipe.version}, the one that is known here; the run followed another.")
    if parted := "; ".join(departures(recipe, comparison)):
        told.append(f"This run departs from the protocol: {parted}.")
    told += ["Assumed where the paper and its code are silent:", *(f"- {one}" for one in recipe.assumed)]
    return "\n".join(told), *_published(recipe.printed)


def put_beside(console: Console, parts: Sequence[str | Table]) -> None:
    """Print what stands beside the tables of a run, each part with a line of air above."""
    for part in parts:
        console.print()
        if isinstance(part, Table):
            put(console, [part])
        else:
            console.print(part, markup=False)


def departures(recipe: Protocol, comparison: Mapping[str, Any]) -> Iterator[str]:
    """What of a run, as run.json describes it, is not as the protocol says, a few words each."""
    model, cases, count = comparison["model"], comparison["cases"], comparison["count"]
    if model.partition(":")[0] != recipe.model:
        yield f"the model is {model} and not {recipe.model}"
    if cases != recipe.cases:
        yield f"the cases are {cases} and not {recipe.cases}"
    if tuple(comparison["methods"]) != recipe.methods:
        yield "it has other methods"
    if tuple(comparison["metrics"]) != recipe.metrics:
        yield "it has other metrics"
    if comparison["steps"]:
        yield f"every method takes {' and '.join(map(str, comparison['steps']))} steps"
    if comparison["match_nfe"] is not None:
        yield f"every method takes the steps that {comparison['match_nfe']} evaluations allow"
    usual = defaults_for(recipe.model)
    if cases == recipe.cases and count != (usual.count if usual.cases == cases else None):
        yield f"of the cases it takes {count or 'all'}"
    if list(comparison["seeds"]) != [0]:
        yield f"the seeds are {', '.join(map(str, comparison['seeds']))}"
    yield from _settings(recipe.settings, comparison["settings"])


def _settings(recipe: Mapping[str, Mapping[str, Any]], run: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for owner, options in run.items():
        said = {option.replace("-", "_"): value for option, value in options.items()}
        asked = recipe.get(owner, {})
        for option, value in said.items():
            if option not in HOW and str(value) != str(asked.get(option)):
                yield f"{owner}.{option} is {value}"


def _published(printed: Printed) -> Iterator[str | Table]:
    """The table of what others printed, and below it whose figures these are and what is to be known of them."""
    sources = list(dict.fromkeys(row.source for row in printed.rows))
    if printed.rows:
        shown = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        shown.add_column("method", no_wrap=True)
        for heading in printed.columns:
            shown.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
        shown.add_column("from", justify="right", no_wrap=True)
        for row in printed.rows:
            number = sources.index(row.source) + 1
            last = row is [one for one in printed.rows if one.source == row.source][-1]
            shown.add_row(row.method, *row.figures, f"({number})", end_section=last)
        yield TITLE  # a table folds its title where it is narrower
        yield shown
    told = [f"({number}) {source}" for number, source in enumerate(sources, start=1)]
    told += [f"- {remark}" for remark in printed.remarks]
    if told:
        yield "\n".join(["What others printed:"] * (not sources) + told)


def laid_out(results: Results, folder: Path) -> Iterator[str]:
    """Write into `folder` the file of scores that a protocol has besides, in the layout that others read; gives its name."""
    name = results.manifest.comparison.get("protocol", "").rpartition(" version ")[0]
    layout = PROTOCOLS[name].layout if name in PROTOCOLS else ""
    if layout == "pie-bench" and not COLUMNS.keys().isdisjoint(results.manifest.metrics.get("edit", ())):
        pie_bench_csv(results, folder / PIE_BENCH_FILE)
        yield PIE_BENCH_FILE
