"""One cell of a run once more: is it what it was, and if not, what has changed?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..cases.pictures import to_image
from .bench import Bench
from .cells import Cell, Group, groups
from .compare import Prepared, prepare
from .environment import environment
from .fingerprint import KEYS, NUMERICS, bearing, is_part
from .kept import Kept, find
from .manifest import RUN
from .plan import Comparison
from .records import Finished, Record
from .words import Shard


class Difference(NamedTuple):
    """What was one thing then and is another now."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, repr=False)
class Reproduced:
    """One cell, `name`d ROW/CASE, that was run again. `compared`: what was held against the record; `differences`: where they
    part; `notes`: what the cell depends on and is another now; `surroundings`: what else is different where it runs."""

    name: str
    key: str
    compared: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    surroundings: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether everything that was compared is the same, to the last bit."""
        return not self.differences

    def __repr__(self) -> str:
        lines = [f"{self.name} ({self.key})", *self.notes]
        if self.identical:
            return "\n".join([*lines, f"identical: {self.compared}"])
        lines += ["not identical", *_table(self.differences)]
        if self.surroundings:
            lines += ["what differs where it ran", *_table(self.surroundings)]
        return "\n".join(lines)


def reproduce(run: Path, cell: str | None = None, device: str | None = None) -> Reproduced:
    """Run one cell of a run again, in the batch that it was part of, and compare. Nothing is written.

    cell: its key, ROW/CASE, a beginning of either that no other cell has, or the path of its picture; the first one that came
    out if none is given. device: where, if not where the run's plan says. Raises ValueError, LookupError or OSError, in one
    sentence, if there is no such run or cell, or if what it needs cannot be had.
    """
    kept = find(run, cell)
    if not kept.manifest.loaded:
        raise ValueError(f"the run in {str(run)!r} was given its model as an object, which {RUN} cannot bring back")
    plan = Comparison.read(kept.manifest.comparison)
    if device is not None:
        plan = replace(plan, setup=replace(plan.setup, device=device))
    shard = kept.manifest.shard
    prepared = replace(prepare(plan), shard=None if shard is None else Shard.read(shard))
    again = _found(prepared, kept)
    finished = _run(prepared, kept, again)
    notes = [f"another now: {what}" for what in _changed(prepared, kept, again)]
    path = kept.folder / (kept.record.picture or "")
    if kept.record.picture is not None and not path.is_file():
        notes.append(f"not compared: {kept.record.picture}, which is not there any more")
    compared, differences = _compared(kept.record, finished, path if path.is_file() else None)
    surroundings = tuple(_apart(_flat(kept.session), _flat(environment(prepared.device))))
    return Reproduced(kept.name, kept.record.key, compared, tuple(differences), tuple(notes), surroundings)


def _found(prepared: Prepared, kept: Kept) -> Cell:
    """The cell of that name as the plan gives it now, under whichever key."""
    record = kept.record
    for cell in prepared.mine:
        if (cell.row.name, cell.case.id, cell.seed) == (record.row, record.case, record.seed):
            return cell
    rows = [row.name for row in prepared.rows]
    lost = f"the row {record.row!r}" if record.row not in rows else f"the case {record.case!r} with the seed {record.seed}"
    raise ValueError(f"{kept.name} cannot be run again: what the run was asked for gives no longer {lost}")


def _run(prepared: Prepared, kept: Kept, cell: Cell) -> Finished:
    """The cell, in the batch that it was part of."""
    group = next(group for group in groups(prepared.mine, int(kept.session["batch"])) if cell in group.cells)
    if kept.record.cost is not None:
        group = Group(together(group.cells, cell, kept.record.cost.batch), group.cases)
    bench = Bench(prepared.model, prepared.metrics, kept.record.picture is not None)
    return next(one for one in bench.finish(bench.edit(group)) if one.record.key == cell.key)


def together(cells: Sequence[Cell], cell: Cell, batch: int) -> tuple[Cell, ...]:
    """The `batch` of them that the cell went with, where memory did not do for all: they were halved then."""
    size, place = len(cells), cells.index(cell)
    while len(part := cells[place // size * size :][:size]) > batch:
        size = (size + 1) // 2
    return tuple(part)


def _changed(prepared: Prepared, kept: Kept, cell: Cell) -> Iterator[str]:
    """What the cell and its scores depend on and is another now."""
    then, now, record = kept.manifest.made_of, prepared.made_of, kept.record
    names = bearing(prepared.model, cell.row, cell.case, prepared.metrics.get(cell.row.task, {}).values())
    names += [name for name in then if is_part(name) and name not in now]
    found = [name for name in names if then.get(name) != now.get(name)] if then else []
    for name in found:
        yield f"{name}: {then.get(name)} then, {now.get(name)} now" if name in (KEYS, NUMERICS) else name
    made = (
        ("the editor", record.editor, repr(cell.row.editor)),
        ("the solver", record.solver, repr(cell.row.solver)),
        ("the steps", record.steps, cell.row.steps),
    )
    apart = [f"{what}: {before} then, {after} now" for what, before, after in made if before != after]
    yield from apart
    if record.key != cell.key and not found and not apart:
        yield f"its key, {cell.key}; {RUN} does not tell why"


def _compared(then: Record, finished: Finished, picture: Path | None) -> tuple[str, list[Difference]]:
    """What was held against the record, in words, and where they part. picture: the file that was kept, if there is one."""
    now = finished.record
    if then.error is not None and then.error == now.error:
        return f"it fails again, {now.error}", []
    if then.cost is None or now.cost is None:
        return "the error", [Difference("error", then.error or "none", now.error or "none")]
    names = list(dict.fromkeys((*then.scores, *now.scores)))
    found = [
        *_apart(_texts(then.scores), _texts(now.scores)),
        *_apart(_texts(then.counts), _texts(now.counts)),
        *_apart({"network calls": str(then.cost.calls)}, {"network calls": str(now.cost.calls)}),
        *_apart({"network rows": f"{then.cost.rows:g}"}, {"network rows": f"{now.cost.rows:g}"}),
    ]
    words = [f"{len(names)} scores"] * bool(names) + [f"{now.cost.rows:g} network rows"]
    if picture is not None and finished.picture is not None:
        kept, drawn = Image.open(picture).convert("RGB"), to_image(finished.picture)
        words.append(f"{drawn.width}x{drawn.height} pixels")
        found += _pixels(kept, drawn)
    return ", ".join(words), found


def _pixels(then: Image.Image, now: Image.Image) -> Iterator[Difference]:
    if then.size != now.size:
        yield Difference("pixels", f"{then.width}x{then.height}", f"{now.width}x{now.height}")
        return
    apart = np.abs(np.asarray(then, dtype=int) - np.asarray(now, dtype=int))
    if apart.any():
        share = 100.0 * (apart.max(axis=2) > 0).mean()
        yield Difference("pixels", "as kept", f"up to {apart.max()}/255 away, in {share:.3g} % of them")


def _texts(numbers: Mapping[str, float]) -> dict[str, str]:
    """Numbers in as many digits as tell them apart from all others."""
    return {name: repr(number) for name, number in numbers.items()}


def _apart(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    for name in dict.fromkeys((*then, *now)):
        if then.get(name) != now.get(name):
            yield Difference(name, then.get(name, "none"), now.get(name, "none"))


def _flat(session: Mapping[str, Any]) -> dict[str, str]:
    """What an environment may change in a result, by name."""
    plain = {name: str(session[name]) for name in ("commit", "changes", "device", "threads") if name in session}
    return plain | {name: str(found) for name, found in session.get("versions", {}).items()}


def _table(rows: Sequence[Difference]) -> list[str]:
    """With headings, a line a row."""
    whole = [Difference("", "then", "now"), *rows]
    wide = [max(len(row[column]) for row in whole) for column in range(2)]
    return [f"  {row.what:{wide[0]}}  {row.then:{wide[1]}}  {row.now}".rstrip() for row in whole]
