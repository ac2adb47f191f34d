"""What a session says of where it took place."""

from __future__ import annotations

import subprocess
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch
from fe.experiments import environment as surroundings


def test_a_session_says_where_it_took_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Distribution:
        name, version = "fe-solver-mine", "7.1"

    def entries(group: str) -> EntryPoints:
        entry = EntryPoint("mine", "mine:Mine", "fe.solvers")
        vars(entry)["dist"] = Distribution()
        return EntryPoints([entry] if group == "fe.solvers" else [])

    monkeypatch.setattr(surroundings, "entry_points", entries)
    found = surroundings.environment("cpu")
    assert found["versions"]["fe-solver-mine"] == "7.1"
    assert found["versions"]["torch"] == torch.__version__
    assert {"command", "started", "commit", "changes", "device", "threads", "cores"} < set(found)


def test_the_commit_is_told_with_whether_files_differ_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "experiments" / "environment.py"
    file.parent.mkdir()
    file.write_text("1")
    monkeypatch.setattr(surroundings, "__file__", str(file))
    assert surroundings.commit() == (None, None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert surroundings.commit() == (head, False)
    file.write_text("2")
    assert surroundings.commit() == (head, True)
