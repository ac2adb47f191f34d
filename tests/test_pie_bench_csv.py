"""The file of scores as PIE-Bench's evaluation lays it out, to the letter."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from fe.experiments.manifest import Manifest
from fe.experiments.records import Record
from fe.experiments.results import Results
from fe.experiments.rows import Heading
from fe.metrics.base import Task
from fe.reports.pie_bench import pie_bench_csv

EVALUATIONS_OWN = (
    "structure_distance",
    "psnr_unedit_part",
    "lpips_unedit_part",
    "mse_unedit_part",
    "ssim_unedit_part",
    "clip_similarity_source_image",
    "clip_similarity_target_image",
    "clip_similarity_target_image_edit_part",
)
"""The metrics that evaluation/evaluate.py computes by default, in its order."""
OURS = (
    "pie-clip-edited",
    "pie-clip-whole",
    "pie-clip-source",
    "pie-ssim",
    "pie-mse",
    "pie-lpips",
    "pie-psnr",
    "pie-structure",
)


def heading(name: str, seeds: tuple[int, ...] = (0,), task: Task = "edit") -> Heading:
    return Heading(name, name, task, 8, control=False, of_truth=False, seeds=seeds)


def record(case: str, row: str, scores: dict[str, float], seed: int = 0) -> Record:
    """Of a cell that failed, where it has no scores."""
    error = None if scores else "it failed"
    return Record(f"{case}{row}{seed}", row, "edit", case, "", "", "", "", "", 8, seed, scores=scores, error=error)


def results(rows: tuple[Heading, ...], cases: tuple[str, ...], names: tuple[str, ...], *records: Record) -> Results:
    manifest = Manifest("", {}, rows, cases, {"edit": names, "reconstruct": ("psnr",)}, 0, True, True, "cpu")
    return Results(manifest, (), (), records)


def test_the_file_to_the_letter(tmp_path: Path) -> None:
    """Metrics in the evaluation's order whatever ours is, rows in the order of the list, no means; what is undefined is nan,
    what is not there is blank; numbers with all their digits."""
    path = tmp_path / "evaluation_result.csv"
    found = results(
        (heading("euler", task="reconstruct"), heading("b"), heading("a")),
        ("911000000000", "000000000000", "111000000000"),
        ("changed", "pie-mse", "pie-psnr"),
        record("000000000000", "b", {"pie-psnr": 1 / 3, "pie-mse": 1e-05, "changed": 1.0}),
        record("911000000000", "b", {"pie-psnr": math.nan, "pie-mse": math.nan}),
        record("000000000000", "a", {"pie-psnr": 100.0, "pie-mse": 0.0}),
        record("911000000000", "a", {}),
        record("111000000000", "b", {"pie-psnr": 22.456789012345, "pie-mse": 0.003286}),
    )
    pie_bench_csv(found, path)
    assert path.read_bytes() == (
        b"file_id,b|psnr_unedit_part,b|mse_unedit_part,a|psnr_unedit_part,a|mse_unedit_part\r\n"
        b"911000000000,nan,nan,,\r\n"
        b"000000000000,0.3333333333333333,1e-05,100.0,0.0\r\n"
        b"111000000000,22.456789012345,0.003286,,\r\n"
    )


def test_all_its_metrics_have_its_names(tmp_path: Path) -> None:
    """Every score comes under its own name: OURS has the reverse order, and a score is its place there."""
    scores = {name: float(place) for place, name in enumerate(OURS)}
    path = tmp_path / "scores.csv"
    pie_bench_csv(results((heading("flowedit-28"),), ("1",), OURS, record("1", "flowedit-28", scores)), path)
    with path.open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["file_id", *(f"flowedit-28|{name}" for name in EVALUATIONS_OWN)]
    assert [float(score) for score in row[1:]] == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_score_is_the_mean_over_seeds(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    both = (record("1", "a", {"pie-psnr": 20.0}), record("1", "a", {"pie-psnr": 23.0}, seed=1))
    pie_bench_csv(results((heading("a", seeds=(0, 1)),), ("1",), ("pie-psnr",), *both), path)
    assert path.read_text().splitlines()[1] == "1,21.5"


def test_a_run_without_its_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of PIE-Bench's metrics; ask for pie-structure, pie-psnr, "):
        pie_bench_csv(results((heading("a"),), ("1",), ("psnr",)), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []
