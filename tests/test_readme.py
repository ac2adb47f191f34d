"""What the documents say holds: commands exist with these options, the solver in the README works, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from fe.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every `fe ...` in the documents: on a line of its own, after &&, or (if it has options) between backquotes."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        for line in document.read_text(encoding="utf-8").splitlines():
            indented = re.fullmatch(r"    (?:.* && )?(fe [^#]*?)(?:\s+#.*)?", line)
            if indented:
                found[indented[1]] = None
            for quoted in re.findall(r"`(fe [^`\s]+ [^`\s]+ [^`]*)`", line):
                found[quoted] = None
    return [command for command in found if not re.search(r"\b[A-Z]{3,}\b", command)]  # NAME, COMMAND: placeholders


@pytest.mark.parametrize("command", commands())
def test_every_command_in_the_documents_is_understood(command: str) -> None:
    name, *arguments = shlex.split(command.replace("euler,ralston", "euler"))[1:]
    sub = main.get_command(click.Context(main), name)
    sub.make_context(name, arguments)  # raises click.UsageError for an option or a value that does not exist


def test_the_documents_have_commands_to_check() -> None:
    assert "fe compare --solvers euler,fireflow --editor flowedit" in commands()
    assert len(commands()) > 8


def test_the_two_promised_commands_stand_verbatim() -> None:
    lines = README.splitlines()
    assert "    pip install -e . && fe compare --solvers euler,fireflow --editor flowedit" in lines
    assert "    pip install -e '.[dev]' && pytest" in lines


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_solver_of_the_readme_can_be_installed_and_holds_what_it_claims(tmp_path: Path) -> None:
    python, toml = (re.search(rf"```{kind}\n(# .*?)```", README, re.DOTALL) for kind in ("python", "toml"))
    assert python is not None
    assert toml is not None
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "fe_ralston.py").write_text(python[1])
    (source / "pyproject.toml").write_text(toml[1])
    lines = [line for text in (python[1], toml[1]) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 20
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, text=True)
    checked = subprocess.run(
        [sys.executable, "-m", "fe.cli.main", "check", "ralston"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "declared order 2" in checked.stdout
