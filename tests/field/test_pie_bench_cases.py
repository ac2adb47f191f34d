"""PIE-Bench's data as cases: what its list says, its masks as its own decoder makes them, and bad data refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases import pie_bench as module
from fe.cases.base import Stored
from fe.cases.pictures import Picture
from fe.cases.pie_bench import PieBenchCases, decode_mask
from fe.options import OptionError
from fe.registry import CASES
from PIL import Image

STYLE, RANDOM = "911000000000", "000000000000"


def by_the_book(runs: Sequence[int]) -> np.ndarray[Any, Any]:
    """The mask as the definition has it, pixel by pixel: (512, 512) of 0 and 1."""
    inside = {pixel for start, length in zip(runs[::2], runs[1::2], strict=True) for pixel in range(start, start + length)}
    mask = np.zeros((512, 512))
    for pixel in inside:
        row, column = divmod(pixel, 512)
        if row < 512:
            mask[row, column] = 1
    for place in range(512):
        mask[0, place] = mask[511, place] = mask[place, 0] = mask[place, 511] = 1
    return mask


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> PieBenchCases:
    """The set after `edit` has changed what its list holds."""
    listing = folder / "mapping_file.json"
    held = json.loads(listing.read_text())
    edit(held)
    listing.write_text(json.dumps(held))
    return PieBenchCases(str(folder))


def refusal(cases: PieBenchCases) -> str:
    """What `take` says, which `faults` says too."""
    with pytest.raises(ValueError, match=r"mapping_file\.json") as caught:
        cases.take(None)
    assert str(caught.value) in list(cases.faults())
    return str(caught.value)


def test_cases_are_what_the_list_says_in_its_order(pie_bench: Path) -> None:
    cases = CASES["pie-bench"](path=str(pie_bench)).take(None)
    assert [case.id for case in cases] == [
        "211000000000",
        "000000000000",
        "111000000000",
        "624000000003",
        "911000000000",
        "112000000001",
    ]
    kinds = ["add object", "random", "change object", "change colour", "change style", "change object"]
    assert [case.kind for case in cases] == kinds
    assert (cases[1].source, cases[1].target) == ("a red circle", "a blue circle")
    assert (cases[5].source, cases[5].target) == ("a woman with an apple and a cup", "a woman with a pear and a jug")
    for number, case in enumerate(cases):
        assert case.shape == (3, 512, 512) == tuple(case.picture.shape)
        colour = torch.tensor([40 * number, 128, 255 - 40 * number]) / 255
        assert (case.picture - colour[:, None, None]).abs().max() < 3 / 255  # as near as JPEG keeps it
    assert list(PieBenchCases(str(pie_bench)).faults()) == [None] * 6


def test_the_first_cases_are_the_same_cases(pie_bench: Path) -> None:
    cases = PieBenchCases(str(pie_bench))
    assert [case.id for case in cases.take(2)] == ["211000000000", "000000000000"]
    assert cases.case(2).id == "111000000000"


def test_categories_are_chosen_by_their_numbers(pie_bench: Path) -> None:
    assert [case.id for case in PieBenchCases(str(pie_bench), "9, 1").take(None)] == [
        "111000000000",
        "911000000000",
        "112000000001",
    ]
    with pytest.raises(OptionError, match=r"must be among 0, 1, .*, 9, or all; got '10'"):
        PieBenchCases(str(pie_bench), "1,10")
    with pytest.raises(ValueError, match="no entry of the categories 5; ask for others, or for all"):
        PieBenchCases(str(pie_bench), "5").take(None)


def test_an_entry_of_a_category_that_is_not_asked_for_may_be_wrong(pie_bench: Path) -> None:
    cases = change(pie_bench, lambda held: held[STYLE].update(mask="none"))
    assert refusal(cases) == "mapping_file.json, 911000000000: 'mask' must be a list of starts and lengths, got 'none'"
    assert len(PieBenchCases(str(pie_bench), "1").take(None)) == 2


def test_a_folder_is_recognised_by_its_list(pie_bench: Path, tmp_path: Path) -> None:
    assert PieBenchCases.recognises(pie_bench)
    assert not PieBenchCases.recognises(tmp_path)
    assert not PieBenchCases.recognises(pie_bench / "annotation_images")
    assert "no licence is stated" in PieBenchCases.licence


RUNS = {
    "none": [],
    "one": [1000, 1],
    "over two rows": [512 * 3 + 500, 30],
    "overlapping": [5000, 400, 5200, 600],
    "of no length": [7000, 0, 9000, 5],
    "cut at the end": [512 * 510 + 100, 100_000],
    "beyond the end": [512 * 512 + 5, 10, 3000, 2],
    "everything": [0, 512 * 512],
}


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_a_mask_is_its_runs_and_the_border(runs: list[int]) -> None:
    mask = decode_mask(runs)
    assert (mask.shape, mask.dtype) == ((1, 512, 512), torch.float32)
    np.testing.assert_array_equal(mask[0].numpy(), by_the_book(runs))


def test_a_case_carries_its_mask(pie_bench: Path) -> None:
    cases = {case.id: case for case in PieBenchCases(str(pie_bench)).take(None)}
    box = by_the_book([])
    box[100:300, 200:450] = 1
    mask = cases[RANDOM].mask
    assert mask is not None
    np.testing.assert_array_equal(mask[0].numpy(), box)
    sums = {id: case.mask.sum() for id, case in cases.items() if case.mask is not None}
    assert sums[STYLE] == 512 * 512
    assert sums["112000000001"] == 4 * 511  # the border alone


def test_nothing_is_read_before_it_is_looked_at(pie_bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def refuse(path: Path) -> Picture:
        looked.append(path)
        raise ValueError("read")

    monkeypatch.setattr(module, "read", refuse)
    cases = PieBenchCases(str(pie_bench)).take(None)
    assert looked == []
    assert all(isinstance(case.content, Stored) and isinstance(case.region, Stored) for case in cases)
    with pytest.raises(ValueError, match="000000000000: read"):
        _ = cases[1].picture
    assert [path.name for path in looked] == ["000000000000.jpg"]


BAD_FIELDS = {
    "mask missing": ("mask", None, "'mask' must be a list of starts and lengths, got nothing"),
    "mask an object": ("mask", {"size": 3}, "'mask' must be a list of starts and lengths, got an object"),
    "mask of odd length": ("mask", [0, 5, 9], "'mask' must hold pairs of a start and a length, got 3 numbers"),
    "mask with a negative": ("mask", [0, -5], "'mask' must hold whole numbers from 0 on, got -5"),
    "mask with text": ("mask", [0, "5"], "'mask' must hold whole numbers from 0 on, got '5'"),
    "mask with a fraction": ("mask", [0.5, 5], "'mask' must hold whole numbers from 0 on, got 0.5"),
    "mask with a truth value": ("mask", [True, 5], "'mask' must hold whole numbers from 0 on, got True"),
    "mask nested": ("mask", [[0, 5]], r"'mask' must hold whole numbers from 0 on, got [0, 5]"),
    "type a number": ("editing_type_id", 3, "'editing_type_id' must be text, got 3"),
    "type unknown": ("editing_type_id", "12", "'editing_type_id' must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got '12'"),
    "prompt missing": ("editing_prompt", None, "'editing_prompt' must be text, got nothing"),
    "prompt a list": ("original_prompt", ["a"], "'original_prompt' must be text, got ['a']"),
    "picture missing": ("image_path", "0_random_140/7.jpg", "there is no picture '0_random_140/7.jpg' in annotation_images"),
    "picture a folder": ("image_path", "0_random_140", "there is no picture '0_random_140' in annotation_images"),
    "picture outside": ("image_path", "../secret.jpg", "'../secret.jpg' lies outside annotation_images"),
    "picture absolute": ("image_path", "/etc/passwd", "'/etc/passwd' lies outside annotation_images"),
    "picture strange": ("image_path", "a\0b.jpg", "'image_path' holds a null character or half a character, 'a\\x00b.jpg'"),
    "picture's name too long": (
        "image_path",
        "n" * 5000,
        "the picture 'nnnnnnnnnnnn...nnnnnnnnnnnnn' cannot be looked for (",
    ),
    "half a character": ("editing_prompt", "a \ud800 dog", "'editing_prompt' holds a null character or half a character"),
}


@pytest.mark.parametrize(("field", "value", "said"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_bad_field_is_named_with_its_entry(pie_bench: Path, field: str, value: object, said: str) -> None:
    (pie_bench / "secret.jpg").write_bytes(b"\xff\xd8")

    def spoil(held: dict[str, Any]) -> None:
        held[RANDOM][field] = value
        if value is None:
            del held[RANDOM][field]

    assert refusal(change(pie_bench, spoil)).startswith(f"mapping_file.json, {RANDOM}: {said}")


def test_a_link_out_of_the_folder_is_refused(pie_bench: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.jpg"
    Image.new("RGB", (512, 512)).save(outside)
    picture = pie_bench / "annotation_images" / "0_random_140" / f"{RANDOM}.jpg"
    picture.unlink()
    picture.symlink_to(outside)
    assert "lies outside annotation_images" in refusal(PieBenchCases(str(pie_bench)))


def test_a_link_to_itself_is_a_fault_of_its_entry(pie_bench: Path) -> None:
    picture = pie_bench / "annotation_images" / "0_random_140" / f"{RANDOM}.jpg"
    picture.unlink()
    picture.symlink_to(picture.name)
    assert "cannot be looked for" in refusal(PieBenchCases(str(pie_bench)))


@pytest.mark.parametrize("key", ["", " ", "\ud800", "\x1b[31m7"])
def test_a_key_must_do_as_an_id(pie_bench: Path, key: str) -> None:
    cases = change(pie_bench, lambda held: held.update({key: held.pop(RANDOM)}))
    assert refusal(cases) == f"mapping_file.json: the key {key!r} cannot be the id of a case; give the entry another"


def test_faults_are_all_of_them(pie_bench: Path) -> None:
    def spoil(held: dict[str, Any]) -> None:
        held[RANDOM].update(mask=[1, -2, 3], editing_prompt=5)
        held[STYLE] = "a picture"

    images = pie_bench / "annotation_images"
    small = next(images.rglob("211000000000.jpg"))
    Image.new("RGB", (512, 256)).save(small)
    damaged = next(images.rglob("111000000000.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:500])
    found = list(change(pie_bench, spoil).faults())
    assert found.count(None) == 2  # the two that are in order
    wanted = [
        r"mapping_file.json, 211000000000: .*211000000000.jpg' is 512x256; pictures and masks are 512x512",
        r"mapping_file.json, 000000000000: 'editing_prompt' must be text, got 5",
        r"mapping_file.json, 000000000000: 'mask' must hold whole numbers from 0 on, got -2",
        r"mapping_file.json, 000000000000: 'mask' must hold pairs of a start and a length, got 3 numbers, .*",
        r"mapping_file.json, 111000000000: .*111000000000.jpg' .* damaged.*",
        r"mapping_file.json, 911000000000: an object is wanted, got str",
    ]
    for said, pattern in zip(filter(None, found), wanted, strict=True):
        assert re.fullmatch(pattern, said), said


def test_keys_that_are_there_twice_are_refused(pie_bench: Path) -> None:
    listing = pie_bench / "mapping_file.json"
    text = listing.read_text()
    listing.write_text(text.replace('"111000000000":', f'"{RANDOM}":'))
    assert refusal(PieBenchCases(str(pie_bench))) == f"mapping_file.json: the key '{RANDOM}' is there 2 times; leave one"
    listing.write_text(text.replace('"blended_word": "cat dog"', '"mask": []'))
    assert refusal(PieBenchCases(str(pie_bench))).endswith("111000000000: the key 'mask' is there 2 times; leave one")


BAD_FILES = {
    "absent": (None, "there is no mapping_file.json in .*; give PIE-Bench's folder"),
    "not UTF-8": ('{"a": "caf\xe9"}'.encode("latin-1"), r"mapping_file.json' is not UTF-8 text \(invalid .* at byte 10\)"),
    "cut short": (b'{"a": {', r"mapping_file.json' is no JSON \(.*line 1 column 8"),
    "too deep": (b'{"a":' + b"[" * 200_000, "mapping_file.json' is no JSON"),
    "a list": (b"[]", "must hold a JSON object with an entry for each picture"),
    "empty": (b"{}", "must hold a JSON object with an entry for each picture"),
}


@pytest.mark.parametrize(("content", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_list_is_refused(pie_bench: Path, content: bytes | None, said: str) -> None:
    listing = pie_bench / "mapping_file.json"
    listing.unlink()
    if content is not None:
        listing.write_bytes(content)
    assert re.search(said, refusal(PieBenchCases(str(pie_bench))))


def test_no_case_is_no_count(pie_bench: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 case must be asked for, got 0"):
        PieBenchCases(str(pie_bench)).take(0)


def test_ten_thousand_entries_are_listed_without_reading_a_picture(pie_bench: Path) -> None:
    def grow(held: dict[str, Any]) -> None:
        one = held[RANDOM] | {"mask": [3000, 70]}
        held.clear()
        held.update({f"{number:012}": one for number in range(10_000)})

    cases = change(pie_bench, grow).take(None)
    assert [cases[0].id, cases[-1].id, len(cases)] == ["000000000000", "000000009999", 10_000]
    assert all(isinstance(case.content, Stored) and isinstance(case.region, Stored) for case in cases)
