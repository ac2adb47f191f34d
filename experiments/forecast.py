"""What a comparison will take, foretold without writing anything: from its plan, and from one batch that is really run."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from torch import Tensor

from ..cases.pictures import to_image
from ..editors.inversion import Inversion
from ..models.preparing import is_compiled
from ..solvers.euler import Euler
from .bench import Bench
from .cells import Cell, Group, groups
from .compare import Prepared
from .folder import RunFolder
from .records import picture_name
from .rows import Row
from .run import Effort, finished

SAMPLE = 8
"""As many sources are written, in memory, to see how large they are."""


@dataclass(frozen=True)
class Measured:
    """What one batch of `cells` of a row took: `seconds` in all, of them `per_row` inside the network for each of its rows, and
    `per_cell` all others for each cell (decoding, scores, writing); bytes of a record, and of a picture as a PNG (0 where none
    is kept)."""

    row: Row
    cells: int
    seconds: float
    per_row: float
    per_cell: float
    record_bytes: float
    picture_bytes: float


@dataclass(frozen=True)
class Load:
    """One row's share: its `cells`, and how many would be run, also those that are run again beside others of their batch."""

    row: Row
    cells: int
    todo: int


@dataclass(frozen=True)
class Forecast:
    """A comparison before it runs, or a shard of one. `done`: how many cells the folder holds already. `original_bytes`: of the
    sources and truths that would be kept. `measured`: a batch of what is left, why it failed, or None where nothing is left.
    The time is shared out among `workers`."""

    loads: tuple[Load, ...]
    done: int
    original_bytes: float
    measured: Measured | str | None
    workers: int = 1

    @property
    def cells(self) -> int:
        """All cells."""
        return sum(load.cells for load in self.loads)

    @property
    def rows(self) -> int:
        """The network rows of all that would be run."""
        return sum(load.todo * load.row.spend.rows for load in self.loads)

    @property
    def seconds(self) -> float | None:
        """That all that would be run takes; None where nothing was measured."""
        if not isinstance(self.measured, Measured):
            return None
        todo = sum(load.todo for load in self.loads)
        return (self.rows * self.measured.per_row + todo * self.measured.per_cell) / self.workers

    @property
    def bytes(self) -> tuple[float, float] | None:
        """Of the records and of the pictures that would be added; None where nothing was measured."""
        if not isinstance(self.measured, Measured):
            return None
        left = self.cells - self.done
        return left * self.measured.record_bytes, left * self.measured.picture_bytes + self.original_bytes


def forecast(prepared: Prepared, out: Path, effort: Effort, overwrite: bool = False) -> Forecast:
    """What it would take to run what the folder `out` does not hold yet. It need not exist, and is left as it is.
    Raises ValueError if it holds another run that is not to be overwritten (see `RunFolder.look`)."""
    bench = Bench(prepared.model, prepared.metrics, effort.pictures)
    held = {} if overwrite else finished(prepared.mine, RunFolder.look(out, prepared.manifest), effort)
    left = [group for group in groups(prepared.mine, effort.batch) if any(cell.key not in held for cell in group.cells)]
    first = next((group for group in left if not group.cells[0].row.control), left[0] if left else None)
    cells = Counter(cell.row.name for cell in prepared.mine)
    todo = Counter(cell.row.name for group in left for cell in group.cells)
    return Forecast(
        loads=tuple(Load(row, cells[row.name], todo[row.name]) for row in prepared.rows),
        done=len(held),
        original_bytes=_original_bytes(left, out, overwrite) if effort.pictures else 0.0,
        measured=None if first is None else measure(bench, first),
        workers=max(1, effort.workers),
    )


def measure(bench: Bench, group: Group) -> Measured | str:
    """Run a batch as the comparison would, but for the writing, which goes to memory; gives the reason if nothing comes out."""
    bench.edit(group if is_compiled(bench.model.network) else _brief(group))  # what the first call alone takes is not counted
    started = time.perf_counter()
    made = bench.finish(bench.edit(group))
    lines = [len(one.record.to_json()) + 1 for one in made]
    pictures = [_png_bytes(one.picture) for one in made if one.picture is not None]
    seconds = time.perf_counter() - started
    costs = [one.record.cost for one in made if one.record.cost is not None]
    if not costs:
        return str(made[0].record.error)
    inside, rows = sum(cost.network_seconds for cost in costs), sum(cost.rows for cost in costs)
    return Measured(
        row=group.cells[0].row,
        cells=len(made),
        seconds=seconds,
        per_row=inside / rows if rows else 0.0,
        per_cell=(seconds - inside) / len(made),
        record_bytes=fmean(lines),
        picture_bytes=fmean(pictures) if pictures else 0.0,
    )


def _brief(group: Group) -> Group:
    """The same cases, one step up and one step back."""

    def brief(cell: Cell) -> Cell:
        return replace(cell, row=replace(cell.row, editor=Inversion.reconstruction(False), solver=Euler(), steps=1))

    return replace(group, cells=tuple(map(brief, group.cells)))


def _original_bytes(left: Sequence[Group], out: Path, overwrite: bool) -> float:
    """Of the sources and truths of those cases that are pictures and not in the folder yet, from the first few of them."""
    cases = {case.id: case for group in left for case in group.cases}
    originals = [
        picture
        for case in cases.values()
        for kind, picture in (("source", case.picture), ("truth", case.truth))
        if picture is not None and case.is_picture and (overwrite or not (out / picture_name(kind, case.id)).exists())
    ]
    sample = [_png_bytes(picture) for picture in originals[:SAMPLE]]
    return fmean(sample) * len(originals) if sample else 0.0


def _png_bytes(picture: Tensor) -> int:
    file = io.BytesIO()
    to_image(picture).save(file, format="PNG")
    return file.tell()
