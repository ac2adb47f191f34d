"""An experiment file on the command line: it is read as the flags that it stands for, which go before those that are given."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from ..experiments.experiment_file import ExperimentFile, read_experiment
from ..experiments.sweep import points
from ..experiments.words import Asked, CaseChoice
from ..options import OptionError, describe, parse
from ..plain_yaml import Item
from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS, RegistryError
from .kinds import Counts, Methods, Names

SET: Final = "set"
THIS_TIME: Final = frozenset({"overwrite", "retry_failed", "shard", "dry_run"})
"""The flags that say what a command is to do this time, and no file."""
SEVERAL: Final = (Names, Counts, Methods)
"""The kinds of flags that take several values."""
RIVALS: Final = (("methods", "solvers"), ("methods", "editors"), ("steps", "match_nfe"))
"""What cannot be said together: a flag puts a file's rival aside."""
CHOOSING: Final = frozenset({"methods", "solvers", "editors", "cases", "model", "metrics", "protocol"})
"""The flags that decide whose options there are."""


class Setting(NamedTuple):
    """An option of an editor, a solver, a case set, a metric or the model, with its values as the flag takes them."""

    name: str
    option: str
    text: str
    line: int


@dataclass(frozen=True)
class Experiment:
    """What of an experiment file counts beside the flags that were given: texts by key, truth values as "true" or "false", and
    the settings."""

    file: ExperimentFile
    values: Mapping[str, str]
    settings: tuple[Setting, ...]

    def words(self, options: Mapping[str, click.Option]) -> Iterator[str]:
        """The same as words of a command line."""
        for key, text in self.values.items():
            option = options[key]
            if option.is_flag:
                yield option.opts[0] if text == "true" else option.secondary_opts[0]
            else:
                yield f"{option.opts[0]}={text}"
        for name, option_name, text, _ in self.settings:
            yield f"--{SET}={name}.{option_name}={text}"

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say where the file names methods that come to the same rows inside of the `with` block."""
        from ..experiments.rows import SameRowsError

        try:
            yield
        except SameRowsError as fault:
            lines = [self.file.items[key].line for key in ("methods", "editors", "solvers") if key in self.values]
            raise (self.file.bad(lines[0], str(fault)) if lines else fault) from fault


class ComparisonCommand(click.Command):
    """A command whose argument `experiment` names a file that may hold the rest of its flags."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        path, experiment, helping = given.get("experiment"), None, self.get_help_option(ctx)
        if isinstance(path, str) and not (ctx.resilient_parsing or (helping and helping.name in given)):
            found = {_key(one): one for one in self.params if isinstance(one, click.Option) and _key(one) not in THIS_TIME}
            experiment = _Reader(read_experiment(Path(path)), found, given, ctx).experiment()
            args = [*experiment.words(found), *args]
        rest = super().parse_args(ctx, args)
        ctx.params["experiment"] = experiment
        return rest


