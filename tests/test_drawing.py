"""Sources that a model draws itself: their noise is known, they go on where they were cut short, and they are not mixed."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fe
import pytest
import torch
from fe.cases.folder import FolderCases
from fe.cases.pictures import read
from fe.cases.prompt_pairs import CAT_DOG_SIZE, Pair, cat_dog, read_pairs
from fe.cases.scenes import ScenesCases
from fe.experiments.drawing import Drawing, count_drawn, draw, find_pairs
from fe.experiments.lock import locked
from fe.experiments.meter import metered
from fe.registry import RegistryError
from fe.solvers.euler import Euler
from fe.solvers.midpoint import Midpoint

STARS = [f"a {size} {colour} star" for size in ("small", "large") for colour in ("red", "blue")] + ["a star at the left"]
SAME = [(star, star) for star in STARS]
PAIRS = [Pair(f"star {number}", star, star.replace("star", "heart")) for number, star in enumerate(STARS)]
DRAWING = Drawing(Euler(), steps=2, guidance=2.0, seed=3, size=(64, 64), batch=2)


@pytest.fixture(scope="module")
def model(tiny_scenes: str) -> Any:
    return fe.load_model(tiny_scenes, device="cpu")


def pixels(folder: Path) -> torch.Tensor:
    """The pictures of a folder in the order of their names, (N, 3, H, W) in 0 to 255."""
    return torch.stack([read(path).pixels for path in sorted(folder.glob("*.png"))]) * 255


def generated(model: Any, drawn: Path, run: Path, **asked: Any) -> torch.Tensor:
    """What the row from-noise makes of drawn sources."""
    options = {"from-noise.target_guidance": 2.0, "from-noise.draw": asked.pop("draw", 0)}
    asked = {"solvers": "midpoint", "steps": 3, "seeds": 5} | asked
    fe.compare(model, cases=f"folder:{drawn}", editors="no-edit", metrics="source-psnr", options=options, out=run, **asked)
    return pixels(run / "pictures" / "from-noise")


def test_from_noise_with_the_source_as_target_gives_the_drawn_picture_back(model: Any, tmp_path: Path) -> None:
    """Nothing is shared but the seed, the id and the settings: this is inversion with the noise known."""
    drawn = fe.draw_cases(model, SAME, tmp_path / "drawn", solver="midpoint", steps=3, guidance=2.0, seed=5, batch=2)
    sources = pixels(drawn)
    again = generated(model, drawn, tmp_path / "same")
    assert (again - sources).abs().max() <= 1.0  # rounded twice to 8 bits, in batches of 2 and of 5
    assert (sources[0] - sources[1]).abs().max() > 20  # the pictures do differ
    for name, other in {"seed": {"seeds": 6}, "draw": {"draw": 1}, "steps": {"steps": 4}}.items():
        assert (generated(model, drawn, tmp_path / name, **other) - sources).abs().amax((1, 2, 3)).min() > 20


def test_a_draw_is_another_noise_and_a_row_of_its_own(model: Any, tmp_path: Path) -> None:
    fe.draw_cases(model, SAME, tmp_path / "drawn", steps=2)
    found = fe.compare(
        model,
        cases=f"folder:{tmp_path / 'drawn'}",
        editors="no-edit",
        solvers="euler",
        steps=2,
        metrics="source-psnr",
        options={"from-noise.draw": [0, 1]},
        out=tmp_path / "run",
    )
    known, fresh = (
        [one.scores["source-psnr"] for one in found.records if one.row == f"from-noise-draw={draw}"] for draw in (0, 1)
    )
    assert len(known) == len(fresh) == 5
    assert min(known) > 48  # a level of rounding
    assert max(fresh) < 30


def test_cases_keep_their_ids_prompts_and_kinds(model: Any, tmp_path: Path) -> None:
    fe.draw_cases(model, "scenes:3", tmp_path / "drawn", steps=1, options={"scenes.kinds": "colour,size"}, count=2)
    drawn = FolderCases(str(tmp_path / "drawn")).take(None)
    wanted = ScenesCases(kinds="colour,size").take(2)
    facts = [(case.id, case.source, case.target, case.kind, case.shape) for case in wanted]
    assert [(case.id, case.source, case.target, case.kind, case.shape) for case in drawn] == facts


def test_prompts_go_through_the_list_as_they_are(model: Any, tmp_path: Path) -> None:
    hard = [Pair("a,b", "a red star,\nlarge", 'a "blue" star'), Pair("ünï", "a red  star", "a blue star", "colour, only")]
    draw(model, hard, tmp_path, DRAWING)
    found = [Pair(case.id, case.source, case.target, case.kind) for case in FolderCases(str(tmp_path)).take(None)]
    assert found == hard


class StopError(Exception):
    pass


def stopping(at: int) -> Any:
    def watch(done: int) -> None:
        if done >= at:
            raise StopError

    return watch


def test_a_drawing_that_was_cut_short_goes_on_to_the_last_bit(model: Any, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told: list[int] = []
    draw(model, PAIRS, whole, DRAWING, told.append)
    assert told == [2, 4, 5]
    with pytest.raises(StopError):
        draw(model, PAIRS, cut, DRAWING, stopping(4))
    assert not (cut / "prompts.csv").exists()  # nobody takes it for complete
    with pytest.raises(ValueError, match="neither of prompts"):
        FolderCases(str(cut)).take(None)
    (cut / "00003.png").unlink()  # as if killed inside of the second batch
    (cut / ".fe-0123").write_bytes(b"half a picture")
    before = {name: (cut / name).stat().st_mtime_ns for name in ("00000.png", "00001.png", "00002.png")}
    with metered(model.network) as meter:
        draw(model, PAIRS, cut, DRAWING)
    assert meter.rows == 3 * DRAWING.steps  # the second batch whole, and the third
    assert {name: (cut / name).stat().st_mtime_ns for name in before} == before
    names = sorted(path.name for path in whole.iterdir() if path.name != ".lock")
    assert [path.name for path in sorted(cut.iterdir()) if path.name != ".lock"] == names
    assert all((cut / name).read_bytes() == (whole / name).read_bytes() for name in names)
    with metered(model.network) as meter:
        draw(model, PAIRS, cut, DRAWING)
    assert meter.calls == 0


@pytest.mark.parametrize(
    ("pairs", "other", "named"),
    [
        (PAIRS[:4], {}, "prompts"),
        ([*PAIRS[:4], PAIRS[4]._replace(target="a star")], {}, "prompts"),
        ([PAIRS[1], PAIRS[0], *PAIRS[2:]], {}, "prompts"),
        (PAIRS, {"solver": Midpoint()}, "solver"),
        (PAIRS, {"steps": 3}, "steps"),
        (PAIRS, {"guidance": 2.5}, "guidance"),
        (PAIRS, {"seed": 4, "steps": 1}, "steps, seed"),
    ],
)
def test_pictures_that_were_drawn_otherwise_are_not_mixed(
    pairs: Sequence[Pair], other: dict[str, Any], named: str, drawn: Path, model: Any
) -> None:
    before = {path.name: path.read_bytes() for path in drawn.iterdir()}
    with pytest.raises(ValueError, match=re.escape(f"holds pictures that were drawn otherwise ({named}); give --out")):
        draw(model, pairs, drawn, replace(DRAWING, **other))
    assert {path.name: path.read_bytes() for path in drawn.iterdir()} == before


@pytest.fixture(scope="module")
def drawn(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was drawn by DRAWING."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(model, PAIRS, folder, DRAWING)
    return folder


def test_other_weights_are_another_drawing_and_another_batch_is_not(model: Any, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(drawn, folder)
    draw(model, PAIRS, folder, replace(DRAWING, batch=4))
    bias = next(weights for name, weights in model.network.named_parameters() if name.endswith("bias"))
    kept = bias.detach().clone()
    try:
        bias.data += 1e-3
        with pytest.raises(ValueError, match=r"otherwise \(weights\)"):
            draw(model, PAIRS, folder, DRAWING)
    finally:
        bias.data.copy_(kept)
    draw(model, PAIRS, folder, DRAWING)


def test_a_folder_that_is_anothers_is_left_alone(model: Any, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no drawn pictures"):
        draw(model, PAIRS, tmp_path, DRAWING)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with locked(drawn), pytest.raises(ValueError, match="is in use by process"):
        draw(model, PAIRS, drawn, DRAWING)
    broken = tmp_path / "broken"
    shutil.copytree(drawn, broken)
    (broken / "drawn.json").write_text("{")
    with pytest.raises(ValueError, match="does not say what the pictures beside it are"):
        draw(model, PAIRS, broken, DRAWING)


def test_what_failed_before_the_first_picture_binds_nobody(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words that this model does not know"):
        fe.draw_cases(model, "cat-dog:2", tmp_path, steps=1)
    fe.draw_cases(model, SAME, tmp_path, steps=1)
    assert count_drawn(tmp_path) == 5
    assert json.loads((tmp_path / "drawn.json").read_text())["prompts"]["count"] == 5


def test_cats_and_dogs() -> None:
    pairs = cat_dog()
    assert len(pairs) == CAT_DOG_SIZE == 1000
    assert len({pair.source for pair in pairs}) == len({pair.id for pair in pairs}) == 1000
    for pair in pairs:
        words = pair.source.split()
        assert words[:3] == ["a", "photo", "of"]
        assert words.count("cat") == pair.source.count("cat") == 1
        assert [{"cat": "dog"}.get(word, word) for word in words] == pair.target.split()
        assert (words[3] == "an") == (words[4][0] in "aeiou")
        assert words[3] in ("a", "an")
    assert cat_dog(7) == pairs[:7]
    for first, second in pairwise(pairs):  # a few of them vary as much as all
        ends = [re.sub(r".* cat ", "", pair.source) for pair in (first, second)]
        assert ends[0] != ends[1]
        assert first.source.split()[4] != second.source.split()[4]
    for count in (0, 1001):
        with pytest.raises(ValueError, match="has 1 to 1000 pairs"):
            cat_dog(count)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_of_prompts(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "target,note,source,kind\na dog,x,a cat,animal\n\na tree,y,a bush\n")
    assert read_pairs(table) == [Pair("0000", "a cat", "a dog", "animal"), Pair("0001", "a bush", "a tree", "")]
    rows = [{"source": "a cat", "target": "a dog", "id": "one"}, {"source": "a bush", "target": "a tree"}]
    lines = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert find_pairs(lines) == [Pair("one", "a cat", "a dog", ""), Pair("0001", "a bush", "a tree", "")]
    assert find_pairs(str(table), count=1) == [Pair("0000", "a cat", "a dog", "animal")]
    assert find_pairs([("a cat", "a dog")]) == [Pair("0000", "a cat", "a dog")]
    assert find_pairs("cat-dog:3") == cat_dog(3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "source,goal\na,b\n", "a.csv, line 1: the heading lacks target; it must name source, target"),
        ("a.csv", "source,target\na,b\nc,\n", "a.csv, line 3: 'target' is missing or empty"),
        ("a.csv", "id,source,target\nx,a,b\nx,a,c\n", "a.csv, line 3: the id 'x' is taken already"),
        ("a.jsonl", '{"source": "a", "target": 3}', "a.jsonl, line 1: 'target' must be text, got 3"),
        ("a.csv", "source,target\n", "names no prompts"),
        ("a.txt", "source,target\na,b\n", "must end in .csv or .jsonl"),
        ("a.csv", "id,source,target\nx y,a,b\nx?y,a,c\n", "would have their pictures in one file"),
    ],
)
def test_bad_lists_are_refused_by_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_pairs(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("what", "count", "message"),
    [
        ("prompts.csv", None, "there is no file 'prompts.csv'"),
        ("cat-dog:many", None, "write cat-dog:COUNT"),
        ("cat-dog:1001", None, "has 1 to 1000 pairs"),
        ("cat-dog", 0, "at least 1 prompt"),
        ([], None, "no prompts to draw from"),
        ([("a cat", " ")], None, "'0000' has an empty source or target prompt"),
    ],
)
def test_what_names_no_prompts_is_refused(
    what: Any, count: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        find_pairs(what, count)
    with pytest.raises(RegistryError, match=r"did you mean scenes.*or name cat-dog"):
        find_pairs("scens:3")


def test_models_without_pictures_draw_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draws no pictures"):
        fe.draw_cases("mixture", "mixture:3", tmp_path / "out", steps=1)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        replace(DRAWING, batch=0)


def test_the_list_is_read_by_others_too(drawn: Path) -> None:
    with (drawn / "prompts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == [f"{number:05d}.png" for number in range(5)]
    assert [Pair(row["id"], row["source"], row["target"], row["kind"]) for row in rows] == PAIRS
