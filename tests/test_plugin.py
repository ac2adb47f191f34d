"""A plug-in as its author would ship it: installed by pip, found by name in a fresh interpreter, beside one that is broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).parent / "plugin"

PROBE = """
import json, torch
torch.set_num_threads(1)
import fe
from fe.experiments.names import build_solver
from fe.registry import RegistryError
from fe.solvers.conformance import examine

ralston = build_solver("ralston")
walked = fe.integrate(ralston, lambda tick, x: -x, torch.ones(1, dtype=torch.float64), fe.TimeGrid((1.0, 0.5)))
try:
    fe.SOLVERS["broken"]
    fault = ""
except RegistryError as error:
    fault = str(error)
print(json.dumps({
    "names": list(fe.SOLVERS),
    "origin": fe.SOLVERS.origin("ralston"),
    "failed": [finding.name for finding in examine(ralston) if not finding.passed],
    "walked": walked.x.item(),
    "fault": fault,
    "euler": fe.SOLVERS["euler"].__name__,
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the plug-in (installed by pip) and a broken one."""
    folder = tmp_path_factory.mktemp("plugin")
    source, site = folder / "source", folder / "site"
    shutil.copytree(SOURCE, source)  # setuptools builds in the source folder
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(source)], check=True, capture_output=True, text=True)
    broken = site / "fe_broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: fe-broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[fe.solvers]\nbroken = fe_broken:Broken\n")
    (site / "fe_broken.py").write_text("import a_module_that_nobody_has\n")
    return site


def python(site: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that has these packages on its path."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], env=environment, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def report(site: Path) -> dict[str, Any]:
    """What a fresh interpreter says of the solvers."""
    done = python(site, "-c", PROBE)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_installed_plugin_is_listed_with_its_distribution(report: dict[str, Any]) -> None:
    assert "ralston" in report["names"]
    assert report["origin"] == "fe-solver-ralston"


def test_installed_plugin_passes_the_examination(report: dict[str, Any]) -> None:
    assert report["failed"] == []


def test_installed_plugin_walks(report: dict[str, Any]) -> None:
    assert report["walked"] == pytest.approx(1 + 0.5 + 0.5**2 / 2, rel=1e-14)  # exp(1/2) to second order


def test_broken_plugin_is_named_and_the_rest_goes_on(report: dict[str, Any]) -> None:
    assert "broken" in report["names"]
    assert "'broken' of fe-broken (fe_broken:Broken) failed to import" in report["fault"]
    assert "a_module_that_nobody_has" in report["fault"]
    assert report["euler"] == "Euler"


FE = ("-c", "from fe.cli.main import main; main()")


def test_an_installed_data_set_and_metrics_of_both_kinds_are_compared_with(
    site: Path, tmp_path: Path, tiny_scenes: str
) -> None:
    """The metric whose weights are not here leaves its column empty, and what would fetch them is told; the others score."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stripes.txt").write_text("0.25\n0.5\n")
    words = ("--model", tiny_scenes, "--cases", "stripes:data", "--editors", "no-edit", "--solvers", "euler", "--steps", "1")
    metrics = ("--metrics", "warmth,colour-distance", "--set", "colour-distance.against=source", "--device", "cpu")
    first = python(site, *FE, "compare", *words, *metrics, "--out", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "echo 1 0 -1 > warmth.txt" in first.stdout + first.stderr
    (tmp_path / "warmth.txt").write_text("1 0 -1\n")
    again = python(site, *FE, "compare", *words, *metrics, "--set", "warmth.times=2", "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr

    for run, known in (("first", False), ("again", True)):
        records = [json.loads(line) for line in (tmp_path / run / "records.jsonl").read_text().splitlines()]
        assert all(("warmth" in record["scores"]) is known for record in records), run
    drawn = [record for record in records if record["row"].startswith("from-noise")]
    change = [colours(tmp_path / "again" / record["picture"]) - SHOWN[record["case"]] for record in drawn]
    assert [record["scores"]["warmth"] for record in drawn] == pytest.approx([2 * (r - b) for r, _, b in change], abs=0.02)
    sets = json.loads((tmp_path / "again" / "sets.json").read_text())["rows"]
    assert sets[drawn[0]["row"]]["colour-distance"]["mean"] == pytest.approx(np.linalg.norm(np.mean(change, 0)), abs=0.01)


SHOWN = {"stripe-1": np.array([0.25, 0.0, 0.75]), "stripe-2": np.array([0.5, 0.0, 0.5])}
"""The mean colours of the sources."""


def colours(picture: Path) -> np.ndarray[Any, Any]:
    """The mean of red, green and blue, 0 to 1."""
    mean: np.ndarray[Any, Any] = np.asarray(Image.open(picture)).mean((0, 1))
    return mean / 255


def test_an_installed_data_set_is_checked_line_by_line(site: Path, tmp_path: Path) -> None:
    (tmp_path / "stripes.txt").write_text("0.5\nhalf\n\n")
    done = python(site, *FE, "check", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "stripes.txt, line 2: a number from 0 to 1 is wanted, got 'half'",
        "stripes.txt, line 3: a number from 0 to 1 is wanted, got ''",
        "licence: in the public domain",
        f"2 things are wrong with {tmp_path}",
    ]
