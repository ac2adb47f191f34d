"""`fe generate`: plain drawing from a prompt."""

from __future__ import annotations

import re
from pathlib import Path

import click

from .kinds import Finite, Folder, Size, grouped
from .shared import Wanted, model_options, seed_option, set_option, solver_option, steps_option

USUAL = (1024, 1024)
"""Height and width for a model that takes any size."""


@click.command()
@click.option("--prompt", required=True, help="What to draw.")
@model_options
@solver_option
@steps_option
@click.option("--guidance", type=Finite(), default=3.5, help="How strongly the prompt is followed.")
@set_option
@seed_option
@click.option("--count", type=click.IntRange(1, 10_000), default=1, help="Pictures, with seeds counting up.")
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
    options = grouped(settings, [solver, "model"])
    import torch

    from ..cases.base import Case
    from ..cases.pictures import write
    from ..editors.controls import FromNoise
    from ..experiments.execute import execute
    from ..experiments.folder import check_writable
    from ..experiments.names import build_solver
    from .screen import working

    editor, built = FromNoise(guidance), build_solver(solver, options[solver])
    check_writable(out)
    loaded = wanted.load(options["model"])
    height, width = _size(size, loaded.side, loaded.multiple)
    case = Case(prompt, torch.zeros(3, height, width), prompt, prompt)
    for one in range(seed, seed + count):
        with working(f"drawing seed {one}"):
            outcome = execute(loaded, editor, built, steps, [case], one)
        out.mkdir(parents=True, exist_ok=True)
        result = out / f"{_slug(prompt)}.{solver}-{steps}.seed{one}.png"
        write(outcome.pictures[0], result)
        cost = outcome.cost
        click.echo(f"{result}: {cost.calls} calls, {cost.rows} rows, {cost.seconds:.2f} s")


def _size(asked: tuple[int, int] | None, side: int, multiple: int) -> tuple[int, int]:
    """The size to draw in. Raises ValueError (one sentence) if the model does not draw in the size that was asked for."""
    if multiple == 0:
        raise ValueError("this model draws no pictures; try --model scenes")
    size = asked or ((side, side) if side else USUAL)
    if side and size != (side, side):
        raise ValueError(f"this model draws {side}x{side} only, got --size {size[0]}x{size[1]}; leave it out")
    if any(length < multiple or length % multiple for length in size):
        raise ValueError(f"--size must be multiples of {multiple} for this model, got {size[0]}x{size[1]}")
    return size


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "picture"
