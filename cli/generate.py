"""`fe generate`: plain drawing, from one prompt or from a list of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from .ending import stoppable, telling
from .kinds import Finite, Folder, Size, Whole, as_options
from .shared import Wanted, gathered, model_options, seed_option, set_option, solver_option, steps_option


@dataclass(frozen=True)
class Flags:
    """How to draw, how many and where to, as it came from the command line."""

    solver: str
    steps: int
    guidance: float
    seed: int
    count: int | None
    size: tuple[int, int] | None
    batch: int
    out: Path | None


FLAGS = (
    solver_option,
    steps_option,
    click.option("--guidance", type=Finite(), default=3.5, help="How strongly the prompt is followed."),
    seed_option,
    click.option(
        "--count", type=Whole(1, 10_000), help="Pictures, with seeds counting up [1]; of --prompts, the first so many."
    ),
    click.option("--size", type=Size(), help="Height x width in pixels; the model's own if not given."),
    click.option("--batch", type=Whole(1, 4096), default=8, help="Of --prompts: pictures that go through the model at once."),
    click.option("--out", type=Folder(), help="Folder of the results. [default: results/generate; --prompts needs one]"),
)


@click.command()
@click.option("--prompt", help="What to draw.")
@click.option("--prompts", help="A list: a CSV or JSON-lines file, cat-dog:COUNT, or cases such as scenes:COUNT.")
@model_options
@gathered("flags", Flags, FLAGS)
@set_option
@stoppable()
def generate(
    prompt: str | None,
    prompts: str | None,
    wanted: Wanted,
    flags: Flags,
    settings: tuple[tuple[str, str, str], ...],
) -> None:
    """Draw pictures from a prompt. Each seed gives one picture, whatever the count.

    With --prompts, draw the sources of a data set: one picture for each source prompt of a list that has source and target
    prompts. fe compare --cases folder:OUT reads it; there the row "from noise" generates the targets from the noise of the
    sources. A drawing that was cut short goes on when the same command is given again.

    \b
    fe generate --prompt "a large red star at the left on a striped blue background" --count 4
    fe generate --prompts cat-dog:100 --model sd3-medium --out cats
    fe generate --prompts prompts.csv --out drawn
    """
    if (prompt is None) == (prompts is None):
        raise click.UsageError("say what to draw, either by --prompt or by --prompts")
    if prompt is not None:
        _one(prompt, wanted, flags, as_options(settings))
    elif prompts is not None:
        _list(prompts, wanted, flags, as_options(settings))


def _one(prompt: str, wanted: Wanted, flags: Flags, settings: dict[str, str]) -> None:
    """Draw a prompt by one seed after the other."""
    from .. import api
    from ..experiments.folder import check_writable
    from ..options import by_name
    from ..reports.results import spent

    out = flags.out or Path("results/generate")
    options = by_name(settings, [flags.solver, "model"])
    check_writable(out)
    loaded = wanted.load(options.pop("model"))
    for seed in range(flags.seed, flags.seed + (flags.count or 1)):
        drawn = api.generate(
            loaded,
            prompt,
            solver=flags.solver,
            steps=flags.steps,
            guidance=flags.guidance,
            seed=seed,
            size=flags.size,
            options=options,
        )
        result = drawn.save(out / f"{_slug(prompt)}.{flags.solver}-{flags.steps}.seed{seed}.png")
        click.echo(f"{result}: {spent(drawn.cost)}")
        for note in drawn.notes:
            click.echo(f"  {note}")


def _list(prompts: str, wanted: Wanted, flags: Flags, settings: dict[str, str]) -> None:
    """Draw a data set."""
    if flags.out is None:
        raise click.UsageError("--prompts makes a data set; say where with --out FOLDER")
    from .. import api
    from ..experiments.drawing import count_drawn, find_pairs, set_of
    from ..experiments.folder import check_writable
    from ..options import by_name

    out, chosen = flags.out, set_of(prompts)
    options = by_name(settings, [name for name in (flags.solver, chosen, "model") if name])
    total = len(find_pairs(prompts, flags.count, options[chosen] if chosen else None))
    check_writable(out)
    loaded = wanted.load(options.pop("model"))
    with telling(lambda: f"{count_drawn(out)} of {total} pictures are kept in {out}"):
        api.draw_cases(
            loaded,
            prompts,
            out,
            solver=flags.solver,
            steps=flags.steps,
            guidance=flags.guidance,
            seed=flags.seed,
            size=flags.size,
            count=flags.count,
            batch=flags.batch,
            options=options,
        )
    click.echo(f"{out}: {total} pictures with their prompts, and the noise known for: {_compared(wanted, flags)}")
    for note in api.notes_of(loaded, ()):
        click.echo(f"  {note}")


def _compared(wanted: Wanted, flags: Flags) -> str:
    """The command whose row "from noise" starts where the pictures did."""
    from ..editors.controls import FromNoise

    same = f"--model {wanted.spec} --solver {flags.solver} --steps {flags.steps} --seeds {flags.seed}"
    usual = flags.guidance == FromNoise().target_guidance
    guidance = "" if usual else f" --set from-noise.target_guidance={flags.guidance:g}"
    return f"fe compare --cases folder:{flags.out} {same}{guidance}"


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
