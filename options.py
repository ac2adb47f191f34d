"""Typed options with ranges, for anything that is a frozen dataclass: solvers, editors, case sets, metrics.

A field made by `option` carries its help and its range; `check` (called from `__post_init__`) holds the values to them,
and `parse` turns what a user writes into values; `typed` holds the arguments of a function to their annotations. Standard
library only.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

Given = ParamSpec("Given")
Result = TypeVar("Result")


class OptionError(ValueError):
    """An option that does not exist or whose value is out of its range; the message is one sentence for the user."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    repr: bool = True,
) -> Any:
    """A dataclass field with a documented meaning, an inclusive range or a set of choices. Without `repr` the option does not
    enter the identity of a run: it says how something is computed, and not what."""
    about = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    return dataclasses.field(default=default, repr=repr, metadata=about)


def check(thing: Any) -> None:
    """Raise OptionError if a value of the dataclass instance `thing` is not finite, out of its range or not a choice."""
    for field in dataclasses.fields(thing):
        _hold(type(thing), field, getattr(thing, field.name))


def _hold(kind: type, field: dataclasses.Field[Any], value: Any) -> None:
    name, low, high = f"{kind.__name__}.{field.name}", field.metadata.get("low"), field.metadata.get("high")
    choices = field.metadata.get("choices", ())
    if choices and value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise OptionError(f"{name} must be a finite number, got {value}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise OptionError(f"{name} must be {_range_text(low, high)}, got {value}")


def _range_text(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def describe(kind: type) -> list[tuple[str, str, str, str]]:
    """(name, default, range or choices, help) of every option of a dataclass `kind`, for `fe list`."""
    rows = []
    for field in _fields(kind):
        low, high = field.metadata.get("low"), field.metadata.get("high")
        choices = field.metadata.get("choices", ())
        bounds = " | ".join(choices) or (_range_text(low, high) if low is not None or high is not None else "")
        default = "required" if field.default is dataclasses.MISSING else str(field.default)
        rows.append((field.name, default, bounds, str(field.metadata.get("help", ""))))
    return rows


def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """The options of `kind`; a plug-in's plain class has none."""
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def by_name(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by what they belong to, one of `names` each: from {"flowedit.n_max": 20}, {"flowedit": {"n_max": 20}} or both.
    Raises OptionError for what belongs to nothing."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, dot, option_name = _named(key).rpartition(".")
        inner = {option_name: value} if dot else value
        if not isinstance(inner, Mapping):
            raise OptionError(f"{key!r} is no option; write NAME.OPTION, such as flowedit.n_max")
        if (name or key) not in found:
            raise OptionError(f"{key} belongs to nothing in this run, which uses {', '.join(found)}")
        found[name or key].update(inner)
    return found


def parse(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values, as text or as what they are, into keyword arguments for the dataclass `kind`, each of them in its range.
    Raises OptionError naming the option."""
    hints = get_type_hints(kind)
    fields = {field.name: field for field in _fields(kind)}
    parsed = {}
    for name, text in values.items():
        key = _named(name).replace("-", "_")
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields) or 'none'}"
            raise OptionError(f"{kind.__name__} has no option {name!r}; {hint}")
        parsed[key] = _convert(text, hints[key], f"{kind.__name__}.{key}")
        _hold(kind, fields[key], parsed[key])
    return parsed


def _named(key: Any) -> str:
    """The name of an option, which a mapping in Python may have as anything."""
    if not isinstance(key, str):
        raise OptionError(f"options go by their names, which are text, got {key!r}")
    return key


def _convert(text: Any, hint: Any, name: str) -> Any:
    arms = _arms(hint)
    if not isinstance(text, str):
        return _typed(text, arms, name)
    if type(None) in arms and text.lower() in ("none", "auto", "all"):
        return None
    for arm in arms:
        if arm is bool and text.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return text.lower() in ("true", "yes", "on", "1")
        if arm is str or (get_origin(arm) is Literal and text in get_args(arm)):
            return text
        if arm in (int, float):
            try:
                return arm(text)
            except ValueError:
                continue
    raise OptionError(f"{name} must be {_wanted(arms)}, got {text!r}")


def _typed(value: Any, arms: tuple[Any, ...], name: str) -> Any:
    """A value that is no text, as one of the types `arms`: numbers of any library, and a whole number where any will do."""
    for arm in arms:
        if arm in (bool, type(None)) and type(value) is arm:
            return value
        if arm in (int, float) and isinstance(value, Integral if arm is int else Real) and not isinstance(value, bool):
            return arm(value)
    raise OptionError(f"{name} must be {_wanted(arms)}, got {value!r}")


def _wanted(arms: tuple[Any, ...]) -> str:
    return " or ".join(_kind_text(arm) for arm in arms if arm is not type(None))


def _kind_text(arm: Any) -> str:
    if get_origin(arm) is Literal:
        return " or ".join(map(str, get_args(arm)))
    return _PLAIN.get(arm, str(arm))


_PLAIN: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "None",
}


def typed(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`function`, whose arguments are held to their annotations: numbers, text, truth values and paths, and tuples, sequences
    and mappings of them. What is annotated as anything else is for `function` to judge.
    It raises OptionError naming the argument."""
    shape = inspect.signature(function)

    @functools.wraps(function)
    def held(*args: Given.args, **given: Given.kwargs) -> Result:
        hints = get_type_hints(function)
        try:
            arguments = shape.bind(*args, **given).arguments
        except TypeError:
            return function(*args, **given)  # it says by itself what is missing or too much
        for name, value in arguments.items():
            if name in hints and not _suits(value, hints[name]):
                raise OptionError(f"{name} must be {' or '.join(map(_in_words, _arms(hints[name])))}, got {value!r}")
        return function(*args, **given)

    return held


def _suits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`; anything is of a type that is not plain."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_suits(value, arm) for arm in inner)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_suits, value, inner))
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(_suits(v, inner[0]) for v in value)
    if origin is Mapping:
        return isinstance(value, Mapping)
    return hint not in _PLAIN or isinstance(value, hint)


def _in_words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"({', '.join(map(_in_words, inner))})"
    if origin is Sequence:
        return f"several, each {_in_words(inner[0])}"
    return "a mapping" if origin is Mapping else _kind_text(hint)


def _arms(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows: those of a union, or the one that it is."""
    return get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