def _key(option: click.Option) -> str:
    """The name in a file of what an option says: its long name."""
    return option.opts[0].removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class _Reader:
    """Reads a file by the rules of the flags. options: by key. given: what the command line says itself, by the names of the
    parameters."""

    file: ExperimentFile
    options: Mapping[str, click.Option]
    given: Mapping[str, Any]
    ctx: click.Context

    def experiment(self) -> Experiment:
        """What of the file counts. Raises FileError for the first thing that is wrong, whether it counts or not."""
        items = self.file.items
        for key, item in items.items():
            if key in THIS_TIME:
                flag = f"--{key.replace('_', '-')}"
                raise self.file.bad(item.line, f"{key} is for one time and stands in no file; say {flag} on the command line")
            if key not in self.options:
                raise self.file.bad(item.line, _unknown("key", key, self.options))
        for one, other in RIVALS:
            if one in items and other in items:
                line = max(items[one].line, items[other].line)
                raise self.file.bad(line, f"{one} and {other} contradict each other; leave one of them out")
        said = {key for key, option in self.options.items() if isinstance(self.given.get(option.name or ""), str | bool)}
        aside = said | {key for pair in RIVALS for key, rival in (pair, pair[::-1]) if rival in said}
        values = {key: self._value(key, item) for key, item in items.items() if key != SET}
        kept = {key: text for key, text in values.items() if key not in aside}
        return Experiment(self.file, kept, tuple(self._settings(kept, said)))

    def _value(self, key: str, item: Item) -> str:
        """The text that the flag would be given."""
        option = self.options[key]
        if isinstance(option.type, SEVERAL):
            parts = self.file.texts(key, item)
            seen: set[object] = set()
            for part in parts:
                (value,) = self._converted(key, str(part.content), part.line)
                if value in seen:
                    raise self.file.bad(part.line, f"{key} holds {part.what} twice; once is enough")
                seen.add(value)
            return ",".join(str(part.content) for part in parts)
        text = self._placed(key, self.file.text(key, item), item.line)
        value = self._converted(key, text, item.line)
        return str(value).lower() if option.is_flag else text

    def _converted(self, key: str, text: str, line: int) -> Any:
        option = self.options[key]
        try:
            return option.type.convert(text, option, self.ctx)
        except click.BadParameter as fault:
            if option.is_flag:
                raise self.file.bad(line, f"{key} must be true or false, got {text!r}") from fault
            raise self.file.bad(line, f"{key}: {fault.message.rstrip('.')}") from fault

    def _placed(self, key: str, text: str, line: int) -> str:
        """`text`, with the path in it, if there is one, as seen from where the command runs."""
        if key == "out":
            return str(self.file.inside(key, text, line))
        if key == "cases":
            choice: CaseChoice = self._converted(key, text, line)
            return text if choice.path is None else str(choice._replace(path=str(self.file.inside(key, choice.path, line))))
        return self._model(text, line) if key == "model" else text

    def _model(self, text: str, line: int) -> str:
        """A model, its folder as seen from where the command runs; what is a name or may be a hub id stays."""
        kind, colon, source = text.partition(":")
        if kind not in MODELS:
            kind, colon, source = "", "", text
        known = (self.file.path.parent / source, Path(source))
        if not source or (re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) and not any(map(os.path.lexists, known))):
            return text
        folder = self.file.inside("model", source, line)
        if not folder.is_dir():
            raise self.file.bad(line, f"model: there is no folder {source!r} beside the experiment file")
        return f"{kind}{colon}{folder}"

    def _settings(self, values: Mapping[str, str], said: Collection[str]) -> Iterator[Setting]:
        """The settings; those of what flags have replaced are left out."""
        item = self.file.items.get(SET)
        if item is None:
            return
        from ..experiments.plan import owners, usual_model

        effective = {
            key: option.type.convert(text, option, self.ctx)
            for key, option in self.options.items()
            if key in CHOOSING and (text := self.given.get(option.name or "") if key in said else values.get(key)) is not None
        }
        model = effective.pop("model", "") or usual_model(effective.get("protocol", ""))
        ours = owners(Asked(**effective), model)
        for setting in self._checked(item, "" if "model" in said else model):
            if setting.name in ours and not (setting.name == "model" and "model" in said):
                yield setting
            elif not CHOOSING & set(said):
                used = ", ".join(ours)
                raise self.file.bad(setting.line, f"{setting.name} belongs to nothing in this run, which uses {used}")

    def _checked(self, item: Item, model: str) -> Iterator[Setting]:
        """All settings, held to the options of what they belong to; those of the model if its registry name is known."""
        for name, options in self.file.mapping(SET, item, "names to their options").items():
            seen: dict[str, int] = {}
            for spelled, value in self.file.mapping(name, options, "options to values").items():
                option = spelled.replace("-", "_")
                if option in seen:
                    raise self.file.bad(value.line, f"{spelled} stands on line {seen[option]} already; once is enough")
                seen[option] = value.line
                yield self._setting(name, option, value, options.line, model)

    def _setting(self, name: str, option: str, value: Item, line: int, model: str) -> Setting:
        """One of them; `line` is that of the name."""
        kind = self._owner(name, option, line, model)
        placed = name in CASES and option == "path"
        if placed:
            text = str(self.file.inside(f"{name}.{option}", self.file.text(option, value), value.line))
        else:
            text = ",".join(str(one.content) for one in self.file.texts(option, value))
        try:
            if kind is not None and kind in [table[name] for table in (EDITORS, SOLVERS) if name in table]:
                points(kind, {option: text})
            elif kind is not None:
                parse(kind, {option: text})
        except OptionError as fault:
            raise self.file.bad(value.line, str(fault)) from fault
        return Setting(name, option, text, value.line)

    def _owner(self, name: str, option: str, line: int, model: str) -> type | None:
        """What has options under that name, and that one if a case set goes by the name of an editor; None for a model of which
        only a load says what it is."""
        tables = {owner: table for table in (CASES, METRICS, SOLVERS, EDITORS) for owner in table}
        if name == "model":
            kind = model.partition(":")[0]
            return MODELS.get(kind)
        if name not in tables:
            raise self.file.bad(line, _unknown("editor, solver, case set or metric", name, [*tables, "model"]))
        try:
            if name in CASES and option in (own for own, *_ in describe(CASES[name])):
                return CASES[name]
            return tables[name][name]
        except RegistryError as fault:  # a plug-in that cannot be used
            raise self.file.bad(line, str(fault)) from fault


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what} {name!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}")
