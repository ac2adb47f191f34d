"""The examples of the docs run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.editors.flowedit import FlowEdit
from fe.experiments.execute import execute
from fe.experiments.protocols import PROTOCOLS
from fe.models.base import Setup
from fe.registry import CASES, EDITORS, SOLVERS
from fe.solvers.euler import Euler

DOCS = Path(__file__).parent.parent / "docs"


def example(page: str, first_line: str) -> dict[str, Any]:
    """What the fenced Python example of a page that begins with that line defines."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(first_line)]
    defined: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, page, "exec"), defined)  # our own text
    return defined


@pytest.mark.parametrize("steps", [1, 4])
def test_the_model_of_the_docs_edits_exactly(steps: int) -> None:
    """In a flow to one colour, FlowEdit's field pulls towards the source shifted by the difference of the colours, and the last
    step lands there whatever the noise."""
    model = example("models.md", "# fe_tint.py")["TintLoader"]().load(None, Setup())
    grey = torch.full((3, 4, 4), 0.5) + torch.linspace(-0.1, 0.1, 16).reshape(4, 4)
    case = Case("tint", grey, "grey", "blue")
    shifted = execute(model, FlowEdit(n_max=steps), Euler(), steps, [case], seed=0)
    torch.testing.assert_close(shifted.latents[0], grey + torch.tensor([-0.5, -0.5, 0.5])[:, None, None])
    assert (shifted.cost.calls, shifted.cost.rows) == (steps, 2 * steps)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    edited = example("../README.md", "import fe")["edited"]
    assert edited.cost.rows == 2 * 8  # FireFlow evaluates source and target 7 + 1 times in 7 of 8 steps
    assert (tmp_path / "edited.png").stat().st_size > 1000


def test_every_solver_and_editor_has_its_place_in_the_docs() -> None:
    text = (DOCS / "solvers_and_editors.md").read_text(encoding="utf-8")
    explained = " ".join(re.findall(r"^### (.*)$", text, flags=re.MULTILINE)).split()
    assert set(EDITORS.builtin) <= set(explained)
    assert set(SOLVERS.builtin) <= set(re.findall(r"^\| ([\w-]+) \|", text, flags=re.MULTILINE))


def test_every_protocol_and_case_set_has_its_row_in_the_docs() -> None:
    protocols, data = ((DOCS / page).read_text(encoding="utf-8") for page in ("protocols.md", "data_sets.md"))
    assert set(PROTOCOLS) == set(re.findall(r"^\| `([\w@-]+)` \|", protocols, flags=re.MULTILINE))
    assert set(CASES.builtin) <= set(re.findall(r"^\| `([\w-]+)(?::PATH)?` \|", data, flags=re.MULTILINE))
