"""SD3 through the command line, and what is foretold of its cost: a guided row is two rows of the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import StableDiffusion3Pipeline
from fe.cases.base import Case
from fe.cli.main import main
from fe.editors.controls import FromNoise
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.experiments.execute import execute
from fe.experiments.names import build_solver
from fe.experiments.probe import probe, steps_within
from fe.models.sd3 import SD3Model
from PIL import Image

Pipelines = Callable[..., StableDiffusion3Pipeline]
SOURCE, TARGET = "a large red star at the left", "a large red heart at the left"
PUBLISHED = FlowEdit(n_max=33, source_guidance=3.5, target_guidance=13.5)


@pytest.mark.parametrize("kind", ["", "sd3:"])
def test_a_folder_is_edited_by_its_path_alone_or_with_its_kind(
    kind: str, tiny_sd3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    words = ["photo.png", "--source", SOURCE, "--target", TARGET, "--steps", "7", "--device", "cpu"]
    guidance = ["--set", "flowedit.source_guidance=2", "--set", "flowedit.target_guidance=5"]
    done = CliRunner().invoke(main, ["edit", *words, *guidance, "--model", f"{kind}{tiny_sd3_folder}"])
    assert done.exit_code == 0, done.output
    assert "6 calls, 24 rows" in done.stdout  # 24 of 28 steps, and four rows in each
    with Image.open("results/edit/photo.flowedit-euler-7.source_guidance=2.target_guidance=5.png") as result:
        assert result.size == (24, 16)


def test_a_flux_folder_is_not_read_as_sd3(tiny_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["generate", "--prompt", "a red star", "--model", f"sd3:{tiny_folder}", "--device", "cpu"])
    assert done.exit_code == 2
    assert "is of class 'FluxPipeline', which this adapter cannot drive; it needs 'StableDiffusion3Pipeline'" in done.stderr


@pytest.mark.parametrize(
    ("editor", "solver", "steps", "calls", "rows"),
    [
        (PUBLISHED, "euler", 50, 33, 132),
        (replace(PUBLISHED, n_max=31, n_min=15), "euler", 50, 31, 16 * 4 + 15 * 2),
        (replace(PUBLISHED, n_max=4, source_guidance=1.0, target_guidance=1.0), "euler", 5, 4, 4 * 2),
        (replace(PUBLISHED, n_max=4, source_guidance=1.0), "midpoint", 5, 8, 8 * 3),
        (FromNoise(5.0), "euler", 5, 5, 5 * 2),
        (Injection(inject=2, target_guidance=5.0), "midpoint", 4, 16, 8 + 8 * 2),
        (Injection(inject=2, target_guidance=5.0, memory="in-batch"), "midpoint", 4, 16, 8 + 8 * 2 + 2 * 2),
    ],
)
def test_the_dry_run_counts_rows_as_the_run_does(
    editor: FlowEdit, solver: str, steps: int, calls: int, rows: int, tiny_sd3: Pipelines
) -> None:
    model = SD3Model(tiny_sd3(dual=True))
    foretold = probe(editor, build_solver(solver), steps, model, (SOURCE, TARGET))
    assert (foretold.calls, foretold.rows) == (calls, rows)
    cost = execute(model, editor, build_solver(solver), steps, [Case("x", torch.rand(3, 8, 8), SOURCE, TARGET)], 0).cost
    assert (cost.calls, cost.rows) == (calls, rows)


@pytest.mark.parametrize(("target", "steps"), [(5.0, 14), (1.0, 19)])  # 12 pairs of 4 rows, or 16 of 3
def test_a_budget_is_spent_in_rows(target: float, steps: int, tiny_sd3: Pipelines) -> None:
    model, editor = SD3Model(tiny_sd3()), FlowEdit(source_guidance=2.0, target_guidance=target)

    def spend(count: int) -> int:
        return int(probe(editor, build_solver("euler"), count, model, (SOURCE, TARGET)).rows)

    assert steps_within(48, spend) == steps
    assert spend(steps) <= 48 < spend(steps + 1)


def test_match_nfe_counts_the_rows_of_guidance(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    words = f"compare --model {tiny_sd3_folder} --cases scenes:1 --match-nfe 48 --device cpu --out {tmp_path / 'out'}"
    methods = ["--methods", "flowedit+euler,inversion+euler"]
    settings = []
    for option in ("flowedit.source_guidance=2", "flowedit.target_guidance=5", "inversion.target_guidance=5"):
        settings += ["--set", option]
    done = CliRunner().invoke(main, [*words.split(), *methods, *settings])
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    spent = {record["row"]: record["cost"]["rows"] for record in records if record["steps"] > 1}
    # 12 pairs of 4 rows; a row up and 2 down; a row either way
    expected = {"flowedit+euler-14": 48, "inversion+euler-16": 48, "reconstruct-euler-24": 48}
    assert {name: rows for name, rows in spent.items() if name in expected} == expected
