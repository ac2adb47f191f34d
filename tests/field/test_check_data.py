"""`fe check PATH`: what a data set is, all that is wrong with it, what it holds, and exit codes a script can rely on."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fe.cases.base import Case
from fe.cases.survey import survey
from fe.cli.main import main
from PIL import Image
from rich.console import Console

PLUGIN = """
from dataclasses import dataclass
import torch
from fe.cases.base import Case, CaseSet, Stored
from fe.options import option

@dataclass(frozen=True)
class TextCases(CaseSet):
    '''One grey picture for each line of a text.'''
    licence = "CC0"
    path: str = option("", "a file that ends in .greys")
    shade: float = option(0.5, "how bright")

    @classmethod
    def recognises(cls, path):
        return path.suffix == ".greys"

    def take(self, count):
        lines = open(self.path).read().split()
        return [Case(line, Stored((3, 4, 6), lambda line=line: self.grey(line)), "x", "y") for line in lines][:count]

    def grey(self, line):
        if line == "bad":
            raise ValueError("it cannot be drawn")
        return torch.full((3, 4, 6), self.shade)
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plug-in with the case set `greys`, and one that does not load."""
    site = tmp_path / "site"
    (site / "fe_greys-1.0.dist-info").mkdir(parents=True)
    (site / "fe_greys-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fe-greys\nVersion: 1.0\n")
    entries = "[fe.cases]\ngreys = fe_greys:TextCases\nshattered = no_such_module:Cases\n"
    (site / "fe_greys-1.0.dist-info" / "entry_points.txt").write_text(entries)
    (site / "fe_greys.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four edits of two pictures, and the working folder that it lies in."""
    place = tmp_path / "album"
    place.mkdir()
    Image.new("RGB", (48, 32), "red").save(place / "wide.png")
    Image.new("RGB", (50, 60), "blue").save(place / "tall.png")
    Image.new("L", (48, 32), "white").save(place / "all.png")
    half = np.zeros((32, 48), dtype=np.uint8)
    half[:, :24] = 255
    Image.fromarray(half).save(place / "half.png")
    rows = ["wide.png,x,y,1,colour,all.png", "wide.png,x,x,2,colour,half.png", "tall.png,x,y,3,size,", "tall.png,x,z,4,,"]
    (place / "prompts.csv").write_text("\n".join(["picture,source,target,id,kind,mask", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return place


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def said(done: Result) -> str:
    """The output with its tables' padding taken out."""
    return " ".join(done.stdout.split())


def test_a_good_folder_is_told_as_what_it_holds(album: Path) -> None:
    done = check("album")
    assert done.exit_code == 0, done.output
    for told in (
        "album as folder",
        "cases 4",
        "kinds colour 2, size 1, of no kind 1",
        "pictures 48x32 to 50x60 pixels",
        "masks 2",
        "note the mask covers the whole picture, so scores of the background are not defined: 1",
        "note source and target are the same prompt, so nothing is to be edited: 2",
        "licence: none is stated",
        "nothing is wrong with album",
    ):
        assert told in said(done)
    assert done.stderr == ""


@pytest.mark.usefixtures("album")
def test_a_bar_counts_the_cases_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("fe.cli.screen.console", lambda stderr=False: Console(file=shown, force_terminal=stderr, width=120))
    assert check("album").exit_code == 0
    assert "reading every picture" in shown.getvalue()
    assert "4/4 cases" in re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", shown.getvalue())


def test_every_fault_is_a_line_with_its_place(album: Path) -> None:
    with (album / "prompts.csv").open("a") as file:
        file.write("../b.png,x,y,5,,\ntall.png,,y,6,,\ncut.png,x,y,7,,\nwide.png,x,y,1,,\n")
    (album / "cut.png").write_bytes((album / "wide.png").read_bytes()[:60])
    done = check("album")
    assert done.exit_code == 1
    faults = done.stdout.splitlines()[:4]
    assert [fault.partition(": ")[0] for fault in faults] == [f"prompts.csv, line {number}" for number in (6, 7, 8, 9)]
    assert "damaged" in faults[2]
    assert done.stdout.splitlines()[-1] == "4 things are wrong with album"
    assert "Traceback" not in done.output


def test_a_picture_that_fails_late_is_found_and_the_rest_is_told(album: Path) -> None:
    content = (album / "tall.png").read_bytes()
    (album / "tall.png").write_bytes(content[:-30])  # its header is whole
    done = check("album")
    assert done.exit_code == 1
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()[:2]] == ["prompts.csv, line 4", "prompts.csv, line 5"]
    assert "cases 4" in said(done)
    assert "2 things are wrong with album" in done.stdout


def test_what_is_done_to_pictures_is_noted_and_options_are_taken(album: Path) -> None:
    done = check("album", "--set", "folder.side=64")
    assert done.exit_code == 0
    assert "pictures 64x64 pixels" in said(done)
    assert "note 3: resized from 50x60 to 64x77; the middle 64x64 of 64x77 is used" in said(done)
    assert check("album", "--set", "folder.sid=64").exit_code == 2


def test_pictures_that_would_be_one_file_are_told(album: Path) -> None:
    (album / "prompts.csv").write_text("picture,source,target,id\nwide.png,x,y,a b\nwide.png,x,z,a_b\n")
    done = check("album")
    assert done.exit_code == 1
    assert "the cases 'a b' and 'a_b' would have their pictures in one file" in done.stdout


@pytest.mark.usefixtures("album", "plugged")
def test_a_plug_in_is_recognised_and_looked_through(tmp_path: Path) -> None:
    (tmp_path / "one.greys").write_text("a\nb\n")
    good = check("one.greys", "--set", "greys.shade=0.25")
    assert good.exit_code == 0, good.output
    assert "one.greys as greys" in good.stdout
    assert "cases 2 kinds of no kind 2 pictures 6x4 pixels" in said(good)
    assert "licence: CC0" in good.stdout
    (tmp_path / "two.greys").write_text("a\nbad\nb\n")
    bad = check("two.greys")
    assert bad.exit_code == 1
    assert bad.stdout.startswith("bad: it cannot be drawn\n")
    assert "1 thing is wrong with two.greys" in bad.stdout


@pytest.mark.usefixtures("album", "plugged")
def test_what_is_no_data_set_is_one_sentence_that_says_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = check("empty")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("fe: 'empty' is no data set; recognised would be ")
    assert "folder (the folder with prompts.csv or prompts.jsonl)" in done.stderr
    assert "greys (a file that ends in .greys)" in done.stderr
    assert "'shattered' of fe-greys" in done.stderr
    for arguments, message in (
        (["./nowhere"], "there is no file or folder './nowhere'"),
        (["firefly"], "did you mean fireflow?"),
        (["nowhere", "--kind", "folder"], "there is no file or folder 'nowhere'"),
        (["album", "--kind", "scenes"], "scenes is not read from files"),
        (["album", "--kind", "albums"], "unknown case set 'albums'"),
    ):
        refused = check(*arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_two_that_recognise_a_folder_ask_which(album: Path) -> None:
    (album / "mapping_file.json").write_text("{}")
    asked = check("album")
    assert asked.exit_code == 2
    assert "'album' may be folder or pie-bench; say which, with --kind folder" in asked.stderr
    assert check("album", "--kind", "folder").exit_code == 0
    assert check("album", "--kind", "pie-bench").exit_code == 1


def test_a_solver_goes_before_a_folder_of_its_name(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fe.solvers.conformance.examine", lambda solver: ())
    os.rename(album, album.parent / "euler")
    assert "euler: declared order 1" in check("euler").stdout
    assert "nothing is wrong with ./euler" in check("./euler").stdout
    assert "nothing is wrong with euler" in check("euler", "--kind", "folder").stdout


def test_pie_bench_is_recognised_and_its_faults_are_told(pie_bench: Path) -> None:
    good = check(pie_bench)
    assert good.exit_code == 0, good.output
    assert f"{pie_bench} as pie-bench" in good.stdout
    assert "licence: no licence is stated" in good.stdout
    listing = pie_bench / "mapping_file.json"
    entries = json.loads(listing.read_text(encoding="utf-8"))
    first, second = list(entries)[:2]
    entries[first]["mask"] = [1, 2, 3]
    entries[second]["image_path"] = "nowhere.jpg"
    listing.write_text(json.dumps(entries), encoding="utf-8")
    bad = check(pie_bench)
    assert bad.exit_code == 1
    for id in (first, second):
        assert sum(line.startswith(f"mapping_file.json, {id}") for line in bad.stdout.splitlines()) == 1
    assert "2 things are wrong" in bad.stdout


def test_a_survey_counts_and_cuts_long_lists_short() -> None:
    def case(name: str, mask: torch.Tensor | None, height: int = 4) -> Case:
        return Case(name, torch.zeros(3, height, 5), "x", "y", "odd", region=mask)

    cases = [case(str(i), torch.ones(1, 4, 5)) for i in range(8)]
    cases += [case("half", torch.eye(4, 5)[None]), case("none", torch.zeros(1, 4, 5))]
    cases += [case("high", None, 9), Case("blank", torch.zeros(7, 2), "", "", "points")]
    seen = survey(cases)
    assert (seen.count, seen.kinds, seen.masks) == (12, {"odd": 11, "points": 1}, 10)
    assert (seen.smallest, seen.largest) == ((4, 5), (9, 5))
    assert seen.notes == [
        "the mask covers the whole picture, so scores of the background are not defined: 0, 1, 2, 3, 4 and 3 more",
        "the mask covers nothing, so scores of the edited part are not defined: none",
        "the source prompt is empty: blank",
        "the target prompt is empty: blank",
    ]
