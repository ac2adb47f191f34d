"""`fe edit`: one picture, or all pictures of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..registry import EDITORS
from .kinds import Folder, Name, grouped
from .shared import (
    Wanted,
    model_options,
    seed_option,
    set_option,
    side_option,
    solver_option,
    steps_option,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..editors.base import Editor
    from ..experiments.execute import Outcome
    from ..models.base import Model
    from ..solvers.base import Solver
    from .subjects import Subject

MOST_SHOWN = 9
"""States in a strip."""


@click.command()
@click.argument("picture")
@click.option("--source", help="What the picture shows.")
@click.option("--target", help="What it should show.")
@model_options
@click.option("--editor", type=Name(EDITORS), default="flowedit", help="What to walk.")
@solver_option
@steps_option
@set_option
@click.option("--preset", help="Editor, solver and steps as their authors publish them (see fe list presets).")
@seed_option
@side_option
@click.option("--out", type=Folder(), default="results/edit", help="Folder of the results.")
@click.option("--path", "keep_path", is_flag=True, help="Also write a strip of the noise-free states from source to result.")
@click.pass_context
def edit(
    ctx: click.Context,
    picture: str,
    source: str | None,
    target: str | None,
    wanted: Wanted,
    editor: str,
    solver: str,
    steps: int,
    settings: tuple[tuple[str, str, str], ...],
    preset: str | None,
    seed: int,
    side: int | None,
    out: Path,
    keep_path: bool,
) -> None:
    """Edit PICTURE: a file, a folder of pictures, or a case that ships with the package, such as scenes:7.

    A folder may hold prompts.csv (columns picture, source, target) or prompts.jsonl; --source and --target overrule them.
    The results are PNG files in --out, called after the picture and the method; the input is never written to.

    \b
    fe edit scenes:7 --path
    fe edit cat.jpg --source "a cat" --target "a dog" --model flux-dev --dtype bfloat16 --side 1024
    """
    if preset is None:
        options = grouped(settings, [editor, solver, "model"])
        method = _built(editor, solver, steps, options)
    else:
        _refuse_beside_preset(ctx)
        options = grouped((), ["model"])
        method = _published(preset)
    from .subjects import need_prompt, subjects

    listed = [
        replace(
            subject,
            source=need_prompt(source, subject.source, "--source"),
            target=need_prompt(target, subject.target, "--target"),
        )
        for subject in subjects(picture)
    ]
    _edit_all(Job(method, seed, side, out, keep_path), listed, wanted, options["model"])


@dataclass(frozen=True)
class Method:
    """How to edit; `name` goes into the names of the results."""

    name: str
    editor: Editor
    solver: Solver[Any]
    steps: int


@dataclass(frozen=True)
class Job:
    """What is the same for all pictures."""

    method: Method
    seed: int
    side: int | None
    out: Path
    keep_path: bool


def _built(editor: str, solver: str, steps: int, options: Mapping[str, dict[str, str]]) -> Method:
    from ..experiments.names import build_editor, build_solver

    name = f"{editor}-{solver}-{steps}"
    return Method(name, build_editor(editor, options[editor]), build_solver(solver, options[solver]), steps)


def _published(name: str) -> Method:
    from ..editors.presets import PRESETS
    from ..experiments.names import build_solver

    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return Method(name, preset.editor, build_solver(preset.solver), preset.steps)


def _refuse_beside_preset(ctx: click.Context) -> None:
    for name in ("editor", "solver", "steps", "settings"):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError("--preset says editor, solver, steps and their options by itself; leave out the others")


def _edit_all(job: Job, listed: Sequence[Subject], wanted: Wanted, options: Mapping[str, str]) -> None:
    """Edit every picture. In a folder a bad one is named and left out; at the end that is an error nonetheless."""
    from ..experiments.folder import check_writable

    check_writable(job.out)
    loaded = wanted.load(options)
    failed = 0
    for subject in listed:
        try:
            _edit_one(job, subject, loaded)
        except ValueError as fault:
            if len(listed) == 1:
                raise
            failed += 1
            click.echo(f"fe: {subject.name} is left out: {fault}", err=True)
    if failed:
        raise ValueError(f"{failed} of {len(listed)} pictures could not be edited")


def _edit_one(job: Job, subject: Subject, model: Model[Any]) -> None:
    from ..cases.base import Case
    from ..cases.pictures import put, write
    from ..experiments.execute import execute
    from .screen import working
    from .subjects import pixels

    picture, notes = pixels(subject, model, job.side)
    for note in notes:
        click.echo(f"{subject.name}: {note}")
    case = Case(subject.name if subject.case is None else subject.case.id, picture, subject.source, subject.target)
    method = job.method
    result = _apart(job.out / f"{subject.name}.{method.name}.png", subject)
    states = _apart(result.with_suffix(".path.png"), subject)
    with working(f"editing {subject.name}"):
        outcome = execute(model, method.editor, method.solver, method.steps, [case], job.seed, keep_path=job.keep_path)
    drawn = _strip(model, outcome) if job.keep_path else None
    job.out.mkdir(parents=True, exist_ok=True)
    write(outcome.pictures[0], result)
    cost = outcome.cost
    click.echo(f"{result}: {cost.calls} calls, {cost.rows} rows, {cost.seconds:.2f} s")
    for what, count in outcome.edit.counts.items():
        click.echo(f"  {what}: {count}")
    if drawn is not None:
        put(drawn, states)
        click.echo(f"{states}: the way from the source to the result")


def _apart(result: Path, subject: Subject) -> Path:
    """`result`, unless that is the picture itself."""
    if subject.path is not None and result.exists() and result.samefile(subject.path):
        raise ValueError(f"the result would replace the picture {str(result)!r} itself; give --out another folder")
    return result


def _strip(model: Model[Any], outcome: Outcome) -> Image:
    import torch

    from ..reports.strip import evenly, strip

    states = outcome.edit.path
    if not states:
        raise ValueError("this editor has no path from the source to the result; leave out --path")
    shown = evenly(len(states), MOST_SHOWN)
    with torch.inference_mode():
        pictures = [model.decode(states[i])[0] for i in shown]
    return strip(pictures, _captions(shown, len(states) - 1))


def _captions(shown: Sequence[int], last: int) -> list[str]:
    names = {0: "source", last: "result"}
    return [names.get(i, f"step {i} of {last}") for i in shown]
