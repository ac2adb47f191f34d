"""A folder of one's own pictures: read rightly, never beyond the folder, and a bad line named by its number."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fe.cases.folder import FolderCases, prompts
from PIL import Image

HEAD = "picture,source,target\n"


def folder(place: Path, listing: str, name: str = "prompts.csv") -> Path:
    inside = place / "mine"
    (inside / "sub").mkdir(parents=True)
    for i, path in enumerate(["a.png", "b.png", "sub/a.png"]):
        Image.fromarray(np.full((32, 48, 3), 40 * i + 5, dtype=np.uint8)).save(inside / path)
    Image.new("RGB", (32, 32)).save(place / "secret.png")
    (inside / name).write_text(listing, encoding="utf-8")
    return inside


def test_csv_gives_cases_in_order(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD + 'b.png,"a cat, asleep",a dog\na.png,x,y\nsub/a.png,x,z\n')
    cases = FolderCases(path=str(place)).take(None)
    assert [case.id for case in cases] == ["b.png", "a.png", "sub/a.png"]
    assert cases[0].source == "a cat, asleep"
    assert torch.allclose(cases[2].picture, torch.full((3, 32, 48), 85 / 255))
    assert [case.id for case in FolderCases(path=str(place)).take(2)] == ["b.png", "a.png"]


def test_json_lines_say_the_same_as_csv(tmp_path: Path) -> None:
    rows = '{"picture": "b.png", "source": "x", "target": "y"}\n\n{"picture": "a.png", "source": "x", "target": "z"}\n'
    lines = prompts(folder(tmp_path, rows, "prompts.jsonl"))
    assert [(line.number, line.name, line.target) for line in lines] == [(1, "b.png", "y"), (3, "a.png", "z")]


def test_one_size_for_all_is_told(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD + "a.png,x,y\n")
    with pytest.warns(UserWarning, match=r"a\.png: resized from 48x32 to 96x64; the middle 64x64"):
        cases = FolderCases(path=str(place), side=64).take(None)
    assert cases[0].picture.shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (HEAD + "a.png,x,y\n../secret.png,x,y\n", "line 3: '../secret.png' lies outside"),
        (HEAD + "/etc/passwd,x,y\n", "line 2: '/etc/passwd' lies outside"),
        (HEAD + "link.png,x,y\n", "line 2: 'link.png' lies outside"),
        (HEAD + "up/secret.png,x,y\n", "line 2: 'up/secret.png' lies outside"),
        (HEAD + "a.png,x,y\n./a.png,x,z\n", "line 3: './a.png' is named on line 2"),
        (HEAD + "none.png,x,y\n", "line 2: there is no picture 'none.png'"),
        (HEAD + "sub,x,y\n", "line 2: there is no picture 'sub'"),
        (HEAD + "a.png,x\n", "line 2: 'target' is missing"),
        (HEAD + "a.png, ,y\n", "line 2: 'source' is missing or empty"),
        (HEAD + "a.png,a cat, asleep,y\n", "line 2: there are more fields"),
        (HEAD + 'a.png,"x,y\n', "line 2: "),
        ("picture,source\na.png,x\n", "line 1: the heading lacks target"),
        (HEAD, "names no picture"),
        ("", "line 1: the heading lacks picture, source, target"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, listing: str, message: str) -> None:
    place = folder(tmp_path, listing)
    os.symlink(tmp_path / "secret.png", place / "link.png")
    os.symlink(tmp_path, place / "up")
    with pytest.raises(ValueError, match="prompts") as caught:
        FolderCases(path=str(place)).take(None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("listing", "message"),
    [('{"picture": "a.png"\n', "line 1: this is no JSON"), ("[1]\n", "line 1: a JSON object"), ("\n{}\n", "line 2: 'picture'")],
)
def test_a_bad_json_line_is_named(tmp_path: Path, listing: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts(folder(tmp_path, listing, "prompts.jsonl"))


def test_the_list_itself_must_be_there_once_and_be_text(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD)
    (place / "prompts.jsonl").touch()
    with pytest.raises(ValueError, match="both of"):
        prompts(place)
    (place / "prompts.jsonl").unlink()
    (place / "prompts.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        prompts(place)
    (place / "prompts.csv").unlink()
    with pytest.raises(ValueError, match="neither of"):
        prompts(place)
    with pytest.raises(ValueError, match="not a folder"):
        prompts(place / "a.png")


def test_a_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD + "same.png,x,y\n")
    os.symlink(place / "a.png", place / "same.png")
    assert prompts(place)[0].name == "a.png"
