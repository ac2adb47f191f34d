"""Options that several commands have, said once."""

from __future__ import annotations

import click

from ..registry import MODELS, SOLVERS
from .kinds import Device, Name, Setting

model_option = click.option(
    "--model", type=Name(MODELS, suffix=True), default="scenes", help="A model, or KIND:FOLDER-OR-HUB-ID."
)
device_option = click.option("--device", type=Device(), default="auto", help="auto takes a GPU if there is one.")
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    help="What the network computes in.",
)
seed_option = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Seed of the noise.")
solver_option = click.option("--solver", type=Name(SOLVERS), default="euler", help="How to walk.")
steps_option = click.option("--steps", type=click.IntRange(1, 10_000), default=28, help="Steps of the time grid.")
set_option = click.option(
    "--set", "settings", type=Setting(), multiple=True, help="An option, NAME.OPTION=VALUE (see fe list); may be repeated."
)
side_option = click.option(
    "--side", type=click.IntRange(8, 8192), help="Resize pictures so that the shorter side has this many pixels."
)
