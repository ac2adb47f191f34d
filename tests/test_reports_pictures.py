"""The grid and the plots are drawn from what a run left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from fe.cases.base import Case
from fe.editors.controls import NoEdit
from fe.experiments.folder import RunFolder
from fe.experiments.plan import Row
from fe.experiments.probe import Spend
from fe.experiments.run import make_cells
from fe.reports.pictures import chosen_cases, grid
from fe.reports.plots import path_plot
from fe.solvers.euler import Euler
from PIL import Image

RED, GREEN, BLUE = (torch.tensor(rgb)[:, None, None].expand(3, 16, 16) for rgb in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)))
ROW = Row("flowedit+euler", "edit", NoEdit(), Euler(), 28, Spend(0, 0, 0), (0,))


def case(number: int, kind: str) -> Case:
    return Case(f"scenes/{number}", RED, "a red star", "a blue star", kind, truth=BLUE)


def test_one_case_of_each_kind_comes_first() -> None:
    cases = [case(i, kind) for i, kind in enumerate("aaabbc")]
    assert [one.id[-1] for one in chosen_cases(cases, 3)] == ["0", "3", "5"]
    assert [one.id[-1] for one in chosen_cases(cases, 5)] == ["0", "1", "2", "3", "5"]
    assert len(chosen_cases(cases, 9)) == 6


def test_the_grid_shows_source_truth_and_results(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    cases = [case(0, "colour"), case(1, "shape")]
    cells = make_cells([ROW, replace(ROW, label="no edit", control=True)], cases, "m", "n")
    for one in cases:
        folder.save_picture("source", one.id, RED)
        folder.save_picture("truth", one.id, BLUE)
        folder.save_picture(ROW.name, one.id, GREEN)
    assert grid(folder, cells, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        middles = [image.getpixel((176 + 132 * column + 64, 40 + 132 + 64)) for column in range(4)]
        assert image.size == (176 + 4 * 132, 40 + 2 * 132)
    assert middles == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]  # the control's picture is missing


def test_no_grid_without_pictures(tmp_path: Path) -> None:
    assert not grid(RunFolder(tmp_path), make_cells([ROW], [case(0, "colour")], "m", "n"), tmp_path / "grid.png")
    assert list(tmp_path.iterdir()) == []


def test_paths_are_drawn(tmp_path: Path) -> None:
    states = [torch.randn(5, 2) for _ in range(4)]
    path_plot({"a": states, "b": states}, tmp_path / "paths.png")
    with Image.open(tmp_path / "paths.png") as image:
        assert image.width > 1000
