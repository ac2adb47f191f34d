"""A comparison in parts: together they are the whole, whoever ran which, wherever they lie."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fe.cli.main import main
from fe.experiments.records import Record, read_records
from PIL import Image

MIXTURE = ("--model", "mixture", "--cases", "mixture:5", "--set", "mixture.points=40", "--steps", "6", "--device", "cpu")
METHODS = ("--methods", "inversion+euler,flowedit+euler", "--seeds", "0,1")
COUNT = 3


def fe(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def done(*words: str | Path) -> Result:
    result = fe(*words)
    assert result.exit_code == 0, result.output
    return result


def part(folder: Path, number: int, of: int = COUNT) -> Path:
    return folder / f"shard-{number}-of-{of}"


def records(folder: Path) -> dict[str, Record]:
    return {record.key: record for record in read_records(folder / "records.jsonl")}


def shown(*folders: Path) -> list[list[str]]:
    """What a report says, word for word, without the two last columns: seconds and peaks differ from run to run."""
    lines = done("report", *folders).stdout.splitlines()
    return [re.sub(r"\s[\d.]+\s+[\d.]+\s*$", "", line).split() for line in lines if set(line.strip()) != {"─"}]


class Runs(NamedTuple):
    whole: Path
    parts: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One comparison, once as a whole and once in three shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("shards")
    done("compare", *MIXTURE, *METHODS, "--out", folder / "whole")
    for number in (2, 3, 1):
        done("compare", *MIXTURE, *METHODS, "--out", folder / "parts", "--shard", f"{number}/{COUNT}")
    return Runs(folder / "whole", folder / "parts")


def test_shards_hold_every_cell_exactly_once(runs: Runs) -> None:
    whole = records(runs.whole)
    parts = [records(part(runs.parts, number)) for number in (1, 2, 3)]
    assert sum(map(len, parts)) == len(whole) == 5 * (1 + 2 + 1 + 2)  # two seeds where noise is drawn
    assert set().union(*parts) == set(whole)
    assert [len({record.case for record in one.values()}) for one in parts] == [2, 2, 1]
    for one in parts:
        for key, record in one.items():
            assert record.scores == pytest.approx(whole[key].scores, rel=1e-4, abs=1e-5, nan_ok=True)


def test_the_report_of_all_shards_is_that_of_the_whole(runs: Runs) -> None:
    whole = shown(runs.whole)
    assert any("flowedit+euler" in line for line in whole)
    assert shown(*(part(runs.parts, number) for number in (3, 1, 2))) == whole
    assert shown(runs.parts) == whole


def test_shards_that_are_not_there_are_told(runs: Runs, tmp_path: Path) -> None:
    first, third = part(runs.parts, 1), shutil.copytree(part(runs.parts, 3), tmp_path / "elsewhere")
    told = done("report", first, third).stdout
    assert "18 of 30 cells are done; missing: shard 2/3." in told
    assert "(n = 3 cases)" in told
    assert "missing: shards 2/3, 3/3." in done("report", first).stdout
    assert "missing" not in done("report", runs.parts).stdout


def test_a_cell_that_is_there_twice_counts_once(runs: Runs, tmp_path: Path) -> None:
    again = shutil.copytree(part(runs.parts, 2), tmp_path / "again")
    whole = shown(runs.whole)
    assert shown(runs.parts, again) == whole
    assert shown(runs.whole, again) == whole
    assert shown(runs.parts, part(runs.parts, 2), runs.parts / ".." / "parts" / "shard-2-of-3") == whole


def test_a_cell_that_failed_in_one_folder_and_came_out_in_another_came_out(runs: Runs, tmp_path: Path) -> None:
    failed = shutil.copytree(part(runs.parts, 2), tmp_path / "failed")
    lines = [re.sub(r'"error": null', '"error": "node lost"', line) for line in (failed / "records.jsonl").open()]
    (failed / "records.jsonl").write_text("".join(lines))
    for folders in ((failed, runs.parts), (runs.parts, failed)):
        assert "failed" not in done("report", *folders).stdout
    assert "12 cells failed" in done("report", failed, part(runs.parts, 1), part(runs.parts, 3)).stdout


def test_a_shard_goes_on_where_it_was_cut_short(runs: Runs, tmp_path: Path) -> None:
    cut = part(tmp_path, 2)
    shutil.copytree(part(runs.parts, 2), cut)
    lines = (cut / "records.jsonl").read_text().splitlines(keepends=True)
    (cut / "records.jsonl").write_text("".join(lines[:5]))
    resumed = done("compare", *MIXTURE, *METHODS, "--out", tmp_path, "--shard", "2/3")
    assert "5 of 12 cells" in resumed.stderr
    whole, found = records(part(runs.parts, 2)), records(cut)
    assert {key: record.scores for key, record in found.items()} == {key: record.scores for key, record in whole.items()}


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("0/4", "I from 1 to N"),
        ("5/4", "I from 1 to N"),
        ("2", "write I/N"),
        ("-1/4", "write I/N"),
        ("1/4/4", "write I/N"),
        ("1/6", "5 cases cannot be shared out among 6 shards; use at most 5"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(shard: str, said: str, tmp_path: Path) -> None:
    result = fe("compare", *MIXTURE, *METHODS, "--out", tmp_path / "out", "--shard", shard)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_all_shards_are_in_one_grid(tmp_path: Path, tiny_scenes: str) -> None:
    words = ("--model", tiny_scenes, "--cases", "scenes:2", "--steps", "2", "--solvers", "euler", "--device", "cpu")
    done("compare", *words, "--out", tmp_path / "whole", "--batch", "1")
    for number in (1, 2):
        done("compare", *words, "--out", tmp_path / "parts", "--shard", f"{number}/2")
    told = done("report", tmp_path / "parts", "--out", tmp_path / "joined").stdout
    assert f"{tmp_path / 'joined'}: table.txt, grid.png, quality.png" in told
    with Image.open(tmp_path / "whole" / "grid.png") as whole, Image.open(tmp_path / "joined" / "grid.png") as joined:
        assert np.array_equal(np.asarray(whole), np.asarray(joined))
    with Image.open(part(tmp_path / "parts", 1, 2) / "grid.png") as alone:
        assert alone.height < joined.height  # a shard's own grid has its own cases only
