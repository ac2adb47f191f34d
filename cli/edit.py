"""`fe edit`: one picture, or all pictures of a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..registry import EDITORS, SOLVERS
from .kinds import Folder, Name, PresetName, Whole, as_options
from .refusal import is_refusal
from .shared import Wanted, gathered, model_options, seed_option, set_option, side_option

if TYPE_CHECKING:
    from ..experiments.methods import Way
    from ..experiments.subjects import Subject
    from ..models.base import Model


@dataclass(frozen=True)
class Flags:
    """How to edit, as it came from the command line."""

    editor: str | None
    solver: str | None
    steps: int | None
    preset: str | None


@dataclass(frozen=True)
class Job:
    """What is the same for all pictures."""

    seed: int
    side: int | None
    mask: Path | None
    out: Path
    keep_path: bool
    save_latents: bool


FLAGS = (
    click.option("--editor", type=Name(EDITORS), help="What to walk. [default: flowedit]"),
    click.option("--solver", type=Name(SOLVERS), help="How to walk. [default: euler]"),
    click.option("--steps", type=Whole(1, 10_000), help="Steps of the time grid. [default: 28]"),
    click.option("--preset", type=PresetName(), help="A method as published (fe list presets); other options go before it."),
)
JOB = (
    seed_option,
    side_option,
    click.option("--mask", type=click.Path(path_type=Path), help="A picture: white where the picture may change."),
    click.option("--out", type=Folder(), default="results/edit", help="Folder of the results."),
    click.option("--path", "keep_path", is_flag=True, help="Also write a strip of pictures from the source to the result."),
    click.option("--save-latents", is_flag=True, help="Also write the edited latent, beside the picture."),
)


@click.command()
@click.argument("picture")
@click.option("--source", help="What the picture shows.")
@click.option("--target", help="What it should show.")
@model_options
@gathered("flags", Flags, FLAGS)
@set_option
@gathered("job", Job, JOB)
def edit(
    picture: str,
    source: str | None,
    target: str | None,
    wanted: Wanted,
    flags: Flags,
    settings: tuple[tuple[str, str, str], ...],
    job: Job,
) -> None:
    """Edit PICTURE: a file, a folder of pictures, or a case that ships with the package, such as scenes:7.

    A folder may hold prompts.csv (columns picture, source, target) or prompts.jsonl; --source and --target overrule them.
    The results are PNG files in --out, called after the picture, the method and what is set; the input is never written to.

    \b
    fe edit scenes:7 --path
    fe edit cat.jpg --source "a cat" --target "a dog" --model flux-dev --dtype bfloat16 --side 1024
    fe edit cat.jpg --source "a cat" --target "a dog" --model flux-dev --preset fireflow@paper-8 --steps 12
    """
    from ..experiments.folder import check_writable
    from ..experiments.methods import choose
    from ..experiments.names import check_mask
    from ..experiments.subjects import subjects

    way = choose(flags.editor, flags.solver, flags.steps, flags.preset, as_options(settings))
    if job.mask is not None:
        check_mask(way.editor)
    listed = [one.prompted(source, target) for one in subjects(picture)]
    check_writable(job.out)
    way = replace(way, name=way.name + _apart_by(as_options(settings), job.seed))
    _edit_all(listed, wanted.load(way.of_model), way, job)


def _apart_by(options: Mapping[str, str], seed: int) -> str:
    """What is set, as the end of a name (a hash where it is long): the results of other settings then do not replace these."""
    said = sorted(f".{name.rpartition('.')[2].replace('-', '_')}={value}" for name, value in options.items())
    words = re.sub(r"[^\w.=+-]", "_", "".join(said)) + (f".seed{seed}" if seed else "")
    return words if len(words) <= 100 else f".{sha256(words.encode()).hexdigest()[:8]}"


def _edit_all(listed: Sequence[Subject], model: Model[Any], way: Way, job: Job) -> None:
    """Edit every picture. In a folder a bad one is named and left out; at the end that is an error nonetheless."""
    failed = 0
    for subject in listed:
        try:
            _edit_one(subject, model, way, job)
        except (ValueError, FloatingPointError) as fault:
            if len(listed) == 1 or not is_refusal(fault):
                raise
            failed += 1
            click.echo(f"fe: {subject.name} is left out: {fault}", err=True)
    if failed:
        raise ValueError(f"{failed} of {len(listed)} pictures could not be edited")


def _edit_one(subject: Subject, model: Model[Any], way: Way, job: Job) -> None:
    from ..api import edit
    from ..cases.pictures import put
    from ..reports.results import spent

    result = _apart(job.out / f"{subject.name}.{way.name}.png", subject)
    states = _apart(result.with_suffix(".path.png"), subject)
    edited = edit(
        model,
        subject.image,
        source=subject.source,
        target=subject.target,
        editor=way.editor,
        solver=way.solver,
        steps=way.steps,
        seed=job.seed,
        mask=job.mask,
        side=job.side,
        keep_path=job.keep_path,
    )
    for note in edited.notes:
        click.echo(f"{subject.name}: {note}")
    edited.save(result, latent=job.save_latents)
    click.echo(f"{result}: {spent(edited.cost)}")
    for what, count in edited.counts.items():
        click.echo(f"  {what}: {count}")
    if job.keep_path:
        put(edited.strip(), states)
        click.echo(f"{states}: the way from the source to the result")


def _apart(result: Path, subject: Subject) -> Path:
    """`result`, unless that is the picture itself."""
    if subject.file is not None and result.exists() and result.samefile(subject.file):
        raise ValueError(f"the result would replace the picture {str(result)!r} itself; give --out another folder")
    return result
