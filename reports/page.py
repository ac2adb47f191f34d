"""A comparison on paper: its tables, what they say, and the files that a run is read by."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..experiments.results import Results
from ..experiments.summary import Summary
from . import FILE_WIDTH
from .frontier import Frontier, frontier_plot, trends_table
from .kinds import kinds_table
from .orders import orders_table
from .pictures import grid
from .plots import path_plot, quality_plot
from .protocol import beside, laid_out, put_beside
from .reading import reading
from .table import notes, put, table

if TYPE_CHECKING:
    from pathlib import Path

    from ..experiments.compare import Prepared
    from ..experiments.records import Record

REASONS = 5
"""Reasons of failed cells that are told, the most frequent first."""
SHARDS = 8
"""Missing shards that are told by name."""


@dataclass(frozen=True)
class Page:
    """The tables of a comparison, what their headings and signs mean, what is missing from them (empty where nothing is: a
    run that is not finished, cells that failed, metrics that are not at hand), and one sentence a task that reads them.
    `beside`: text and tables of the protocol that the run follows, if any, which stand apart from ours."""

    tables: Sequence[Table]
    explained: str
    missing: str
    said: str
    beside: Sequence[str | Table] = ()

    @classmethod
    def of(cls, results: Results) -> Page:
        """The page of a run, as far as it has come."""
        summaries = results.summaries
        tables = [shown for one in summaries for shown in (table(one), kinds_table(one)) if shown is not None]
        explained = notes(summaries, on_gpu=results.on_gpu, trained=results.manifest.trained)
        missing = "\n".join([*_unfinished(results), *_failed(results), *_left_out(results)])
        more = [shown for shown in (orders_table(results), trends_table(results)) if shown is not None]
        frontiers = [found.sentence() for one in summaries if (found := Frontier.of(one)) is not None]
        said = " ".join([*filter(None, map(reading, summaries)), *frontiers])
        return cls([*tables, *more], explained, missing, said, beside(results))

    def text(self) -> str:
        """The whole page, FILE_WIDTH columns wide."""
        file = io.StringIO()
        page = Console(file=file, width=FILE_WIDTH, highlight=False, force_jupyter=False)  # not into a cell
        put(page, self.tables)
        page.print(self.explained, markup=False)
        if self.missing:
            page.print(f"\n{self.missing}", markup=False, soft_wrap=True)  # it may hold commands to be copied
        if self.said:
            page.print(f"\n{self.said}", markup=False)
        put_beside(page, self.beside)
        return file.getvalue()


def _unfinished(results: Results) -> Iterator[str]:
    done, cells, absent = len(results.records), results.manifest.cells, results.missing
    if done == cells:
        return
    if not absent:
        yield f"{done} of {cells} cells are done; the same fe compare goes on from there."
    elif len(absent) <= SHARDS:
        many = "shard" if len(absent) == 1 else "shards"
        yield f"{done} of {cells} cells are done; missing: {many} {', '.join(map(str, absent))}."
    else:
        yield f"{done} of {cells} cells are done; missing: {len(absent)} of {absent[0].of} shards."


def _failed(results: Results) -> Iterator[str]:
    """How many cells failed, and each distinct reason once, with a cell that it befell."""
    failures = results.failures
    if not failures:
        return
    many = "1 cell failed" if len(failures) == 1 else f"{len(failures)} cells failed"
    yield f"{many}; the same fe compare with --retry-failed runs {'it' if len(failures) == 1 else 'them'} again:"
    by_reason: dict[str, list[Record]] = {}
    for record in failures:
        by_reason.setdefault(" ".join((record.error or "").split()), []).append(record)
    often = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    for reason, records in often[:REASONS]:
        yield f"  {len(records)} x {reason} (first: {records[0].case} in {records[0].row})"
    rest = len(often) - REASONS
    if rest > 0:
        yield f"  and {rest} more {'reason' if rest == 1 else 'reasons'}; records.jsonl has them all"


def _left_out(results: Results) -> Iterator[str]:
    for reason in results.left_out.values():
        yield f"A column is left out: {reason}."
    for name, reason in {**results.manifest.absent, **results.unset}.items():
        yield f"The column of {name} is empty: {reason}"  # no full stop, as it may end with a command to be copied
    for name in results.sets_to_come:
        yield f"There is no column of {name} yet, which looks at all pictures of a row together: fe report makes it."


@dataclass(frozen=True, eq=False, repr=False)
class Compared:
    """What came of a comparison: a summary for each task, a record for each cell that came out, the folder with both and with
    the pictures, how many cells failed and why, what was left out, and the tables as text, which is how it shows itself."""

    summaries: tuple[Summary, ...]
    records: tuple[Record, ...]
    folder: Path
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    text: str

    def __repr__(self) -> str:
        return "\n".join([*self.notes, self.text.rstrip(), f"{self.folder}"])


def compared(prepared: Prepared, results: Results, faults: Sequence[str]) -> Compared:
    """A finished comparison, its files written."""
    files = ", ".join(written(prepared, results))
    return Compared(
        summaries=tuple(results.summaries),
        records=tuple(record for record in results.records if record.error is None),
        folder=results.folders[0],
        failures=tuple(map(str, results.failures)),
        notes=(*(f"left out: {fault}" for fault in faults), f"written: {files}"),
        text=Page.of(results).text(),
    )


def written(prepared: Prepared, results: Results) -> Iterable[str]:
    """Write the files that a run is read by, beside its records; gives their names."""
    from ..experiments.compare import paths  # brings all that runs a comparison, which a report needs nothing of

    folder = results.folders[0]
    yield "records.jsonl"
    yield from summed_up(results, folder)
    if not prepared.cases[0].is_picture and (walked := paths(prepared, results)):
        path_plot(walked, folder / "paths.png")
        yield "paths.png"


def summed_up(results: Results, folder: Path) -> Iterable[str]:
    """Write into `folder` what can be drawn from results alone; gives the files' names."""
    (folder / "table.txt").write_text(Page.of(results).text(), encoding="utf-8")
    yield "table.txt"
    yield from laid_out(results, folder)
    if grid(results, folder / "grid.png"):
        yield "grid.png"
    if quality_plot(results.summaries, folder / "quality.png"):
        yield "quality.png"
    if frontier_plot(results.summaries, folder / "frontier.png"):
        yield "frontier.png"
