"""Typed options: text to values, ranges, and sentences for what does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from fe.options import OptionError, by_name, check, describe, option, parse, typed


@dataclass(frozen=True)
class Sample:
    steps: int = option(28, "how many steps", low=1, high=100)
    strength: float = option(0.5, "how strong", low=0.0)
    ceiling: float = option(0.0, "at the most nothing", high=0.0)
    limit: int | None = option(None, "stop after; none for no limit", low=1)
    either: int | float = option(1, "a number")
    how: str = option("replace", "which way", choices=("replace", "add"))
    where: Literal["cpu", "gpu"] = option("cpu", "on what")
    verbose: bool = option(False, "say more")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Sampled:
    n_max: int = 3


@dataclass(frozen=True)
class Needy:
    folder: str


class Plain:
    """What a plug-in may be: a class without options."""


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "12", 12),
        ("strength", "1e-1", 0.1),
        ("limit", "none", None),
        ("limit", "All", None),
        ("limit", "3", 3),
        ("either", "2", 2),
        ("either", "2.5", 2.5),
        ("how", "add", "add"),
        ("where", "gpu", "gpu"),
        ("verbose", "yes", True),
        ("verbose", "Off", False),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(name: str, text: str, value: Any) -> None:
    parsed = parse(Sample, {name: text})
    assert parsed == {name: value}
    assert type(parsed[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("steps", "2.5", "Sample.steps must be a whole number, got '2.5'"),
        ("strength", "strong", "Sample.strength must be a number, got 'strong'"),
        ("limit", "few", "Sample.limit must be a whole number, got 'few'"),
        ("either", "x", "Sample.either must be a whole number or a number, got 'x'"),
        ("where", "tpu", "Sample.where must be cpu or gpu, got 'tpu'"),
        ("verbose", "2", "Sample.verbose must be true or false, got '2'"),
        ("step", "2", "Sample has no option 'step'; did you mean steps?"),
        ("zzz", "2", "Sample has no option 'zzz'; it has steps, strength, ceiling"),
    ],
)
def test_text_that_does_not_fit_is_refused_in_one_sentence(name: str, text: str, message: str) -> None:
    with pytest.raises(OptionError) as refusal:
        parse(Sample, {name: text})
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "Sample.steps must be from 1 to 100, got 0"),
        ({"steps": 101}, "Sample.steps must be from 1 to 100, got 101"),
        ({"strength": -0.1}, "Sample.strength must be at least 0, got -0.1"),
        ({"ceiling": 0.1}, "Sample.ceiling must be at most 0, got 0.1"),
        ({"strength": math.nan}, "Sample.strength must be a finite number, got nan"),
        ({"strength": math.inf}, "Sample.strength must be a finite number, got inf"),
        ({"limit": 0}, "Sample.limit must be at least 1, got 0"),
        ({"how": "mix"}, "Sample.how must be one of replace, add, got 'mix'"),
    ],
)
def test_values_are_held_to_their_ranges(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as refusal:
        Sample(**values)
    assert str(refusal.value) == message


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert Sample(steps=1, strength=0.0).steps == 1
    assert Sample(steps=100, ceiling=0.0).steps == 100


def test_dashes_stand_for_underscores() -> None:
    assert parse(Sampled, {"n-max": "2"}) == parse(Sampled, {"n_max": "2"}) == {"n_max": 2}


def test_describe_gives_default_range_and_help() -> None:
    rows = {name: (default, bounds, help) for name, default, bounds, help in describe(Sample)}
    assert rows["steps"] == ("28", "from 1 to 100", "how many steps")
    assert rows["strength"] == ("0.5", "at least 0", "how strong")
    assert rows["ceiling"] == ("0.0", "at most 0", "at the most nothing")
    assert rows["how"] == ("replace", "replace | add", "which way")
    assert rows["limit"][0] == "None"
    assert describe(Needy) == [("folder", "required", "", "")]


def test_a_plain_class_has_no_options() -> None:
    assert parse(Plain, {}) == {}
    assert describe(Plain) == []
    with pytest.raises(OptionError, match="Plain has no option 'a'; it has none"):
        parse(Plain, {"a": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 3), ("strength", 0.25), ("strength", 2), ("limit", None), ("how", "add"), ("steps", np.int64(3))],
)
def test_values_may_be_what_they_are(name: str, value: Any) -> None:
    parsed = parse(Sample, {name: value})[name]
    assert parsed == value
    assert type(parsed) is type(getattr(Sample(), name)) or name == "limit"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 2.5, "Sample.steps must be a whole number, got 2.5"),
        ("steps", True, "Sample.steps must be a whole number, got True"),
        ("steps", None, "Sample.steps must be a whole number, got None"),
        ("strength", [1.0], "Sample.strength must be a number, got [1.0]"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as refusal:
        parse(Sample, {name: value})
    assert str(refusal.value) == message


def test_options_are_told_apart_by_what_they_belong_to() -> None:
    assert by_name({"a.x": 1, "a": {"y": "2"}, "b": {}}, ["a", "b", "c"]) == {"a": {"x": 1, "y": "2"}, "b": {}, "c": {}}
    refused: list[tuple[Any, str]] = [
        ({"d.x": 1}, "d.x belongs to nothing in this run, which uses a, b"),
        ({3: 1}, "options go by their names, which are text, got 3"),
        ({"d": {"x": 1}}, "d belongs to nothing in this run, which uses a, b"),
        ({"x": 1}, "'x' is no option; write NAME.OPTION, such as flowedit.n_max"),
    ]
    for options, message in refused:
        with pytest.raises(OptionError) as refusal:
            by_name(options, ["a", "b"])
        assert str(refusal.value) == message


@typed
def asked(
    image: Sample | str,
    steps: int | Sequence[int] = 1,
    size: tuple[int, int] | None = None,
    *,
    guidance: float = 1.0,
    quick: bool = False,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """What is asked."""
    return image, steps, size, guidance, quick, out, options


class Asking:
    @typed
    def how_often(self, count: int) -> int:
        return count


def test_methods_are_held_to_their_annotations_too() -> None:
    assert Asking().how_often(2) == 2
    with pytest.raises(OptionError, match="count must be a whole number, got '2'"):
        Asking().how_often("2")  # type: ignore[arg-type]


def test_arguments_that_are_missing_are_said_by_the_function_itself() -> None:
    with pytest.raises(TypeError, match=r"^asked\(\) missing 1 required positional argument: 'image'$"):
        asked()  # type: ignore[call-arg]


def test_arguments_of_the_annotated_types_pass_as_they_are() -> None:
    assert asked.__doc__ == "What is asked."
    given: tuple[Any, ...] = ("a", [1, 2], (3, 4))
    named: dict[str, Any] = {"guidance": np.float32(2.0), "quick": True, "out": Path("x"), "options": {"a": 1}}
    assert asked(*given, **named) == (*given, *named.values())
    assert asked(7, np.int64(3), guidance=1) == (7, 3, None, 1, False, None, None)  # type: ignore[arg-type]  # judged elsewhere


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": True}, "steps must be a whole number or several, each a whole number, got True"),
        ({"steps": 1.5}, "steps must be a whole number or several, each a whole number, got 1.5"),
        ({"steps": [1, "2"]}, "steps must be a whole number or several"),
        ({"steps": b"12"}, "steps must be a whole number or several"),
        ({"size": (1, 2, 3)}, r"size must be \(a whole number, a whole number\) or None, got \(1, 2, 3\)"),
        ({"size": [1, 2]}, r"size must be \(a whole number, a whole number\) or None, got \[1, 2\]"),
        ({"guidance": "3"}, "guidance must be a number, got '3'"),
        ({"guidance": None}, "guidance must be a number, got None"),
        ({"quick": 1}, "quick must be true or false, got 1"),
        ({"out": 3}, "out must be text or a path or None, got 3"),
        ({"options": "a.b=1"}, "options must be a mapping or None, got 'a.b=1'"),
    ],
)
def test_arguments_of_other_types_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        asked("a", **given)
