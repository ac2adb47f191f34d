"""The grid and the plots are drawn from what a run left behind."""

from __future__ import annotations

from pathlib import Path

import torch
from fe.experiments.folder import RunFolder
from fe.experiments.manifest import Manifest
from fe.experiments.records import Finished, Record, picture_name
from fe.experiments.results import Results, read_results
from fe.experiments.rows import Heading
from fe.reports.pictures import chosen_cases, grid
from fe.reports.plots import path_plot
from PIL import Image

RED, GREEN, BLUE = (torch.tensor(rgb)[:, None, None].expand(3, 16, 16) for rgb in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)))
ROWS = (
    Heading("flowedit+euler-28", "flowedit+euler", "edit", 28, False, False, (0,)),
    Heading("no-edit", "no edit", "edit", 28, True, False, (0,)),
)


def record(number: int, kind: str, row: str = ROWS[0].name) -> Record:
    name = f"scenes/{number}"
    key, picture = f"{row} {number}", picture_name(row, name)
    return Record(key, row, "edit", name, kind, "a red star", "a blue star", "e", "s", 28, 0, picture=picture)


def left_behind(path: Path, pictures: bool) -> Results:
    """A run of two cases, whose control has no picture."""
    records = [record(0, "colour"), record(1, "shape"), record(0, "colour", "no-edit"), record(1, "shape", "no-edit")]
    manifest = Manifest("plan", {}, ROWS, ("scenes/0", "scenes/1"), {"edit": ()}, 4, True, True, "cpu")
    with RunFolder.open(path, manifest) as folder:
        for one in records:
            if pictures:
                folder.keep_original("source", one.case, RED)
                folder.keep_original("truth", one.case, BLUE)
            folder.keep([Finished(one, GREEN if pictures and one.row != "no-edit" else None)])
    (results,) = read_results([path])
    return results


def test_one_case_of_each_kind_comes_first() -> None:
    records = [record(i, kind) for i, kind in enumerate("aaabbc")]
    assert [one.case[-1] for one in chosen_cases(records, 3)] == ["0", "3", "5"]
    assert [one.case[-1] for one in chosen_cases(records, 5)] == ["0", "1", "2", "3", "5"]
    assert len(chosen_cases(records + records, 9)) == 6


def test_the_grid_shows_source_truth_and_results(tmp_path: Path) -> None:
    assert grid(left_behind(tmp_path, pictures=True), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        middles = [image.getpixel((176 + 132 * column + 64, 40 + 132 + 64)) for column in range(4)]
        assert image.size == (176 + 4 * 132, 40 + 2 * 132)
    assert middles == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]  # the control's picture is missing


def test_no_grid_without_pictures(tmp_path: Path) -> None:
    assert not grid(left_behind(tmp_path, pictures=False), tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_paths_are_drawn(tmp_path: Path) -> None:
    states = [torch.randn(5, 2) for _ in range(4)]
    path_plot({"a": states, "b": states}, tmp_path / "paths.png")
    with Image.open(tmp_path / "paths.png") as image:
        assert image.width > 1000
