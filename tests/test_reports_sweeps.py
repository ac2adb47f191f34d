"""Sweeps have many rows with long names: tables, plots and grids stay readable."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import pytest
import torch
from fe.experiments.folder import RunFolder
from fe.experiments.manifest import Manifest
from fe.experiments.names import build_metric
from fe.experiments.records import Finished, Record, Share, picture_name
from fe.experiments.results import Results, read_results
from fe.experiments.rows import Heading
from fe.experiments.summary import summarise
from fe.reports import plots
from fe.reports.kinds import kinds_table
from fe.reports.page import Page, summed_up
from fe.reports.pictures import COLUMNS
from fe.reports.table import put, stacked
from PIL import Image
from rich.console import Console

POINTS = tuple(product((19, 21, 23, 25), (5.5, 9.5, 13.5)))
GREY = torch.full((3, 8, 8), 0.5)


def heading(n_max: int, guidance: float, steps: int = 28) -> Heading:
    label = f"flowedit+euler n_max={n_max} target_guidance={guidance}"
    return Heading(f"{label.replace(' ', '-')}-{steps}", label, "edit", steps, False, False, (0,))


def swept(path: Path, rows: tuple[Heading, ...], kinds: tuple[str, ...] = ("",)) -> Results:
    """A run of those rows, whose costs and scores follow from their place."""
    cases = tuple(f"case-{number}" for number in range(2 * len(kinds)))
    metrics = ("truth-psnr", "changed", "kept", "source-ssim")
    manifest = Manifest("plan", {}, rows, cases, {"edit": metrics}, len(rows) * len(cases), True, True, "cpu")
    with RunFolder.open(path, manifest) as folder:
        for (place, row), (number, case) in product(enumerate(rows), enumerate(cases)):
            scores = {"truth-psnr": 22.0 + place + number, "changed": 1.0, "kept": 1.0, "source-ssim": 0.9 - 0.01 * number}
            what = (row.name, "edit", case, kinds[number % len(kinds)], "a", "b", "e", "s", row.steps, 0)
            cost = Share(1, 20, 38.0 + 4 * (place // 3), 0.5, 0.4, 2**30)
            record = Record(f"{row.name} {case}", *what, cost, scores, picture=picture_name(row.name, case))
            folder.keep_original("source", case, GREY)
            folder.keep([Finished(record, GREY)])
    (results,) = read_results([path])
    return results


def test_options_stand_under_their_method() -> None:
    assert stacked("flowedit+euler n_max=19 target_guidance=5.5") == "flowedit+euler\n  n_max=19\n  target_guidance=5.5"
    assert stacked("alf, state carried") == "alf, state carried"
    assert stacked("alf, state carried eta=0.5") == "alf, state carried\n  eta=0.5"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_of_a_sweep_are_whole(width: int, tmp_path: Path) -> None:
    results = swept(tmp_path, tuple(heading(*point) for point in POINTS), ("colour", "shape", "size", "position"))
    file = io.StringIO()
    put(Console(width=width, file=file, highlight=False), Page.of(results).tables)
    lines = file.getvalue().splitlines()
    assert "…" not in file.getvalue()
    assert max(map(len, lines)) <= width
    assert (
        sum(line.strip().startswith("flowedit+euler") for line in lines) == 2 * len(POINTS) + 2
    )  # kind by kind too; and two trends
    assert sum("target_guidance=13.5" in line for line in lines) == 2 * 4


def test_a_plot_joins_the_points_of_one_option(tmp_path: Path) -> None:
    (summary,) = swept(tmp_path / "grid", tuple(heading(*point) for point in POINTS)).summaries
    joined = plots._joined(summary, "truth-psnr")
    assert list(joined) == [f"flowedit+euler target_guidance={guidance} over n_max" for guidance in (5.5, 9.5, 13.5)]
    assert [[line.nfe for line in lines] for lines in joined.values()] == [[38.0, 42.0, 46.0, 50.0]] * 3
    assert [line.scores["truth-psnr"].mean for line in joined["flowedit+euler target_guidance=9.5 over n_max"]] == [
        22.0 + place + 0.5 for place in (1, 4, 7, 10)
    ]
    rows = tuple(heading(n_max, 5.5, steps) for steps in (8, 28) for n_max in (3, 6))
    (summary,) = swept(tmp_path / "steps", rows).summaries
    assert {label: len(lines) for label, lines in plots._joined(summary, "truth-psnr").items()} == {
        "flowedit+euler n_max=3 target_guidance=5.5": 2,  # over the steps
        "flowedit+euler n_max=6 target_guidance=5.5": 2,
    }


def test_a_grid_goes_on_below_where_there_are_many_rows(tmp_path: Path) -> None:
    results = swept(tmp_path, tuple(heading(*point) for point in POINTS))
    assert {"grid.png", "quality.png", "frontier.png", "table.txt"} == set(summed_up(results, tmp_path))
    with Image.open(tmp_path / "grid.png") as page:
        assert page.width == 176 + 132 * (1 + 6)  # source, and twelve rows in two blocks
        head = 10 + 15 * 4  # method, two options, steps
        assert page.height == 2 * (head + 2 * 132)
        centres = [(176 + 132 * column + 64, top + 64) for column in range(7) for top in (head, 2 * head + 2 * 132)]
        assert {page.getpixel(centre) for centre in centres} == {(128, 128, 128)}
    assert COLUMNS == 12


def test_without_shares_kinds_stand_apart_by_change_and_preservation() -> None:
    metrics = {name: build_metric(name) for name in ("clip-t", "source-psnr", "lpips")}
    rows = [Heading(name, name, "edit", 28, False, False, (0,)) for name in ("far", "near")]
    scores = {"clip-t": 0.25, "source-psnr": 20.0, "lpips": 0.125}
    found = [
        Record(f"{row.name}{i}", row.name, "edit", f"{i}", ("style", "object")[i % 2], "a", "b", "e", "s", 28, 0, scores=scores)
        for row in rows
        for i in range(6)
    ]
    shown, file = kinds_table(summarise("edit", rows, found, metrics)), io.StringIO()
    assert shown is not None
    Console(width=100, file=file, highlight=False).print(shown)
    said = " ".join(file.getvalue().split())
    assert said.startswith("Kind by kind: CLIP-T / LPIPS style object")
    assert said.count("0.250 ±0.000") == said.count("0.125 ±0.000") == 4
    assert "20.0" not in said
