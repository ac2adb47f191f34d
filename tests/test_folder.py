"""A folder of one's own pictures: read rightly, never beyond the folder, and a bad line named by its number."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fe.cases.folder import FolderCases, prompts
from fe.experiments.subjects import subjects
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
    (case,) = FolderCases(path=str(place), side=64).take(None)
    with pytest.warns(UserWarning, match=r"a\.png: resized from 48x32 to 96x64; the middle 64x64"):
        assert case.picture.shape == (3, 64, 64)
    assert case.shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (HEAD + "a.png,x,y\n../secret.png,x,y\n", "line 3: '../secret.png' lies outside"),
        (HEAD + "/etc/passwd,x,y\n", "line 2: '/etc/passwd' lies outside"),
        (HEAD + "link.png,x,y\n", "line 2: 'link.png' lies outside"),
        (HEAD + "up/secret.png,x,y\n", "line 2: 'up/secret.png' lies outside"),
        (HEAD + "a.png,x,y\n./a.png,x,z\n", "line 3: 'a.png' is named on line 2 already; give each of these lines an id"),
        (HEAD + "none.png,x,y\n", "line 2: there is no picture 'none.png'"),
        (HEAD + "sub,x,y\n", "line 2: there is no picture 'sub'"),
        (HEAD + "a.png,x\n", "line 2: 'target' is missing"),
        (HEAD + "a.png, ,y\n", "line 2: 'source' is missing or empty"),
        (HEAD + "a.png,a cat, asleep,y\n", "line 2: there are more fields"),
        (HEAD + 'a.png,"x,y\nb.png,x,y\n', "line 2: what begins here is no CSV"),
        (HEAD + 'a.png,"x\nx",y\nb.png,x\n', "line 4: 'target' is missing"),
        (HEAD + f"{'a' * 300}.png,x,y\n", "line 2: the picture 'aaa"),
        (HEAD + "loop.png,x,y\n", "line 2: the picture 'loop.png' cannot be looked for"),
        (HEAD + "empty.png,x,y\n", "is empty (0 bytes)"),
        (HEAD + "prompts.csv,x,y\n", "line 2: "),
        ("picture,source,target,id\na.png,x,y,1\na.png,x,z,2\nb.png,x,y,1\n", "line 4: the id '1' is that of line 2 already"),
        ("picture,source,target,id\na.png,x,y,\nb.png,x,y,a.png\n", "line 3: the id 'a.png' is that of line 2 already"),
        ("picture,source,target,mask\na.png,x,y,../secret.png\n", "line 2: '../secret.png' lies outside the folder; a mask"),
        ("picture,source,target,mask\na.png,x,y,none.png\n", "line 2: there is no mask 'none.png'"),
        ("picture,source,target,mask\na.png,x,y,tall.png\n", "line 2: the mask is 32x48 and its picture 48x32; give a mask"),
        ("picture,source,target,source\na.png,x,y,z\n", "line 1: the heading names 'source' twice"),
        ("picture,source\na.png,x\n", "line 1: the heading lacks target"),
        (HEAD, "names no picture"),
        ("", "line 1: the heading lacks picture, source, target"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, listing: str, message: str) -> None:
    place = folder(tmp_path, listing)
    os.symlink(tmp_path / "secret.png", place / "link.png")
    os.symlink(tmp_path, place / "up")
    os.symlink(place / "loop.png", place / "loop.png")
    (place / "empty.png").touch()
    Image.new("L", (32, 48), 255).save(place / "tall.png")
    with pytest.raises(ValueError, match="prompts") as caught:
        FolderCases(path=str(place)).take(None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ('{"picture": "a.png"\n', "line 1: this is no JSON"),
        ('{"picture": "a.png", "source": "x", "target": "y", "source": "z"}', "line 1: .*the key 'source' is there twice"),
        ("[1]\n", "line 1: a JSON object"),
        ('{"picture": "a.png", "source": "x", "target": "y", "id": "1\\n2"}', "line 1: 'id' holds a character that cannot be"),
        ('{"picture": "a.png", "source": "x", "target": "y", "kind": "\\u001b[31m"}', "line 1: 'kind' holds a character that"),
        ("\n{}\n", "line 2: 'picture' is missing or empty"),
        ('{"picture": "a.png", "source": "x", "target": "y", "id": 7}', "line 1: 'id' must be text, got 7"),
        ('{"picture": "a.png", "source": "x", "target": "\\ud800"}', "line 1: 'target' holds half a character"),
        ('{"picture": "a\\u0000.png", "source": "x", "target": "y"}', "line 1: 'picture' holds a null"),
    ],
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
    (place / "prompts.csv").write_bytes(HEAD.encode() + "a.png,café,x\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"prompts\.csv, line 2: this is not UTF-8 text"):
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


def test_a_line_may_have_an_id_a_kind_and_a_mask(tmp_path: Path) -> None:
    rows = "mask,picture,source,target,id,kind\nm.png,b.png,x,y,first,colour\n,b.png,x,z,second\n,a.png,x,z,,\n"
    place = folder(tmp_path, rows)
    white = np.zeros((32, 48), dtype=np.uint8)
    white[4:9, 10:30] = 255
    white[20, :] = 127  # darker than half
    white[21, :] = 128
    Image.fromarray(white).save(place / "m.png")
    first, second, third = FolderCases(path=str(place)).take(None)
    assert [(case.id, case.kind) for case in (first, second, third)] == [("first", "colour"), ("second", ""), ("a.png", "")]
    assert first.region is not None
    assert first.mask is not None
    assert first.region.shape == (1, 32, 48)
    assert torch.equal(first.mask, torch.from_numpy(white > 127)[None].float())
    assert second.region is None
    assert torch.equal(first.picture, second.picture)


def test_json_lines_may_have_them_too(tmp_path: Path) -> None:
    rows = '{"picture": "b.png", "source": "x", "target": "y", "id": "b", "kind": "colour", "mask": "a.png"}\n'
    (line,) = prompts(folder(tmp_path, rows, "prompts.jsonl"))
    assert (line.name, line.kind, line.mask) == ("b", "colour", tmp_path.resolve() / "mine" / "a.png")


def test_a_mask_goes_the_way_of_its_picture(tmp_path: Path) -> None:
    """The mask that is the picture itself, in black and white, marks its white pixels also after resizing and cutting."""
    place = folder(tmp_path, "picture,source,target,mask\nhalf.png,x,y,half.png\n")
    half = np.zeros((30, 50, 3), dtype=np.uint8)
    half[:, 23:] = 255
    Image.fromarray(half).save(place / "half.png")
    for options in ({"side": 16}, {"multiple": 8}, {"side": 64, "multiple": 8}):
        (case,) = FolderCases(path=str(place), **options).take(None)
        with pytest.warns(UserWarning, match="half"):
            picture = case.picture
        mask = case.mask
        assert mask is not None
        assert case.region is not None
        assert mask.shape[1:] == picture.shape[1:] == case.shape[1:] == case.region.shape[1:]
        assert torch.equal(mask, (picture.mean(0, keepdim=True) >= 0.5).float())
        assert 0.4 < mask.mean() < 0.6


@pytest.mark.parametrize(("mode", "value", "message"), [("L", 1, "black all over"), ("LA", (255, 0), "transparent in places")])
def test_a_mask_that_says_nothing_is_refused_with_its_line(
    tmp_path: Path, mode: str, value: int | tuple[int, int], message: str
) -> None:
    place = folder(tmp_path, "picture,source,target,mask\na.png,x,y,m.png\n")
    Image.new(mode, (48, 32), value).save(place / "m.png")
    cases = FolderCases(path=str(place))
    (case,) = cases.take(None)
    with pytest.raises(ValueError, match=rf"prompts\.csv, line 2: the mask .*{message}"):
        _ = case.mask
    (fault,) = cases.faults()
    assert fault is not None
    assert message in fault


def test_all_faults_are_told_and_what_is_in_order_too(tmp_path: Path) -> None:
    rows = "a.png,x,y\n../secret.png,x,y\n\nb.png,,y\nb.png,x,y,z\ncut.png,x,y\nsub/a.png,x,y\na.png,x,y\ncut.png,x,y\n"
    place = folder(tmp_path, HEAD + rows)
    (place / "cut.png").write_bytes((place / "a.png").read_bytes()[:60])
    cases = FolderCases(path=str(place))
    told = list(cases.faults())
    assert [None if one is None else one.partition(": ")[0] for one in told] == [
        None,
        "prompts.csv, line 3",
        "prompts.csv, line 5",
        "prompts.csv, line 6",
        "prompts.csv, line 7",
        None,
        "prompts.csv, line 9",
        "prompts.csv, line 10",
    ]
    assert "damaged" in str(told[4])
    with pytest.raises(ValueError, match="lies outside") as caught:
        cases.take(None)
    assert str(caught.value) == told[1]
    assert "is not a folder" in str(*FolderCases(path=str(tmp_path / "none")).faults())


def test_every_line_that_is_no_text_is_told(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD)
    (place / "prompts.csv").write_bytes(HEAD.encode() + b"a.png,x,y\nb.png,\xe9,y\nsub/a.png,\xc3\xa9,\xff\n")
    told = list(FolderCases(path=str(place)).faults())
    assert [str(one).partition(": ")[0] for one in told] == ["prompts.csv, line 3", "prompts.csv, line 4"]


def test_what_follows_a_line_that_is_no_csv_is_looked_at_too(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD + 'a.png,"x"x,y\nb.png,x,y\nnone.png,x,y\n')
    told = list(FolderCases(path=str(place)).faults())
    assert [one and one.partition(": ")[0] for one in told] == ["prompts.csv, line 2", None, "prompts.csv, line 4"]


def test_a_folder_is_known_by_its_list(tmp_path: Path) -> None:
    place = folder(tmp_path, HEAD)
    assert FolderCases.recognises(place)
    assert not FolderCases.recognises(place / "sub")
    assert not FolderCases.recognises(place / "a.png")


def test_pictures_are_edited_under_names_that_differ(tmp_path: Path) -> None:
    """`fe edit FOLDER` calls its results after the ids, or the files."""
    rows = "picture,source,target,id\na.png,x,y,dog.v1\na.png,x,z,dog.v2\nb.png,x,y,\nsub/a.png,x,y,a.png\n"
    place = folder(tmp_path, rows)
    assert [one.name for one in subjects(str(place))] == ["dog.v1", "dog.v2", "b", "a"]
    assert [one.target for one in subjects(str(place))] == ["y", "z", "y", "y"]
    (place / "prompts.csv").write_text("picture,source,target,id\na.png,x,y,a/b\na.png,x,z,a-b\n")
    with pytest.raises(ValueError, match=r"the results of 'a/b' and 'a-b' would have the same name"):
        subjects(str(place))
