"""A grid of pictures: source, truth and every method's result, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..cases.base import Case
from ..cases.pictures import put
from ..experiments.folder import RunFolder
from ..experiments.run import Cell

CASES = 6
_TILE, _GAP, _HEAD, _SIDE = 128, 4, 40, 176
_LETTERS = 12
_INK, _PAPER = (0, 0, 0), (255, 255, 255)


def chosen_cases(cases: Sequence[Case], count: int = CASES) -> list[Case]:
    """Up to `count` cases: the first of each kind, then others in their order."""
    first = list({case.kind: case for case in reversed(cases)}.values())
    wanted = [*reversed(first), *(case for case in cases if case not in first)][:count]
    return [case for case in cases if any(case is one for one in wanted)]


def grid(folder: RunFolder, cells: Sequence[Cell], path: Path) -> bool:
    """Draw the pictures of a run's edits to a PNG file, a case a line, a row of the comparison a column.

    Returns whether there was anything to draw: a run may have kept no pictures.
    """
    edits = [cell for cell in cells if cell.row.task == "edit" and not cell.row.of_truth and cell.seed == cell.row.seeds[0]]
    columns = list(dict.fromkeys((cell.row.name, _heading(cell)) for cell in edits))
    files = {(cell.row.name, cell.case.id): folder.picture(cell.row.name, cell.picture) for cell in edits}
    cases = chosen_cases(list({cell.case.id: cell.case for cell in edits}.values()))
    headings = [
        ("source", "source"),
        *([("truth", "truth")] if any(case.truth is not None for case in cases) else []),
        *columns,
    ]
    for case in cases:
        for group in ("source", "truth"):
            files[group, case.id] = folder.picture(group, case.id)
    if not any(files[name, case.id].exists() for name, _ in columns for case in cases):
        return False
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
            _place(page, files[name, case.id], _SIDE + step * column, top)
    put(page, path)
    return True


def _place(page: Image.Image, file: Path, left: int, top: int) -> None:
    if not file.exists():
        return
    with Image.open(file) as picture:
        scale = _TILE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        page.paste(picture.convert("RGB").resize(size, how), (left, top))


def _heading(cell: Cell) -> str:
    return cell.row.label if cell.row.control else f"{cell.row.label}\n{cell.row.steps} steps"


def _caption(case: Case, width: int = 26) -> str:
    """What is asked, wrapped: the kind of edit and the target prompt."""
    lines, line = [case.kind] if case.kind else [], ""
    for word in case.target.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
