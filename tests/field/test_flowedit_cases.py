"""FlowEdit's data set and lists in its format: every edit of the list, what is wrong in published ones made good and said, and
what cannot be used refused with its line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fe.cases.base import Case
from fe.cases.flowedit import FlowEditCases, kind_of
from fe.experiments.records import picture_name
from fe.options import OptionError
from fe.registry import CASES
from PIL import Image

ENTRY = "- init_img: a.png\n  source_prompt: one\n  target_prompts: [two]\n"
"""A whole list of one edit."""


def quietly(path: Path, count: int | None = None, **options: Any) -> Sequence[Case]:
    """The cases, and no word about what was made good on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FlowEditCases(str(path), **options).take(count)


def said(path: Path, **options: Any) -> list[str]:
    """The warnings of taking all cases, without the folder."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        FlowEditCases(str(path), **options).take(None)
    return [str(one.message).replace(f"{path}/", "") for one in found]


def ids(cases: Sequence[Case]) -> list[str]:
    return [case.id for case in cases]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures a.png and b.png, and a list of one edit of the first."""
    for number, name in enumerate("ab"):
        Image.new("RGB", (20, 12), (0, 100 * number, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "edits.yaml").write_text(ENTRY)
    return tmp_path


def refusal(folder: Path, text: str) -> str:
    """What is said of a list of that text, without the folder; `faults` tells it first."""
    (folder / "edits.yaml").write_bytes(text.encode())
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        FlowEditCases(str(folder)).take(None)
    assert next(FlowEditCases(str(folder)).faults()) == str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def test_every_target_prompt_is_a_case_in_the_order_of_the_list(flowedit_set: Path) -> None:
    cases = quietly(flowedit_set)
    assert ids(cases) == [
        "fox/1_wolf",
        "fox/2_sculpture",
        "coconut/1_cup",
        "shop/1_closed",
        "shop/2_door",
        "shop/3",
        "meditation2/1_anime",
    ]
    assert [case.kind for case in cases] == ["object", "style", "object", "lettering", "object", "lettering", "style"]
    listed = yaml.safe_load((flowedit_set / "flowedit.yaml").read_text())
    pairs = [(entry["source_prompt"], target) for entry in listed for target in entry["target_prompts"]]
    assert [(case.source, case.target) for case in cases] == pairs  # doubled apostrophes of plain YAML text included
    for case, name in zip(cases, ("fox", "fox", "coconut", "shop", "shop", "shop", "meditation2"), strict=True):
        values = np.asarray(Image.open(flowedit_set / "Images" / f"{name}.png")).astype(np.float64) / 255.0
        opaque = values[..., 3:] if values.shape[2] == 4 else 1.0
        seen = torch.from_numpy(values[..., :3] * opaque + 1.0 - opaque).permute(2, 0, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert case.shape == (3, 64, 64) == tuple(case.picture.shape)
            assert (case.picture - seen).abs().max() <= 1.0 / 255.0
    assert ids(quietly(flowedit_set, 3)) == ids(cases)[:3]
    assert CASES["flowedit"] is FlowEditCases
    assert "academic use only" in FlowEditCases.licence


def test_a_run_has_a_file_for_every_id(flowedit_set: Path) -> None:
    assert len({picture_name("source", id) for id in ids(quietly(flowedit_set))}) == 7


def test_what_is_wrong_in_the_published_set_is_made_good_and_said(flowedit_set: Path) -> None:
    expected = [
        "flowedit.yaml, line 17: there is no picture 'flowedit_data/coconut_out.png'; coconut.png is meant and taken",
        "flowedit.yaml, line 26: shop.png: target_prompts has 3 texts, target_codes 2; the rest are called by their places",
        "flowedit.yaml, line 38: there is no picture 'flowedit_data/meditation1.png'; meditation2.png is meant and taken",
    ]
    assert said(flowedit_set) == expected
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert list(FlowEditCases(str(flowedit_set)).faults()) == [None] * 7
    assert [str(one.message).replace(f"{flowedit_set}/", "") for one in found] == [
        *expected,
        "dataset.csv: names that no picture of the list has: cocount",
        "dataset.csv: pictures without a URL, of which nobody can look up whose they are: cocount",
        "coconut: its transparency is laid on white",
    ]


def test_where_a_wrong_name_has_a_picture_that_picture_is_taken(flowedit_set: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(flowedit_set / "Images" / "coconut_out.png")
    assert not any("coconut" in one for one in said(flowedit_set))
    coconut = quietly(flowedit_set)[2]
    assert coconut.id == "coconut/1_cup"
    assert coconut.picture[:, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_pictures_are_read_when_they_are_looked_at_and_once(flowedit_set: Path) -> None:
    wolf, sculpture, *_ = quietly(flowedit_set)
    assert wolf.picture is sculpture.picture
    cases = quietly(flowedit_set)
    (flowedit_set / "Images" / "fox.png").write_bytes(b"no picture any more")
    with pytest.raises(ValueError, match=r"flowedit\.yaml, line 2: .*fox\.png' is no picture"):
        _ = cases[0].picture


def test_squares_and_kinds_are_chosen(flowedit_set: Path) -> None:
    Image.new("RGB", (40, 20)).save(flowedit_set / "Images" / "fox.png")
    assert [case.shape for case in quietly(flowedit_set, 3)] == [(3, 20, 40), (3, 20, 40), (3, 64, 64)]
    squares = quietly(flowedit_set, side=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {(case.shape, tuple(case.picture.shape)) for case in squares} == {((3, 16, 16), (3, 16, 16))}
    assert ids(quietly(flowedit_set, kinds="style, lettering", count=3)) == ["fox/2_sculpture", "shop/1_closed", "shop/3"]
    with pytest.raises(OptionError, match="must be among object, style, lettering, or all; got 'letters'"):
        FlowEditCases(kinds="letters")
    (flowedit_set / "flowedit.yaml").write_text("- init_img: Images/fox.png\n  source_prompt: a\n  target_prompts: [b]")
    with pytest.raises(ValueError, match="has no edit of the kind style"):
        quietly(flowedit_set, kinds="style")


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ('a sign that reads "CAFE"', 'a sign that reads "CVPR"', "lettering"),
        ('a sign that reads "CAFE" at noon', 'a sign at night that reads "CAFE."', "object"),
        ("a \u201cyes\u201d on a wall", "a \u201cno\u201d on a wall", "lettering"),
        ("a stop sign in a field", "a sign that says HOME in a field", "lettering"),
        ("a neon sign for a bar called Ada", "a neon sign for a bar called Bea", "lettering"),
        ("a van before a house", "a SUV before a house", "object"),  # capitals, and nothing to write on
        ("a dog called Ada", "a dog called Bea", "object"),
        ("a house", "an oil painting of a house", "style"),
        ("a painting of roses", "a painting of tulips", "object"),  # it was one before
        ("a house", "a house in PIXEL ART", "style"),
        ("a clayey field", "a restyled field", "object"),  # whole words only
        ('a sketch with "A"', 'a sculpture with "B"', "lettering"),
    ],
)
def test_kinds_are_told_by_the_prompts(source: str, target: str, kind: str) -> None:
    assert kind_of(source, target) == kind


def test_tags_go_before_the_rule_of_thumb(flowedit_set: Path) -> None:
    tags = flowedit_set / "tags.csv"
    tags.write_text("id, kind\nfox/1_wolf,style\n\nfox/2_sculpture, object\n", encoding="utf-8-sig")
    assert [case.kind for case in quietly(flowedit_set, 3)] == ["style", "object", "object"]
    tags.write_text("id,kind\nfox/1_wolf,style\nfox/1_wolf,object\nfox/9,object\nshop/3,letters\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faults = [fault for fault in FlowEditCases(str(flowedit_set)).faults() if fault]
    assert [fault.removeprefix(f"{flowedit_set}/") for fault in faults] == [
        "tags.csv, line 3: 'fox/1_wolf' has a kind already; once is enough",
        "tags.csv, line 4: flowedit.yaml has no edit 'fox/9'",
        "tags.csv, line 5: a kind is one of object, style, lettering, got 'letters'",
    ]
    with pytest.raises(ValueError, match=r"tags\.csv, line 3"):
        quietly(flowedit_set)
    for text, wrong in (
        (b"id,tag\n", "line 1: the heading must name id, kind, got id, tag"),
        (b"", "line 1: the heading must name id, kind, got nothing"),
        (b"id,kind\nfox/1_wolf\n", "line 2: 2 fields are wanted, got 1"),
        (b'id,kind\n"fox,style\n', "line 2: unexpected end of data"),
        (b"id,kind\nf\xf6x,style\n", "line 2: this is not UTF-8 text"),
    ):
        tags.write_bytes(text)
        with pytest.raises(ValueError, match=f"tags.csv, {wrong}"):
            quietly(flowedit_set)


def test_a_list_is_found_by_its_folder_its_name_or_an_experiment(folder: Path) -> None:
    text = "- dataset_yaml: lists/edits.yaml\n  n_max: 24\n- exp_name: second\n  dataset_yaml: lists/edits.yaml\n"
    (folder / "FLUX_exp.yaml").write_text(text)
    (folder / "lists").mkdir()
    (folder / "lists" / "edits.yaml").write_text(ENTRY.replace("init_img: a", "input_img: b").replace("two]", "two, three]"))
    assert ids(quietly(folder)) == ids(quietly(folder / "edits.yaml")) == ["a/1"]
    through = quietly(folder / "FLUX_exp.yaml")  # its pictures are named from where the experiment is, as the scripts run there
    assert ids(through) == ["b/1", "b/2"]
    assert through[0].picture[1].mean() == pytest.approx(100 / 255)
    Image.new("RGB", (8, 8), "white").save(folder / "lists" / "b.png")
    assert quietly(folder / "FLUX_exp.yaml")[0].picture.mean() == 1.0  # the list's own folder goes first
    assert FlowEditCases.recognises(folder)
    assert FlowEditCases.recognises(folder / "FLUX_exp.yaml")
    assert FlowEditCases.recognises(folder / "edits.yaml")
    assert not FlowEditCases.recognises(folder / "a.png")
    assert not FlowEditCases.recognises(folder / "other_exp.yaml")
    shutil.move(folder / "edits.yaml", folder / "mine.yaml")
    assert not FlowEditCases.recognises(folder)
    (folder / "exp.yaml").write_text(text)
    assert ids(quietly(folder)) == ["b/1", "b/2"]


def test_what_is_no_list_of_edits_is_refused(folder: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            FlowEditCases(str(path)).take(None)
        return str(caught.value)

    assert "there is no folder or file" in refused(folder / "absent")
    (folder / "flowedit.yaml").write_text(ENTRY)
    assert "has both flowedit.yaml and edits.yaml" in refused(folder)
    (folder / "inner").mkdir()
    assert "has none of flowedit.yaml, edits.yaml, exp.yaml" in refused(folder / "inner")
    experiment = folder / "inner" / "exp.yaml"
    for text, wrong in (
        ("- dataset_yaml: none.yaml", "line 1: there is no list of edits 'none.yaml'"),
        ("- dataset_yaml: ../edits.yaml", "line 1: '../edits.yaml' lies outside the folder of the experiment file"),
        ("- dataset_yaml: link.yaml", "line 1: 'link.yaml' lies outside the folder of the experiment file"),
        ("- dataset_yaml: a\n- dataset_yaml: b", "line 2: 'b' is a second list, after 'a'"),
        ("- dataset_yaml: a\n- seed: 1", "line 2: an experiment must have a dataset_yaml"),
        ("- dataset_yaml: [a]", "line 1: an experiment must have a dataset_yaml"),
    ):
        (folder / "inner" / "link.yaml").unlink(missing_ok=True)
        (folder / "inner" / "link.yaml").symlink_to(folder / "edits.yaml")
        experiment.write_text(text)
        assert f"exp.yaml, {wrong}" in refused(folder / "inner")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "edits.yaml is empty; a list of edits is wanted"),
        ("[]", "edits.yaml, line 1: a list of edits is wanted, got an empty one"),
        ("init_img: a.png", "edits.yaml, line 1: a list of edits is wanted, got a mapping"),
        ("- a.png", "edits.yaml, line 1: an entry is a mapping with init_img, source_prompt and target_prompts, got 'a.png'"),
        (
            "\n- source_prompt: b\n  target_prompts: [c]",
            "edits.yaml, line 2: an entry names one picture, as init_img or input_img;",
        ),
        (
            ENTRY + "  input_img: a.png",
            "edits.yaml, line 1: an entry names one picture, as init_img or input_img; this one has 2",
        ),
        ("- init_img: a.png\n  target_prompts: [c]", "edits.yaml, line 1: the entry has no source_prompt"),
        ("- init_img: a.png\n  source_prompt: c", "edits.yaml, line 1: the entry has no target_prompts"),
        (ENTRY.replace("one", "[one]"), "edits.yaml, line 2: source_prompt takes one text, got a list"),
        (ENTRY.replace("[two]", "two"), "edits.yaml, line 3: target_prompts takes a list of texts, got 'two'"),
        (ENTRY.replace("[two]", "[]"), "edits.yaml, line 3: target_prompts takes a list of texts, got an empty one"),
        (ENTRY.replace("[two]", "\n    - two\n    - ' '"), "edits.yaml, line 5: target_prompts holds texts, got ' '"),
        (ENTRY.replace("[two]", "\n    - two\n    -"), "edits.yaml, line 5: a value is missing"),
        (ENTRY.replace("[two]", "[{a: b}]"), "edits.yaml, line 3: target_prompts holds texts, got a mapping"),
        (ENTRY + "  target_codes: [a, b]", "edits.yaml, line 4: target_codes has 2 texts, and target_prompts 1"),
        (ENTRY + ENTRY, "edits.yaml, line 6: 'a/1' is or reads like the edit of line 3; give it another code"),
        (ENTRY + "  target_codes: [x y]\n" + ENTRY + "  target_codes: [x:y]", "edits.yaml, line 7: 'a/x:y' is or reads like"),
        (ENTRY + f"  target_codes: [{'x' * 149}]", "edits.yaml, line 3: the edit's id would have 151 characters"),
        (ENTRY.replace("a.png", "c.png"), "edits.yaml, line 1: there is no picture 'c.png'"),
        (ENTRY.replace("a.png", "flowedit_data/meditation1.png"), "edits.yaml, line 1: there is no picture 'flowedit_data/med"),
        (ENTRY.replace("a.png", "../a.png"), "edits.yaml, line 1: '../a.png' lies outside the folder"),
        (
            ENTRY.replace("a.png", "flowedit_data/../../../a.png"),
            "edits.yaml, line 1: 'flowedit_data/../../../a.png' lies outsi",
        ),
        (ENTRY.replace("a.png", "/etc/hostname"), "edits.yaml, line 1: '/etc/hostname' lies outside the folder"),
        (ENTRY.replace("a.png", '"a\\0.png"'), "edits.yaml, line 1: 'a\\x00.png' lies outside the folder"),
        (ENTRY.replace("a", "x" * 300 + "/a", 1), "edits.yaml, line 1: there is no picture 'xxx"),
        (ENTRY.replace("a.png", "edits.yaml"), "edits.yaml, line 1: "),
        (
            ENTRY.replace("two", "!!python/name:os.system two"),
            "edits.yaml, line 3: tags are not read, got !!python/name:os.system",
        ),
        (ENTRY.replace("one", "&a one"), "edits.yaml, line 2: anchors (&name) and aliases (*name) are not read"),
        (ENTRY + "  source_prompt: again", "edits.yaml, line 4: 'source_prompt' stands on line 2 already"),
        (ENTRY + "---\n" + ENTRY, "edits.yaml, line 5: a second document begins"),
        (ENTRY + "  - : [", "edits.yaml, line 4: this is no YAML"),
    ],
)
def test_a_line_that_is_wrong_is_refused_by_its_number(folder: Path, text: str, wrong: str) -> None:
    assert refusal(folder, text).startswith(wrong)


def test_text_that_is_not_utf_8_is_refused_by_its_line(folder: Path) -> None:
    (folder / "edits.yaml").write_bytes(ENTRY.encode() + b"# caf\xe9\n")
    with pytest.raises(ValueError, match=r"edits\.yaml, line 4: this is not UTF-8 text"):
        quietly(folder)


@pytest.mark.parametrize("linked", ["a.png", "Images"])
def test_pictures_outside_of_the_folder_are_refused_through_links_too(folder: Path, linked: str) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / linked).symlink_to(folder / ("a.png" if linked == "a.png" else ""))
    name = "a.png" if linked == "a.png" else "flowedit_data/a.png"
    (inner / "edits.yaml").write_text(ENTRY.replace("a.png", name))
    with pytest.raises(ValueError, match=f"line 1: '{name}' lies outside the folder"):
        quietly(inner)
    (inner / linked).unlink()
    (inner / linked).symlink_to(linked)  # a circle
    with pytest.raises(ValueError, match=f"line 1: .*'{name}'"):
        quietly(inner)


def test_all_faults_are_told_and_what_is_whole_is_still_looked_at(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"GIF89a")
    absent = ENTRY.replace("a.png", "c.png")
    (folder / "edits.yaml").write_text(ENTRY + absent + ENTRY.replace("a.png", "b.png") + "- 3\n" + ENTRY)
    told = [fault and fault.removeprefix(f"{folder}/") for fault in FlowEditCases(str(folder)).faults()]
    assert [fault and fault[:19] for fault in told] == [
        "edits.yaml, line 10",
        "edits.yaml, line 13",
        "edits.yaml, line 4:",
        None,
        "edits.yaml, line 7:",
        None,
    ]
    assert told[2] == "edits.yaml, line 4: there is no picture 'c.png'; put it there, or set missing to skip"


def test_a_part_of_the_set_can_be_used_and_what_is_left_out_is_said(flowedit_set: Path) -> None:
    (flowedit_set / "Images" / "fox.png").unlink()
    (flowedit_set / "Images" / "meditation2.png").unlink()
    with pytest.raises(ValueError, match=r"line 2: there is no picture 'flowedit_data/fox\.png'"):
        quietly(flowedit_set)
    assert ids(quietly(flowedit_set, missing="skip")) == ["coconut/1_cup", "shop/1_closed", "shop/2_door", "shop/3"]
    left = "flowedit.yaml: left out, as their pictures are not there: fox, meditation2 (pictures: 2, edits: 3)"
    assert left in said(flowedit_set, missing="skip")
    shutil.rmtree(flowedit_set / "Images")
    with pytest.raises(ValueError, match=r"none of the pictures of .*flowedit\.yaml is there; 'flowedit_data/fox\.png' is"):
        quietly(flowedit_set, missing="skip")


def test_an_empty_source_prompt_is_one_where_it_is_written(folder: Path) -> None:
    (folder / "edits.yaml").write_text(ENTRY.replace("one", '""'))
    assert quietly(folder)[0].source == ""
    assert refusal(folder, ENTRY.replace("one", "")).startswith("edits.yaml, line 2: a value is missing")


def test_keys_that_are_not_read_are_said_once(folder: Path) -> None:
    (folder / "edits.yaml").write_text(ENTRY + "  mask: m.png\n" + ENTRY.replace("a.png", "b.png") + "  mask: n.png\n")
    assert said(folder) == ["edits.yaml: what its entries say under mask is not read"]
