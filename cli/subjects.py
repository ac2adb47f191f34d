"""What the user names as PICTURE: a file, a folder, or a case of a case set ("scenes:7"); read, and fitted to a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..registry import CASES

if TYPE_CHECKING:
    from ..cases.base import Case
    from ..models.base import Model


@dataclass(frozen=True)
class Subject:
    """One picture to work on: the `name` its results are called after, the file or the case that it comes from, and its
    prompts ("" where none is known)."""

    name: str
    path: Path | None
    case: Case | None
    source: str
    target: str


def subjects(what: str) -> Sequence[Subject]:
    """The pictures that `what` names. A folder's prompts come from its list of prompts, where it has one.

    Raises ValueError (one sentence) if there is nothing of that name, or nothing in it.
    """
    if Path(what).is_dir():
        return _of_folder(Path(what))
    named = re.fullmatch(r"([\w-]+):(\d{1,6})", what)
    if named and named[1] in CASES and not Path(what).exists():
        return [_of_set(named[1], int(named[2]))]
    return [Subject(Path(what).stem, Path(what), None, "", "")]


def pixels(subject: Subject, model: Model[Any], side: int | None) -> tuple[Any, tuple[str, ...]]:
    """The picture (3, H, W) in a size that `model` takes, and what was done to get it.

    Raises ValueError (one sentence) if it cannot be read or does not suit the model.
    """
    from ..cases.pictures import Picture, fitted, read

    if model.multiple == 0:
        raise ValueError("this model has no pictures; compare its own cases with: fe compare --model mixture")
    if subject.path is not None:
        picture = read(subject.path)
    else:
        assert subject.case is not None  # a subject has a file or a case
        picture = Picture(subject.case.picture)
        if picture.pixels.ndim != 3:
            raise ValueError(f"{subject.name} is no picture; name a file, a folder or a case of scenes")
    fit = fitted(picture, model.multiple, model.side or side or 0, square=model.side > 0)
    return fit.pixels, fit.notes


def _of_folder(folder: Path) -> Sequence[Subject]:
    from ..cases.folder import LISTS, prompts
    from ..cases.pictures import SUFFIXES

    if any((folder / name).is_file() for name in LISTS):
        lines = prompts(folder)
        names = _distinct([line.name for line in lines])
        return [Subject(name, one.picture, None, one.source, one.target) for name, one in zip(names, lines, strict=True)]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"the folder {str(folder)!r} has no pictures ({', '.join(SUFFIXES)})")
    return [Subject(name, path, None, "", "") for name, path in zip(_distinct([p.name for p in files]), files, strict=True)]


def _of_set(name: str, index: int) -> Subject:
    from ..experiments.names import build_cases

    taken = build_cases(name).take(index + 1)
    if len(taken) <= index:
        raise ValueError(f"{name}:{index} does not exist; {name} has the cases 0 to {len(taken) - 1}")
    case = taken[index]
    return Subject(f"{name}-{index}", None, case, case.source, case.target)


def _distinct(files: Sequence[str]) -> list[str]:
    """A name for the results of each file: without its suffix, unless two files differ in nothing else."""
    stems = [file.rpartition(".")[0].replace("/", "-") for file in files]
    return [
        stem if stems.count(stem) == 1 else file.replace("/", "-").replace(".", "-")
        for stem, file in zip(stems, files, strict=True)
    ]


def need_prompt(given: str | None, known: str, option: str) -> str:
    """The prompt from the command line, or the one that came with the picture. Raises click.UsageError if there is neither."""
    if given is None and not known:
        raise click.UsageError(f"{option} is missing: say what the picture shows, and what it should show")
    return known if given is None else given
