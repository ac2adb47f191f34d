"""One cell of a run again: found, run in its batch, compared to the last bit, and what has changed since told apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fe
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fe.cli.main import main
from fe.experiments.bench import Bench
from fe.experiments.compare import Prepared, prepare
from fe.experiments.fingerprint import KEY_VERSION, hash_model
from fe.experiments.plan import Comparison
from fe.experiments.records import read_records
from fe.experiments.reproduce import reproduce, together
from fe.experiments.words import Method
from fe.models.base import Setup
from fe.models.mixture import MixtureModel
from PIL import Image
from safetensors.torch import load_file, save_file

MIXTURE = ("--model", "mixture", "--cases", "mixture:5", "--set", "mixture.points=30", "--steps", "6", "--device", "cpu")

COMMIT = {"commit", "changes"}
"""Of the surroundings, what may change while tests run."""


def said(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def compared(out: Path, *words: str) -> Path:
    """A run of the mixture, five cases in batches of two."""
    result = said("compare", *MIXTURE, "--batch", "2", *words, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compared(tmp_path_factory.mktemp("mixture") / "out", "--seeds", "3,4")


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory, tiny_scenes: str) -> tuple[Path, Path]:
    """A run with pictures, and the folder of its model; tests copy them before they change anything."""
    folder = tmp_path_factory.mktemp("pictures")
    weights = folder / "model"
    shutil.copytree(tiny_scenes.partition(":")[2], weights)
    words = f"--model scenes:{weights} --cases scenes:2 --steps 2 --solvers euler --editors flowedit --device cpu".split()
    result = said("compare", *words, "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return folder / "out", weights


def edited(run: Path, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the record of that key where it is kept."""
    lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    for line in lines:
        if line["key"] == key:
            change(line)
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cells every batch has that is edited in the test."""
    seen: list[int] = []
    edit = Bench.edit

    def watched(self: Any, group: Any) -> Any:
        seen.append(len(group.cells))
        return edit(self, group)

    monkeypatch.setattr(Bench, "edit", watched)
    return seen


def test_a_comparison_is_read_back_from_what_describes_it() -> None:
    plan = Comparison(
        methods=(Method("flowedit", "euler"), Method("flowedit", "euler", "flowedit@flux")),
        model="flux-dev",
        cases="scenes",
        count=None,
        steps=(4, 8),
        seeds=(1, 2),
        settings={"flowedit": {"n_max": ["3", "4"]}, "model": {}},
        setup=Setup(device="cuda:1", dtype="bfloat16", compiled=True),
    )
    assert Comparison.read(json.loads(json.dumps(plan.described()))) == plan
    for broken in ({}, plan.described() | {"setup": {"devise": "cpu"}}, plan.described() | {"colour": "red"}):
        with pytest.raises(ValueError, match="describes no comparison that can be read here"):
            Comparison.read(broken)


def test_every_cell_is_identical_in_the_batch_that_it_was_part_of(
    run: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[Prepared] = []

    def prepared(plan: Comparison) -> Prepared:
        ready[:] = ready or [prepare(plan)]
        return ready[0]

    monkeypatch.setattr("fe.experiments.reproduce.prepare", prepared)
    records = read_records(run / "records.jsonl")
    found = [reproduce(run, record.key) for record in records]
    assert [one.key for one in found] == [record.key for record in records]
    assert all(one.identical and not one.notes for one in found)
    assert {one.what for again in found for one in again.surroundings} <= COMMIT
    assert sizes == [record.cost.batch for record in records if record.cost is not None]
    assert set(sizes) == {1, 2}


def test_batches_that_memory_halved_are_halved_again() -> None:
    cells: Any = list("abcdefg")

    def went(cell: Any, batch: int) -> str:
        return "".join(map(str, together(cells, cell, batch)))

    assert went("f", 7) == "abcdefg"
    assert went("f", 4) == went("f", 3) == "efg"  # seven, then four and three
    assert went("b", 4) == "abcd"
    assert went("d", 2) == "cd"
    assert went("d", 1) == "d"


def test_a_batch_that_was_halved_is_halved_again(run: Path, tmp_path: Path, sizes: list[int]) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (record, *_) = read_records(run / "records.jsonl")
    edited(copy, record.key, lambda line: line["cost"].update(batch=1))
    reproduce(run, record.key)
    reproduce(copy, record.key)
    assert sizes == [2, 1]


def test_a_run_is_read_and_not_written(run: Path) -> None:
    def seen() -> dict[str, tuple[int, bytes]]:
        files = [path for path in run.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = seen()
    result = said("reproduce", run)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"inversion+euler-6/mixture-0-0000 ({read_records(run / 'records.jsonl')[0].key})",
        "identical: 3 scores, 12 network rows",
    ]
    assert seen() == before


@pytest.mark.parametrize(
    "name", ["flowedit+euler-6/mixture-0-0002-seed4", "flowedit+euler-6/mixture-0-0002-seed", "key", "begun"]
)
def test_a_cell_goes_by_its_key_and_its_name(run: Path, name: str) -> None:
    records = read_records(run / "records.jsonl")
    (wanted,) = [one for one in records if (one.row, one.case, one.seed) == ("flowedit+euler-6", "mixture-0-0002", 4)]
    word = {"key": wanted.key, "begun": wanted.key[:12]}.get(name, name)
    if name.endswith("seed"):
        with pytest.raises(ValueError, match=r"may be 2 cells of .*-seed3, flowedit\+euler-6/mixture-0-0002-seed4; write more"):
            reproduce(run, word)
    else:
        assert reproduce(run, word).key == wanted.key


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("flowedit+eulr-6/mixture-0-0002-seed4",), "did you mean flowedit+euler-6/mixture-0-0002-seed4"),
        (("zzz",), "they are called like inversion+euler-6/mixture-0-0000"),
        (("", "--device", "cuda:77"), "write more of it"),
        (("inversion+euler-6/mixture-0-0000", "--device", "mps"), "torch sees no GPU of that kind here"),
    ],
)
def test_what_is_no_cell_is_one_sentence(run: Path, words: tuple[str, ...], wanted: str) -> None:
    result = said("reproduce", run, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("fe: ")
    assert wanted in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    assert "there is no folder" in said("reproduce", tmp_path / "nowhere").stderr
    assert "holds no run" in said("reproduce", tmp_path).stderr
    out = tmp_path / "out"
    model = fe.load_model("mixture", device="cpu")
    fe.compare(model, cases="mixture:2", steps=3, options={"mixture.points": 9}, out=out, progress=False)
    result = said("reproduce", out)
    assert result.exit_code == 2
    assert "was given its model as an object" in result.stderr


def test_a_cell_that_the_run_no_longer_gives_is_named(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    about = json.loads((copy / "run.json").read_text())
    about["comparison"]["count"] = 1
    (copy / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="gives no longer the case 'mixture-0-0003' with the seed 3"):
        reproduce(copy, "inversion+euler-6/mixture-0-0003")
    about["comparison"]["steps"] = [7]
    (copy / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="gives no longer the row 'inversion\\+euler-6'"):
        reproduce(copy, "inversion+euler-6/mixture-0-0003")


def test_another_score_is_shown_beside_the_one_that_was(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    record = read_records(run / "records.jsonl")[0]
    score = record.scores["transport-cost"]
    almost = float(np.nextafter(score, 1e9))

    def change(line: dict[str, Any]) -> None:
        line["scores"]["transport-cost"] = almost
        line["counts"] = {"repairs": 1}
        line["cost"]["rows"] = 13.0

    edited(copy, record.key, change)
    about = json.loads((copy / "run.json").read_text())
    about["sessions"][0]["versions"]["torch"] = "1.0"
    (copy / "run.json").write_text(json.dumps(about))
    result = said("reproduce", copy, record.key)
    assert result.exit_code == 1
    assert [line.split() for line in result.stdout.splitlines()[1:] if line.split()[0] not in COMMIT] == [
        ["not", "identical"],
        ["then", "now"],
        ["transport-cost", repr(almost), repr(score)],
        ["repairs", "1", "none"],
        ["network", "rows", "13", "12"],
        ["what", "differs", "where", "it", "ran"],
        ["then", "now"],
        ["torch", "1.0", torch.__version__],
    ]


def test_the_picture_is_compared_to_the_last_pixel(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(pictured[0], tmp_path / "copy")
    path = next((copy / "pictures" / "flowedit+euler-2").glob("*1-*.png"))
    whole = said("reproduce", copy, path)
    assert whole.exit_code == 0, whole.output
    assert whole.stdout.splitlines()[1].endswith("4 network rows, 64x64 pixels")
    assert whole.stdout == said("reproduce", copy, f"flowedit+euler-2/{path.stem}").stdout
    pixels = np.array(Image.open(path))
    pixels[5, 6, 1] = pixels[5, 6, 1] - 3 if pixels[5, 6, 1] > 3 else pixels[5, 6, 1] + 3
    Image.fromarray(pixels).save(path)
    other = said("reproduce", copy, path)
    assert other.exit_code == 1
    assert "pixels  as kept  up to 3/255 away, in 0.0244 % of them" in other.stdout
    path.unlink()
    gone = said("reproduce", copy, path)
    assert gone.exit_code == 0
    assert "not compared: pictures/flowedit+euler-2/" in gone.stdout
    assert "pixels" not in gone.stdout


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2", "scheduler"])
def test_another_part_of_the_model_is_named(pictured: tuple[Path, Path], tmp_path: Path, part: str) -> None:
    weights = shutil.copytree(pictured[1], tmp_path / "model")
    copy = shutil.copytree(pictured[0], tmp_path / "copy")
    about = json.loads((copy / "run.json").read_text())
    about["comparison"]["model"] = f"scenes:{weights}"
    (copy / "run.json").write_text(json.dumps(about))
    unchanged = reproduce(copy)
    assert unchanged.identical
    assert unchanged.notes == ()  # wherever the model lies
    if part == "scheduler":
        config = weights / part / "scheduler_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"shift": 2.5}))
    else:
        (file,) = (weights / part).glob("*.safetensors")
        tensors = load_file(file)
        save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    assert reproduce(copy).notes == (f"another now: the model's {part}",)


def test_other_options_and_another_way_to_compute_are_named(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    about = json.loads((copy / "run.json").read_text())
    about["comparison"]["settings"]["flowedit"] = {"n_avg": "2"}
    about["comparison"]["settings"]["mixture"] = {"points": "31"}
    about["made_of"] |= {"the version of keys": "1", "how it computes": "float16|cuda"}
    (copy / "run.json").write_text(json.dumps(about))
    found = reproduce(copy, "flowedit+euler-6/mixture-0-0002-seed4")
    assert not found.identical
    assert found.notes[:3] == (
        f"another now: the version of keys: 1 then, {KEY_VERSION} now",
        "another now: how it computes: float16|cuda then, float32|cpu|False|none|MixtureLoader() now",
        "another now: the case mixture-0-0002",
    )
    assert found.notes[3].startswith("another now: the editor: FlowEdit(")
    assert len(found.notes) == 4
    about["made_of"] = {}
    (copy / "run.json").write_text(json.dumps(about))
    untold = reproduce(copy, "no-edit/mixture-0-0002")
    assert len(untold.notes) == 1
    assert untold.notes[0].endswith("run.json does not tell why")


def test_a_failure_is_reproduced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = MixtureModel.decode

    def failing(self: Any, latents: Any) -> Any:
        raise RuntimeError("no codec today")

    monkeypatch.setattr(MixtureModel, "decode", failing)
    said("compare", *MIXTURE, "--out", tmp_path / "out")
    again = said("reproduce", tmp_path / "out")
    assert (again.exit_code, again.stdout.splitlines()[1]) == (0, "identical: it fails again, RuntimeError: no codec today")
    monkeypatch.setattr(MixtureModel, "decode", decode)
    well = said("reproduce", tmp_path / "out")
    assert well.exit_code == 1
    assert "error  RuntimeError: no codec today  none" in well.stdout


def test_without_trained_weights_there_is_no_score_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MixtureModel, "trained", False)
    out = compared(tmp_path / "out")
    assert said("reproduce", out).stdout.splitlines()[1] == "identical: 12 network rows"


def test_a_cell_of_a_shard_is_found_in_its_folder_and_among_all(tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        compared(tmp_path / "out", "--shard", shard)
    cell = "flowedit+euler-6/mixture-0-0003"  # the second of the second shard, in a batch with the first
    alone = reproduce(tmp_path / "out" / "shard-2-of-2", cell)
    assert alone.identical
    assert reproduce(tmp_path / "out", cell) == alone
    with pytest.raises(ValueError, match="no cell of"):
        reproduce(tmp_path / "out" / "shard-1-of-2", cell)


def test_the_schedule_of_a_model_is_part_of_it(tiny_pipeline: Callable[..., Any]) -> None:
    model = fe.load_model(tiny_pipeline(guided=True))
    before = hash_model(model)
    assert hash_model(fe.load_model(tiny_pipeline(guided=True))) == before
    model.pipeline.vae.register_to_config(scaling_factor=0.5)
    assert hash_model(model) != before


def test_the_numbers_come_back_in_python(run: Path) -> None:
    found = fe.reproduce(run, "from-noise/mixture-0-0001-seed3")
    assert found.identical
    assert repr(found).endswith("\nidentical: 3 scores, 6 network rows")
    assert not replace(found, differences=(("psnr", "1", "2"),)).identical
