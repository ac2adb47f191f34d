"""fe.compare: the command's comparison in Python, with presets as methods, over a model at hand or a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fe
import pytest
from click.testing import CliRunner, Result
from fe.cases.pictures import read
from fe.cli.main import main
from fe.experiments.records import Record, picture_name, read_records
from fe.models.scenes import random_scenes
from fe.reports.table import UNTRAINED
from PIL import Image

QUICK: dict[str, Any] = {"cases": "mixture:3", "options": {"mixture.points": 50}, "steps": 5}


def command(*words: str | Path) -> Result:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    return done


def told(records: list[Record]) -> list[tuple[Any, ...]]:
    """What records say, but for the time that it took."""
    return [(one.key, one.row, one.case, one.scores, one.cost and (one.cost.calls, one.cost.rows)) for one in records]


def test_python_and_the_command_line_make_the_same_run(tmp_path: Path) -> None:
    compared = fe.compare("mixture", **QUICK, out=tmp_path / "python")
    words = ["--model", "mixture", "--cases", "mixture:3", "--set", "mixture.points=50", "--steps", "5"]
    done = command("compare", *words, "--out", tmp_path / "command")
    assert told(read_records(tmp_path / "python" / "records.jsonl")) == told(
        read_records(tmp_path / "command" / "records.jsonl")
    )
    assert len(compared.records) == 12
    assert compared.folder == tmp_path / "python"
    plans = [json.loads((tmp_path / name / "run.json").read_text())["plan"] for name in ("python", "command")]
    assert plans[0] == plans[1]
    (edits,) = [one for one in compared.summaries if one.task == "edit"]
    assert [line.row.label for line in edits.methods] == ["inversion+euler", "flowedit+euler"]
    assert "flowedit+euler has the lowest transport cost" in repr(compared)
    assert "flowedit+euler has the lowest transport cost" in done.stdout


def test_what_is_given_twice_is_run_once(tmp_path: Path) -> None:
    given = {**QUICK, "steps": [5, 5], "seeds": [1, 0, 1], "editors": ["flowedit"] * 2, "solvers": "euler,euler"}
    compared = fe.compare("mixture", **given, out=tmp_path)
    keys = [one.key for one in read_records(tmp_path / "records.jsonl")]
    assert len(keys) == len(set(keys)) == (tmp_path / "records.jsonl").read_text().count("\n") == 3 * 2 + 3 + 3 * 2
    assert len(compared.records) == len(keys)


def test_failed_cells_are_run_again_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("the node lost its GPU")

    with monkeypatch.context() as patched:
        patched.setattr("fe.experiments.bench.edit_cases", broken)
        with pytest.raises(ValueError, match=r"every cell failed; the first: .*the node lost its GPU"):
            fe.compare("mixture", **QUICK, out=tmp_path)
    with pytest.raises(ValueError, match="every cell failed"):
        fe.compare("mixture", **QUICK, out=tmp_path)
    assert fe.compare("mixture", **QUICK, out=tmp_path, retry_failed=True).failures == ()


def test_a_model_at_hand_scores_as_its_name_does(tiny_scenes: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"cases": "scenes:2", "solvers": "euler", "steps": 3, "pictures": False}
    named = fe.compare(tiny_scenes, **asked, out=tmp_path / "named")
    at_hand = fe.compare(fe.load_model(tiny_scenes), **asked, out=tmp_path / "at_hand")
    assert [one.scores for one in named.records] == [one.scores for one in at_hand.records]
    again = fe.compare(fe.load_model(tiny_scenes), **asked, out=tmp_path / "at_hand")
    assert [one.cost for one in again.records] == [one.cost for one in at_hand.records]  # read, not run again


def test_a_case_of_scenes_is_edited_as_in_a_comparison(tiny_scenes: str, tmp_path: Path) -> None:
    compared = fe.compare(tiny_scenes, cases="scenes:3", solvers="euler", steps=3, batch=1, seeds=7, out=tmp_path)
    edited = fe.edit(fe.load_model(tiny_scenes), "scenes:2", steps=3, seed=7)
    third = list(dict.fromkeys(one.case for one in compared.records))[2]
    kept = read(tmp_path / picture_name("flowedit+euler-3", third)).pixels
    assert (kept - edited.pixels).abs().max() <= 0.51 / 255
    other = fe.edit(fe.load_model(tiny_scenes), "scenes:2", steps=3, seed=8)
    assert (kept - other.pixels).abs().max() > 2 / 255


def test_presets_are_methods_with_their_own_steps_and_options(tiny_scenes: str, tmp_path: Path) -> None:
    methods = ["flowedit@flux", "fireflow@paper-8", "flowedit@flux-style", "inversion+euler"]
    compared = fe.compare(tiny_scenes, methods=methods, cases="scenes:1", pictures=False, out=tmp_path / "own")
    (edits,) = [one for one in compared.summaries if one.task == "edit"]
    rows = {line.row.label: line.row for line in edits.methods}
    assert list(rows) == methods
    assert [row.steps for row in rows.values()] == [28, 8, 28, 28]
    editors = {one.row: one.editor for one in compared.records}
    assert ["n_max=24" in editors["flowedit@flux-28"], "n_max=21" in editors["flowedit@flux-style-28"]] == [True, True]
    (trips,) = [one for one in compared.summaries if one.task == "reconstruct"]
    assert [(line.row.label, line.row.steps) for line in trips.methods] == [("euler", 28), ("fireflow", 8)]
    words = ["--methods", ",".join(methods), "--model", tiny_scenes, "--cases", "scenes:1", "--no-pictures", "--steps", "4,8"]
    done = command("compare", *words, "--set", "flowedit.n_avg=2", "--out", tmp_path / "steps")
    shown = [line.split()[:2] for line in done.stdout.splitlines() if "@" in line]
    assert shown[:6] == [[name, steps] for name in methods[:3] for steps in ("4", "8")]
    kept = {(one.row, one.editor) for one in read_records(tmp_path / "steps" / "records.jsonl")}
    averaged = [editor for row, editor in kept if row == "flowedit@flux-4"]
    assert len(averaged) == 1
    assert "n_max=3, n_min=0, n_avg=2" in averaged[0]  # 24 of 28 steps, and what was said beside it


def test_random_weights_are_not_scored_and_say_so(tmp_path: Path) -> None:
    model = random_scenes(0)
    model.trained = False
    compared = fe.compare(model, cases="scenes:2", steps=2, out=tmp_path)
    assert compared.records
    assert all(one.scores == {} and one.cost is not None for one in compared.records)
    assert UNTRAINED.capitalize() in compared.text
    assert "PSNR" in compared.text  # the columns are there, and blank
    assert "±" not in compared.text.partition("Random weights")[0]
    assert repr(model) == "FluxModel(FluxTransformer2DModel, 2.4 M parameters, random weights)"
    edited = fe.edit(model, "scenes:0", steps=2)
    assert edited.notes == (UNTRAINED,)
    assert UNTRAINED in repr(edited)
    assert fe.generate(model, "a red star", steps=1).notes == (UNTRAINED,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "flowedit"}, r"'flowedit' is no method; write EDITOR\+SOLVER"),
        ({"methods": ["flowedit@flx"]}, "did you mean flowedit@flux"),
        ({"methods": "flowedit+euler", "solvers": "euler"}, "leave out solvers and editors"),
        ({"solvers": ["eulr"]}, "did you mean euler"),
        ({"steps": 0}, "steps must be whole numbers of at least 1"),
        ({"seeds": -1}, "seeds must be whole numbers of at least 0"),
        ({"steps": 3, "match_nfe": 4}, "leave out steps"),
        ({"steps": 1.5}, "steps must be a whole number or several, each a whole number, got 1.5"),
        ({"methods": [1]}, "methods must be text or several, each text"),
        ({"seeds": ()}, "at least one seed must be given"),
        ({"match_nfe": -1}, "match_nfe must be at least 1, got -1"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"out": 3}, "out must be text or a path or None, got 3"),
        ({"cases": "scenes:0"}, "at least 1 case"),
        ({"cases": "scenes:many"}, "'scenes' reads no folder; write scenes:COUNT"),
        ({"options": {"heun.x": 1}}, "heun.x belongs to nothing in this run"),
    ],
)
def test_bad_wishes_are_refused(given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, LookupError), match=message):
        fe.compare("mixture", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_handed_over_model_s_own_ways_are_part_of_its_cells(tiny_pipeline: Any, tmp_path: Path) -> None:
    """Another option of the same weights must not be answered with the rows of the first."""
    pipe = tiny_pipeline(guided=True)
    asked: dict[str, Any] = {"cases": "scenes:1", "solvers": "euler", "steps": 1, "pictures": False, "out": tmp_path}
    fe.compare(fe.load_model(pipe), **asked)
    with pytest.raises(ValueError, match="holds a different run"):
        fe.compare(fe.load_model(pipe, options={"exact_time": False}), **asked)


@pytest.mark.parametrize("options", [{"model.exact_time": False}, {"model": {"exact_time": False}}])
def test_options_of_a_model_reach_it_or_are_refused(options: dict[str, Any], tiny_pipeline: Any, tmp_path: Path) -> None:
    pipe = tiny_pipeline(guided=True)
    asked: dict[str, Any] = {"cases": "scenes:1", "solvers": "euler", "steps": 1, "pictures": False, "out": tmp_path}
    with pytest.raises(ValueError, match=r"the model is loaded already; give load_model its options \(exact_time\)"):
        fe.compare(fe.load_model(pipe), **asked, options=options)
    with pytest.raises(ValueError, match="did you mean exact_time"):
        fe.compare(pipe, **asked, options={"model.exact_tim": False})
    fe.compare(pipe, **asked, options=options)
    with pytest.raises(ValueError, match="holds a different run"):
        fe.compare(pipe, **asked)


def test_a_model_at_hand_is_compared_as_suits_it(tmp_path: Path) -> None:
    by_object, by_name = (
        fe.compare(model, steps=2, options={"mixture.points": 50}, out=tmp_path / str(i))
        for i, model in enumerate([fe.load_model("mixture"), "mixture"])
    )
    assert [record.scores for record in by_object.records] == [record.scores for record in by_name.records]


def test_tables_are_text_in_a_notebook_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There rich shows what it prints, whatever file it is given."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    compared = fe.compare("mixture", **QUICK, out=tmp_path, progress=False)
    assert "flowedit+euler" in compared.text
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == compared.text


@pytest.mark.parametrize("name", ["flux", "scenes"])
def test_pictures_of_a_folder_are_fitted_as_those_of_an_edit(
    name: str, tiny_pipeline: Any, tiny_scenes: str, tmp_path: Path
) -> None:
    """Cut to the model's own multiple, or brought to the one size that it knows."""
    model = fe.load_model(tiny_pipeline(guided=True) if name == "flux" else tiny_scenes)
    (tmp_path / "set").mkdir()
    Image.effect_noise((50, 35), 60).convert("RGB").save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "prompts.csv").write_text("picture,source,target\na.png,a red star,a blue star\n")
    with pytest.warns(UserWarning, match=r"a\.png: .*the middle"):
        run = fe.compare(model, cases=f"folder:{tmp_path / 'set'}", methods="inversion+euler", steps=2, out=tmp_path / "out")
    edited = fe.edit(model, tmp_path / "set" / "a.png", source="a red star", target="a blue star", editor="inversion", steps=2)
    assert edited.pixels.shape == ((3, 32, 48) if name == "flux" else (3, 64, 64))
    (written,) = (run.folder / "pictures").glob("inversion*/*.png")
    assert (read(written).pixels - edited.pixels).abs().max() <= 0.51 / 255


def test_a_picture_that_cannot_be_fitted_is_named(tiny_scenes: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "dot.png")
    (tmp_path / "prompts.csv").write_text("picture,source,target\ndot.png,a red star,a blue star\n")
    with pytest.raises(ValueError, match=r"dot\.png: the picture is 4x4; this model needs at least 8 pixels"):
        fe.compare(tiny_scenes, cases=f"folder:{tmp_path}", steps=2, out=tmp_path / "out")
