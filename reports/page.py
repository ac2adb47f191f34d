"""A comparison on paper: its tables, what they say, and the files that a run is read by."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..experiments.compare import Prepared, paths
from ..experiments.results import Results
from ..experiments.summary import Summary
from ..metrics.pixels import is_picture
from . import FILE_WIDTH
from .kinds import kinds_table
from .pictures import grid
from .plots import path_plot, quality_plot
from .reading import reading
from .table import notes, table

if TYPE_CHECKING:
    from pathlib import Path

    from ..experiments.records import Record


@dataclass(frozen=True)
class Page:
    """The tables of a comparison, what their headings and signs mean, and one sentence a task that reads them."""

    tables: Sequence[Table]
    explained: str
    said: str

    @classmethod
    def of(cls, results: Results) -> Page:
        """The page of a run, as far as it has come."""
        summaries = results.summaries
        tables = [shown for one in summaries for shown in (table(one), kinds_table(one)) if shown is not None]
        explained = notes(summaries, on_gpu=results.on_gpu, trained=results.manifest.trained)
        missing = results.manifest.cells - len(results.records)
        if missing:
            explained = f"{len(results.records)} of {results.manifest.cells} cells are done. {explained}"
        return cls(tables, explained, " ".join(filter(None, map(reading, summaries))))

    def text(self) -> str:
        """The whole page, FILE_WIDTH columns wide."""
        file = io.StringIO()
        page = Console(file=file, width=FILE_WIDTH, highlight=False, force_jupyter=False)  # not into a cell
        page.print(*self.tables, sep="\n")
        page.print(self.explained, self.said, sep="\n\n", markup=False)
        return file.getvalue()


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
    folder = results.folders[0]
    yield "records.jsonl"
    yield from summed_up(results, folder)
    if not is_picture(prepared.cases[0].picture):
        path_plot(paths(prepared), folder / "paths.png")
        yield "paths.png"


def summed_up(results: Results, folder: Path) -> Iterable[str]:
    """Write into `folder` what can be drawn from results alone; gives the files' names."""
    (folder / "table.txt").write_text(Page.of(results).text(), encoding="utf-8")
    yield "table.txt"
    if grid(results, folder / "grid.png"):
        yield "grid.png"
    if quality_plot(results.summaries, folder / "quality.png"):
        yield "quality.png"
