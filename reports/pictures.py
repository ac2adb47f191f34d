"""A grid of pictures: source, truth and every method's result, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..cases.pictures import put
from ..experiments.records import Record
from ..experiments.results import Results
from ..experiments.rows import Heading

CASES = 6
_TILE, _GAP, _HEAD, _SIDE = 128, 4, 40, 176
_LETTERS = 12
_INK, _PAPER = (0, 0, 0), (255, 255, 255)


def chosen_cases(records: Sequence[Record], count: int = CASES) -> list[Record]:
    """One record for each of up to `count` cases: the first of each kind, then others in their order."""
    cases = list({record.case: record for record in reversed(records)}.values())[::-1]
    first = list({case.kind: case for case in reversed(cases)}.values())
    wanted = [*reversed(first), *(case for case in cases if case not in first)][:count]
    return [case for case in cases if any(case is one for one in wanted)]


def grid(results: Results, path: Path) -> bool:
    """Draw the pictures of a run's edits to a PNG file, a case a line, a row of the comparison a column.

    Returns whether there was anything to draw: a run may have kept no pictures.
    """
    rows = [row for row in results.manifest.rows if row.task == "edit" and not row.of_truth]
    edits = {(record.row, record.case, record.seed): record for record in results.records}
    shown = {row.name for row in rows}
    cases = chosen_cases([record for record in results.records if record.row in shown])
    files: dict[tuple[str, str], Path | None] = {}
    for case in cases:
        for row in rows:
            record = edits.get((row.name, case.case, row.seeds[0]))
            files[row.name, case.case] = None if record is None or not record.picture else results.picture(record.picture)
        for group in ("source", "truth"):
            files[group, case.case] = results.original(group, case.case)
    if not any(files[row.name, case.case] for row in rows for case in cases):
        return False
    truths = [("truth", "truth")] if any(files["truth", case.case] for case in cases) else []
    headings = [("source", "source"), *truths, *((row.name, _heading(row)) for row in rows)]
    step = _TILE + _GAP
    page = Image.new("RGB", (_SIDE + step * len(headings), _HEAD + step * len(cases)), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.font = ImageFont.load_default(_LETTERS)
    for column, (_, heading) in enumerate(headings):
        draw.multiline_text((_SIDE + step * column, 4), heading, fill=_INK)
    for line, case in enumerate(cases):
        top = _HEAD + step * line
        draw.multiline_text((4, top + 4), _caption(case), fill=_INK)
        for column, (name, _) in enumerate(headings):
            _place(page, files[name, case.case], _SIDE + step * column, top)
    put(page, path)
    return True


def _place(page: Image.Image, file: Path | None, left: int, top: int) -> None:
    if file is None:
        return
    with Image.open(file) as picture:
        scale = _TILE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        page.paste(picture.convert("RGB").resize(size, how), (left, top))


def _heading(row: Heading) -> str:
    return row.label if row.control else f"{row.label}\n{row.steps} steps"


def _caption(case: Record, width: int = 26) -> str:
    """What is asked, wrapped: the kind of edit and the target prompt."""
    lines, line = [case.kind] if case.kind else [], ""
    for word in case.target.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
