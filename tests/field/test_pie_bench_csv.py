"""The file of scores as PIE-Bench's evaluation lays it out, to the letter."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.experiments.compare import carry_out, open_folder, prepare
from fe.experiments.manifest import Manifest
from fe.experiments.plan import Comparison
from fe.experiments.records import Record
from fe.experiments.results import Results
from fe.experiments.rows import Heading
from fe.experiments.words import Method
from fe.metrics.base import Task
from fe.reports.pie_bench import pie_bench_csv
from PIL import Image
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.regression import MeanSquaredError

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


def velocities(folder: Path) -> dict[str, Tensor]:
    """A smooth velocity of its own for every prompt, (3, 512, 512)."""
    entries = json.loads((folder / "mapping_file.json").read_text()).values()
    prompts = {
        entry[name].translate({91: None, 93: None}) for entry in entries for name in ("original_prompt", "editing_prompt")
    }
    coarse = torch.rand(len(prompts), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return dict(zip(sorted(prompts), torch.nn.functional.interpolate(coarse, (512, 512), mode="bilinear") / 4, strict=True))


def unedited(picture: Path, inside: np.ndarray[Any, Any]) -> Tensor:
    values = np.asarray(Image.open(picture)).astype(np.float32) / 255
    return torch.tensor(values * ~inside[:, :, np.newaxis]).permute(2, 0, 1)[None].contiguous()


def region(runs: list[int]) -> np.ndarray[Any, Any]:
    """(512, 512), True where the edit belongs."""
    flat = np.zeros(512 * 512, dtype=bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : min(start + length, 512 * 512)] = True
    inside: np.ndarray[Any, Any] = flat.reshape(512, 512)
    inside[[0, -1]] = inside[:, [0, -1]] = True
    return inside


def test_a_comparison_from_the_data_to_the_file(pie_bench: Path, constant_model: Callable[..., Any], tmp_path: Path) -> None:
    """A run over PIE-Bench's data, and the evaluation of the pictures that it left, by hand and from their files."""
    metrics = ("pie-psnr", "pie-mse", "pie-ssim")
    plan = Comparison(
        methods=(Method("inversion", "euler"),),
        model="constant",
        cases="pie-bench",
        count=None,
        steps=(2,),
        metrics=metrics,
        settings={"pie-bench": {"path": str(pie_bench)}},
    )
    prepared = prepare(plan, constant_model(velocities(pie_bench)))
    with open_folder(prepared, tmp_path / "out", overwrite=False) as opened:
        found = carry_out(prepared, opened, lambda done, total, failed: None)
    pie_bench_csv(found, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))

    listed = json.loads((pie_bench / "mapping_file.json").read_text())
    assert [line["file_id"] for line in lines] == list(listed)
    for line in lines:
        inside = region(listed[line["file_id"]]["mask"])
        for row in (row.name for row in found.manifest.rows if row.task == "edit"):
            scores = [line[f"{row}|{name}"] for name in ("psnr_unedit_part", "mse_unedit_part", "ssim_unedit_part")]
            if inside.all():
                assert scores == ["nan"] * 3
                continue
            edited, source = (found.original(group, line["file_id"]) for group in (row, "source"))
            assert edited is not None
            assert source is not None
            a, b = unedited(source, inside), unedited(edited, inside)
            wanted = [PeakSignalNoiseRatio(data_range=1.0)(a, b).clamp(max=100), MeanSquaredError()(a, b)]
            _, around = StructuralSimilarityIndexMeasure(data_range=1.0, return_full_image=True)(a, b)
            wanted.append(around[..., 5:-5, 5:-5].mean())  # the windows that lie in the picture
            assert [float(score) for score in scores] == pytest.approx(list(map(float, wanted)), rel=1e-5, abs=1e-7)
    method = found.summaries[-1].methods[0]
    assert [(method.scores[name].count, method.scores[name].missing) for name in metrics] == [(5, 1)] * 3
    assert 5 < method.scores["pie-psnr"].mean < 40  # something was edited
