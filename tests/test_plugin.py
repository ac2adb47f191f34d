"""A plug-in as its author would ship it: installed by pip, found by name in a fresh interpreter, beside one that is broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh interpreter says that has the plug-in (installed by pip) and a broken one on its path."""
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
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run([sys.executable, "-c", PROBE], env=environment, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(run.stdout)
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
