"""`fe generate`: plain drawing from a prompt."""

from __future__ import annotations

import re
from pathlib import Path

import click

from .kinds import Finite, Folder, Size, Whole, as_options
from .shared import Wanted, model_options, seed_option, set_option, solver_option, steps_option


@click.command()
@click.option("--prompt", required=True, help="What to draw.")
@model_options
@solver_option
@steps_option
@click.option("--guidance", type=Finite(), default=3.5, help="How strongly the prompt is followed.")
@set_option
@seed_option
@click.option("--count", type=Whole(1, 10_000), default=1, help="Pictures, with seeds counting up.")
@click.option("--size", type=Size(), help="Height x width in pixels; the model's own if not given.")
@click.option("--out", type=Folder(), default="results/generate", help="Folder of the results.")
def generate(
    prompt: str,
    wanted: Wanted,
    solver: str,
    steps: int,
    guidance: float,
    settings: tuple[tuple[str, str, str], ...],
    seed: int,
    count: int,
    size: tuple[int, int] | None,
    out: Path,
) -> None:
    """Draw pictures from a prompt. Each seed gives one picture, whatever the count.

    \b
    fe generate --prompt "a large red star at the left on a striped blue background" --count 4
    """
    from .. import api
    from ..experiments.folder import check_writable
    from ..options import by_name
    from ..reports.results import spent

    options = by_name(as_options(settings), [solver, "model"])
    check_writable(out)
    loaded = wanted.load(options.pop("model"))
    for one in range(seed, seed + count):
        drawn = api.generate(
            loaded, prompt, solver=solver, steps=steps, guidance=guidance, seed=one, size=size, options=options
        )
        result = drawn.save(out / f"{_slug(prompt)}.{solver}-{steps}.seed{one}.png")
        click.echo(f"{result}: {spent(drawn.cost)}")
        for note in drawn.notes:
            click.echo(f"  {note}")


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
