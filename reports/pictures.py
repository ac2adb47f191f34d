"""A grid of pictures: source, truth and every method's result, case by case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from ..cases.pictures import put
from ..experiments.records import Record
from ..experiments.results import Results
from ..experiments.rows import Heading
from .table import stacked

CASES = 6
COLUMNS = 12
"""Pictures side by side; what there are more of goes into further blocks below."""
_TILE, _GAP, _SIDE = 128, 4, 176
_LETTERS, _LINE = 12, 15
_INK, _PAPER = (0, 0, 0), (255, 255, 255)


def chosen_cases(records: Sequence[Record], count: int = CASES) -> list[Record]:
    """One record for each of up to `count` cases: the first of each kind, then others in their order."""
    cases = list({record.case: record for record in reversed(records)}.values())[::-1]
    first = list({case.kind: case for case in reversed(cases)}.values())
    wanted = [*reversed(first), *(case for case in cases if case not in first)][:count]
    return [case for case in cases if any(case is one for one in wanted)]


def grid(results: Results, path: Path) -> bool:
    """Draw the pictures of a run's edits to a PNG file, a case a line, a row of the comparison a column; with many rows in
    several blocks, each of which begins with the sources and truths.

    Returns whether there was anything to draw: a run may have kept no pictures.
    """
    rows = [row for row in results.manifest.rows if row.task == "edit" and not row.of_truth]
    shown = {row.name for row in rows}
    cases = chosen_cases([record for record in results.records if record.row in shown])
    files = _files(results, rows, cases)
    if not any(files[row.name, case.case] for row in rows for case in cases):
        return False
    groups = ["source", *(["truth"] if any(files["truth", case.case] for case in cases) else [])]
    count = math.ceil(len(rows) / (COLUMNS - len(groups)))
    most = math.ceil(len(rows) / count)
    originals = [(group, [group]) for group in groups]
    columns = [(row.name, _heading(row)) for row in rows]
    blocks = [_block([*originals, *columns[i : i + most]], cases, files) for i in range(0, len(columns), most)]
    page = Image.new("RGB", (blocks[0].width, sum(block.height for block in blocks)), _PAPER)
    top = 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height
    put(page, path)
    return True


Files = Mapping[tuple[str, str], Path | None]
"""The picture of a row (or of the group "source" or "truth") for a case."""


def _files(results: Results, rows: Sequence[Heading], cases: Sequence[Record]) -> Files:
    edits = {(record.row, record.case, record.seed): record for record in results.records}
    files: dict[tuple[str, str], Path | None] = {}
    for case in cases:
        for row in rows:
            record = edits.get((row.name, case.case, row.seeds[0]))
            files[row.name, case.case] = None if record is None or not record.picture else results.picture(record.picture)
        for group in ("source", "truth"):
            files[group, case.case] = results.original(group, case.case)
    return files


def _block(columns: Sequence[tuple[str, Sequence[str]]], cases: Sequence[Record], files: Files) -> Image.Image:
    """Those columns, each a name in `files` and the lines of its heading, for all cases."""
    head, step = 10 + _LINE * max(2, *(len(lines) for _, lines in columns)), _TILE + _GAP
    block = Image.new("RGB", (_SIDE + step * len(columns), head + step * len(cases)), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.font = ImageFont.load_default(_LETTERS)
    for place, (_, lines) in enumerate(columns):
        draw.multiline_text((_SIDE + step * place, 4), "\n".join(lines), fill=_INK)
    for line, case in enumerate(cases):
        top = head + step * line
        draw.multiline_text((4, top + 4), _caption(case), fill=_INK)
        for place, (name, _) in enumerate(columns):
            _place(block, files[name, case.case], _SIDE + step * place, top)
    return block


def _place(page: Image.Image, file: Path | None, left: int, top: int) -> None:
    if file is None:
        return
    with Image.open(file) as picture:
        scale = _TILE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        page.paste(picture.convert("RGB").resize(size, how), (left, top))


def _heading(row: Heading) -> list[str]:
    """The row's label and steps in lines that are no wider than a picture."""
    lines = [*stacked(row.label).split("\n"), *([] if row.control else [f"{row.steps} steps"])]
    return [part for line in lines for part in wrap(line.strip(), 20)]


def _caption(case: Record) -> str:
    """What is asked, wrapped: the kind of edit and the target prompt."""
    return "\n".join([*([case.kind] if case.kind else []), *wrap(case.target, 26)])
