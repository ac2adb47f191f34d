"""A comparison on paper: its tables, what they say, and the files that a run is read by."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..experiments.compare import Prepared, paths
from ..experiments.folder import RunFolder
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
    def of(cls, prepared: Prepared, summaries: Sequence[Summary]) -> Page:
        """The page of a run that came out."""
        tables = [shown for one in summaries for shown in (table(one), kinds_table(one)) if shown is not None]
        explained = notes(summaries, on_gpu=prepared.on_gpu, trained=prepared.model.trained)
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


def compared(prepared: Prepared, folder: RunFolder, summaries: Sequence[Summary], faults: Sequence[str]) -> Compared:
    """A finished comparison, its files written."""
    files = ", ".join(written(prepared, folder, summaries))
    records = folder.done({cell.key for cell in prepared.cells})
    return Compared(
        summaries=tuple(summaries),
        records=tuple(records.values()),
        folder=folder.path,
        failures=tuple(folder.failures()) if any(line.failed for one in summaries for line in one.lines) else (),
        notes=(*(f"left out: {fault}" for fault in faults), f"written: {files}"),
        text=Page.of(prepared, summaries).text(),
    )


def written(prepared: Prepared, folder: RunFolder, summaries: Sequence[Summary]) -> Iterable[str]:
    """Write the files that a run is read by, beside its records; gives their names."""
    (folder.path / "table.txt").write_text(Page.of(prepared, summaries).text(), encoding="utf-8")
    yield from ("records.jsonl", "table.txt")
    if grid(folder, prepared.cells, folder.path / "grid.png"):
        yield "grid.png"
    if quality_plot(summaries, folder.path / "quality.png"):
        yield "quality.png"
    if not is_picture(prepared.cases[0].picture):
        path_plot(paths(prepared), folder.path / "paths.png")
        yield "paths.png"
