"""Options that several commands have, said once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..registry import SOLVERS
from .kinds import Device, Dtype, ModelSpec, Name, Setting, Whole

if TYPE_CHECKING:
    from ..models.base import Model, Setup

Command = Callable[..., None]


@dataclass(frozen=True)
class Wanted:
    """The model that a command was asked to use, and how."""

    spec: str
    device: str
    dtype: str
    weights: str
    compiled: bool
    low_memory: bool
    quantise: str
    features: str

    def setup(self) -> Setup:
        """The same for whoever loads it. Raises OptionError."""
        from ..models.base import Setup

        return Setup(
            device=self.device,
            dtype=self.dtype,
            weights=self.weights,
            compiled=self.compiled,
            low_memory=self.low_memory,
            quantise=self.quantise,
            features=self.features,
        )

    def load(self, options: Mapping[str, Any]) -> Model[Any]:
        """The model itself, with its own options. Raises what `names.load_model` raises."""
        from ..experiments.names import load_model
        from .screen import working

        with working(f"loading {self.spec}"):
            return load_model(self.spec, self.setup(), options)


def stay_offline(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    """Have no library ask the Hugging Face hub, in this process and in those that it starts: what they would fetch is then said
    to be missing, at once. Nothing here asks by itself; parts of others, such as plug-ins, may."""
    if not wanted:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it read the environment when it was imported
        setattr(constants, "HF_HUB_OFFLINE", True)  # noqa: B010  # a module has no such attribute for a type checker


offline_option = click.option(
    "--offline/--no-offline",
    is_eager=True,
    expose_value=False,
    callback=stay_offline,
    help="Let nothing ask the Hugging Face hub, plug-ins included: what is missing is said at once.",
)
MODEL_OPTIONS = (
    click.option("--model", "spec", type=ModelSpec(), default="scenes", help="A name, a folder, a hub id, or KIND:SOURCE."),
    click.option("--device", type=Device(), default="auto", help="auto takes a GPU if there is one."),
    click.option(
        "--dtype",
        type=Dtype(),
        default="float32",
        help="What the network computes in: float32, bfloat16 (bf16), float16 (fp16).",
    ),
    click.option(
        "--weights",
        type=click.Choice(["trained", "random"]),
        default="trained",
        help="random: the full-size network without any download, for speed and memory.",
    ),
    click.option("--compile/--no-compile", "compiled", help="Compile the network's blocks, as they are first met."),
    click.option("--low-memory/--no-low-memory", help="Only the part that works is on the GPU; the codec works in tiles."),
    click.option(
        "--quantise",
        "--quantize",
        type=click.Choice(["none", "int8", "nf4"]),
        default="none",
        help="What the weights of the largest networks are rounded to.",
    ),
    click.option(
        "--features",
        type=click.Choice(["auto", "device", "host"]),
        default="auto",
        help="Where injection keeps features; auto takes the host's memory where the GPU has no room.",
    ),
)


def gathered(name: str, kind: type, options: Sequence[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Give a command those options as one argument: its `name`, an object of the dataclass `kind`, which has a field for
    each."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathering(*args: Any, **given: Any) -> None:
            values = {field.name: given.pop(field.name) for field in fields(kind)}
            command(*args, **given, **{name: kind(**values)})

        decorated: Command = gathering
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def model_options(command: Command) -> Command:
    """Give a command the options that say which model and how, and --offline."""
    return gathered("wanted", Wanted, MODEL_OPTIONS)(offline_option(command))


seed_option = click.option("--seed", type=Whole(0, 2**31 - 1), default=0, help="Seed of the noise.")
solver_option = click.option("--solver", type=Name(SOLVERS), default="euler", help="How to walk.")
steps_option = click.option("--steps", type=Whole(1, 10_000), default=28, help="Steps of the time grid.")
set_option = click.option(
    "--set", "settings", type=Setting(), multiple=True, help="An option, NAME.OPTION=VALUE (see fe list); may be repeated."
)
side_option = click.option("--side", type=Whole(8, 8192), help="Resize pictures so that the shorter side has this many pixels.")
