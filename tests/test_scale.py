"""Runs of many cells, and records that are torn, doubled or not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments.folder import RunFolder
from fe.experiments.manifest import Manifest, read_manifest
from fe.experiments.records import Finished, Record, Share, heal, read_records
from fe.experiments.rows import Heading

MIXTURE = ["--model", "mixture", "--cases", "mixture:3", "--set", "mixture.points=30", "--steps", "2", "--device", "cpu"]
ONE = Record("k0", "r", "edit", "c0", "shape", "ein roter Würfel", "a\u2028b\r\n", "E()", "S()", 4, 0, scores={"rmse": 0.1})

MEASURE = """
import json, re, sys, time
from pathlib import Path
from types import SimpleNamespace
from fe.experiments.folder import RunFolder
from fe.experiments.manifest import Manifest, read_manifest
from fe.experiments.results import read_results
from fe.experiments.run import Effort, finished

folder, pictures = Path(sys.argv[1]), sys.argv[2] == "pictures"
manifest = read_manifest(folder)
lines = [json.loads(line) for line in (folder / "records.jsonl").open()]
cells = [SimpleNamespace(key=line["key"], case=SimpleNamespace(is_picture=True)) for line in lines]
del lines
def mebibytes(name):
    return int(re.search(name + ":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
before = mebibytes("VmRSS")
start = time.process_time()
with RunFolder.open(folder, manifest) as opened:
    held = finished(cells, opened, Effort(pictures=pictures))
resumed = time.process_time() - start
assert len(held) == len(cells), (len(held), len(cells))
start = time.process_time()
(results,) = read_results([folder])
assert len(results.records) == len(cells)
read = time.process_time() - start
print(json.dumps([resumed, read, mebibytes("VmHWM") - before]))
"""
"""Prints seconds of the processor for opening a folder and finding out what is done, and for reading its results, and the
MiB that this took."""


def manifest(rows: int = 1, cases: int = 1) -> Manifest:
    headings = tuple(Heading(f"r{i}", f"row {i}", "edit", 28, False, False, (0,)) for i in range(rows))
    names = tuple(f"scenes/test/{i:06}-shape" for i in range(cases))
    return Manifest("p", {}, headings, names, {"edit": ("psnr",)}, rows * cases, True, True, "cpu")


def written(folder: Path, count: int, pictures: bool) -> Path:
    """A run of `count` cells in ten rows, as large as those of scenes are."""
    what = manifest(10, count // 10)
    cost = Share(8, 56, 112.0, 1.234567890123, 1.034567890123, None)
    scores = {f"metric-{i}": 1.2345678901234567 / (i + 1) for i in range(7)}
    with RunFolder.open(folder, what) as opened, (folder / "records.jsonl").open("w") as file:
        for row in what.rows:
            (folder / "pictures" / row.name).mkdir(parents=True)
            for case in what.cases:
                name = f"pictures/{row.name}/{case.replace('/', '_')}.png" if pictures else None
                words: dict[str, Any] = {"row": row.name, "case": case, "picture": name, "cost": cost, "scores": scores}
                file.write(replace(ONE, key=f"{row.name}-{case}", editor=60 * "e", **words).to_json() + "\n")
                if name is not None:
                    (folder / name).touch()
        del opened
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is asked of Linux")
@pytest.mark.parametrize("pictures", [True, False])
def test_twenty_thousand_records_are_resumed_at_once(pictures: bool, tmp_path: Path) -> None:
    """The limits leave room for slow machines; what grows with the square of the number would miss them by far."""
    found = {}
    for count in (5_000, 20_000):
        folder = written(tmp_path / str(count), count, pictures)
        words = [sys.executable, "-c", MEASURE, str(folder), "pictures" if pictures else "none"]
        found[count] = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    print(found)
    (_, _, memory), (resumed, read, most) = found[5_000], found[20_000]
    assert resumed < 6
    assert read < 15
    assert most < 400
    assert most < 8 * max(memory, 10)
    assert resumed < 12 * found[5_000][0]


def lines(count: int) -> list[str]:
    return [replace(ONE, key=f"k{i}", case=f"c{i}").to_json() + "\n" for i in range(count)]


def test_a_last_line_that_is_torn_anywhere_is_healed(tmp_path: Path) -> None:
    path, (first, second) = tmp_path / "records.jsonl", lines(2)
    for cut in range(len(second)):
        path.write_text(first + second[:cut])
        assert [record.key for record in read_records(path)] == ["k0"]
        heal(path)
        assert path.read_text() == first
    path.write_text(first + second)
    heal(path)
    assert path.read_text() == first + second
    assert read_records(path)[1] == replace(ONE, key="k1", case="c1")


@pytest.mark.parametrize("garbage", [b"oops", b"", b"\x00" * 40, b"\xff\xfe\xfa", b"[]", b'"text"', b"7", b'{"schema": 2}'])
def test_a_line_of_garbage_is_named_with_what_would_do(garbage: bytes, tmp_path: Path) -> None:
    first, second, third = lines(3)
    with RunFolder.open(tmp_path, manifest()):
        (tmp_path / "records.jsonl").write_bytes((first + second).encode() + garbage + b"\n" + third.encode())
    said = r"line 3 of .*records.jsonl is no record \(.*\); remove that line, and the same"
    with pytest.raises(ValueError, match=said), RunFolder.open(tmp_path, manifest()):
        pass


def test_of_the_lines_of_a_cell_the_last_one_counts_and_line_ends_do_not(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    again = replace(ONE, key="k1", case="c1", scores={"rmse": 0.7}).to_json() + "\n"
    path.write_bytes("".join([*lines(3), again]).replace("\n", "\r\n").encode())
    found = {record.key: record.scores for record in read_records(path)}
    assert found == {"k0": {"rmse": 0.1}, "k1": {"rmse": 0.7}, "k2": {"rmse": 0.1}}
    path.write_bytes(b"")
    heal(path)
    assert read_records(path) == []


def test_what_is_kept_is_known_without_reading_it_again(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, manifest()) as folder:
        folder.keep([Finished(replace(ONE, error="no"), None), Finished(replace(ONE, key="k1"), None)])
        folder.keep([Finished(ONE, None)])
        known = folder.records()
    assert known == [ONE, replace(ONE, key="k1")] == read_records(tmp_path / "records.jsonl")
    with RunFolder.open(tmp_path, manifest()) as folder:
        assert folder.records() == known


def test_records_of_another_plan_are_told_from_ours_and_nothing_is_lost(tmp_path: Path) -> None:
    command = ["compare", *MIXTURE, "--out", str(tmp_path)]
    assert CliRunner().invoke(main, command).exit_code == 0
    path = tmp_path / "records.jsonl"
    ours = path.read_text()
    foreign = "".join(lines(1)) + ours
    path.write_text(foreign)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "holds records of another comparison" in result.stderr.splitlines()[-1]
    assert path.read_text() == foreign


def schema_1(text: str) -> str:
    return text.replace('"schema": 2', '"schema": 1')


@pytest.mark.parametrize(
    "torn", [lambda text: text[:100], schema_1, lambda text: "[]", lambda text: "", lambda text: "\x00" * 9]
)
def test_a_run_json_that_cannot_be_understood_says_what_would_do(torn: Callable[[str], str], tmp_path: Path) -> None:
    command = ["compare", *MIXTURE, "--out", str(tmp_path)]
    assert CliRunner().invoke(main, command).exit_code == 0
    run, records = tmp_path / "run.json", (tmp_path / "records.jsonl").read_bytes()
    run.write_text(torn(run.read_text()))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    (said,) = result.stderr.splitlines()
    assert "run.json' cannot be understood (" in said
    assert said.endswith("run the comparison again into a new folder, or with --overwrite into this one")
    assert (tmp_path / "records.jsonl").read_bytes() == records
    with pytest.raises(
        ValueError, match="it is of schema 1, and only 2 is read" if torn is schema_1 else "cannot be understood"
    ):
        read_manifest(tmp_path)
    assert CliRunner().invoke(main, [*command, "--overwrite"]).exit_code == 0
