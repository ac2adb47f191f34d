"""The cells of a comparison, how they go through the model together, and how they are shared out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..cases.base import Case
from .fingerprint import cell_key, hash_case
from .records import picture_name
from .rows import Row
from .words import Shard


@dataclass(frozen=True)
class Cell:
    """One case through one row with one seed. `key` is the identity of its result, `picture` the name of its picture among
    those of its row."""

    key: str
    row: Row
    case: Case
    seed: int
    picture: str


def make_cells(
    rows: Iterable[Row], cases: Sequence[Case], model: str, numerics: str, hashes: Mapping[str, str] | None = None
) -> list[Cell]:
    """All cells of a comparison. model: the hash of the model. numerics: what else the numbers depend on (dtype, device).
    hashes: of the cases by their ids, where they are known already: it takes a look at every picture.
    Raises ValueError if two cases have the same id, or ids whose pictures would be one file."""
    check_ids(case.id for case in cases)
    hashes = {case.id: hash_case(case) for case in cases} if hashes is None else hashes
    cells = []
    for row in rows:
        for case in (case for case in cases if not row.of_truth or case.truth is not None):
            for seed in row.seeds:
                key = cell_key(row, hashes[case.id], seed, model, numerics)
                cells.append(Cell(key, row, case, seed, case.id if len(row.seeds) == 1 else f"{case.id}-seed{seed}"))
    return cells


def check_ids(ids: Iterable[str]) -> None:
    """Raise ValueError if two cases have the same id, or ids whose pictures would be one file."""
    files: dict[str, str] = {}
    for name in ids:
        file = picture_name("source", name)
        if file in files:
            raise ValueError(
                f"the cases {files[file]!r} and {name!r} would have their pictures in one file; rename one of them"
            )
        files[file] = name


@dataclass(frozen=True)
class Group:
    """Cells of one row and one seed that go through the model as one batch; `cases` are all those of the batch that they
    belong to, whose pictures are encoded together, once for every row."""

    cells: tuple[Cell, ...]
    cases: tuple[Case, ...]


def groups(cells: Sequence[Cell], size: int) -> Iterator[Group]:
    """The cells in batches of up to `size` cases of one shape: all rows meet a batch before the next one begins, so that a run
    that is cut short holds every row for the cases it came to. The same for the same cells, however many of them are done:
    a batch that was cut short is run again whole, so that its numbers are those of a run that was not, to the last bit."""
    by_shape: dict[tuple[int, ...], dict[str, list[Cell]]] = {}
    for cell in cells:
        by_shape.setdefault(cell.case.shape, {}).setdefault(cell.case.id, []).append(cell)
    for by_case in by_shape.values():
        cases = list(by_case.values())
        for first in range(0, len(cases), size):
            yield from _of_batch(cases[first : first + size])


def _of_batch(by_case: Sequence[Sequence[Cell]]) -> Iterator[Group]:
    cases = tuple(cells[0].case for cells in by_case)
    by_row: dict[tuple[str, int], list[Cell]] = {}
    for cell in (cell for cells in by_case for cell in cells):
        by_row.setdefault((cell.row.name, cell.seed), []).append(cell)
    for together in by_row.values():
        yield Group(tuple(together), cases)


def part(cells: Sequence[Cell], shard: Shard) -> list[Cell]:
    """The cells of every N-th case: all rows and seeds of a case stay together.
    Raises ValueError if there are fewer cases than shards."""
    cases = list(dict.fromkeys(cell.case.id for cell in cells))
    if len(cases) < shard.of:
        raise ValueError(f"{len(cases)} cases cannot be shared out among {shard.of} shards; use at most {len(cases)}")
    mine = set(cases[shard.number - 1 :: shard.of])
    return [cell for cell in cells if cell.case.id in mine]
