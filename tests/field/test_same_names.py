"""A case set and an editor may go by the same name (flowedit): each gets its own options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fe.cases.flowedit import FlowEditCases
from fe.cli.main import main
from fe.editors.flowedit import FlowEdit
from fe.experiments.names import build_cases
from fe.experiments.plan import Comparison, planned
from fe.experiments.words import Asked, CaseChoice, Method
from fe.models.base import Setup
from fe.options import OptionError


def plan(method: str, folder: Path, **options: Any) -> Comparison:
    asked = Asked(methods=(Method.read(method),), cases=CaseChoice.read(f"flowedit:{folder}"))
    return planned(asked, "scenes", Setup(device="cpu"), {"flowedit": options})[0]


def test_options_go_to_whichever_has_them(tmp_path: Path) -> None:
    made = plan("flowedit+euler", tmp_path, n_max="3,4", kinds="style,object")
    assert [made.editor("flowedit", 28, at=at) for at in made.points("flowedit")] == [FlowEdit(n_max=3), FlowEdit(n_max=4)]
    assert build_cases("flowedit", made.case_options) == FlowEditCases(path=str(tmp_path), kinds="style,object")
    assert Comparison.read(made.described()).case_options == made.case_options


def test_what_neither_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="FlowEdit has no option 'n_mx'"):
        plan("flowedit+euler", tmp_path, n_mx=3)
    alone = plan("inversion+euler", tmp_path, n_max=3)  # without the editor everything is the case set's
    with pytest.raises(OptionError, match="FlowEditCases has no option 'n_max'"):
        build_cases("flowedit", alone.case_options)


EDITS = """\
- init_img: Images/fox.png
  source_prompt: a large red star at the left
  target_prompts: [a large blue star at the left, a small red star at the left]
  target_codes: [blue, small]
"""


def test_an_experiment_file_tells_them_apart_too(flowedit_set: Path, tiny_scenes: str) -> None:
    (flowedit_set / "flowedit.yaml").write_text(EDITS, encoding="utf-8")
    (flowedit_set / "tags.csv").write_text("id,kind\nfox/blue,style\n", encoding="utf-8")
    path = flowedit_set.parent / "experiment.yaml"
    lines = ["methods: flowedit+euler", "cases: flowedit:Data", "steps: 4", "metrics: latent-cost"]
    path.write_text("\n".join([*lines, "set:", "  flowedit: {n_max: [2, 3], kinds: 'style, lettering'}"]), encoding="utf-8")
    words = ["--model", tiny_scenes, "--out", str(flowedit_set.parent / "out"), "--device", "cpu"]
    done = CliRunner().invoke(main, ["compare", str(path), *words])
    assert done.exit_code == 0, done.output
    assert "(n = 1 case)" in done.stdout
    assert "n_max=2" in done.stdout
    path.write_text(path.read_text().replace("[2, 3]", "x"), encoding="utf-8")
    refused = CliRunner().invoke(main, ["compare", str(path), *words])
    assert "n_max must be a whole number, got 'x'" in refused.output
