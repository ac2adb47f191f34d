"""`fe`: the group of commands. A command's module is imported when the command runs or its own help is shown."""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module

import click

from .refusal import refusing

COMMANDS = {
    "compare": "Compare solvers and editors: quality beside cost.",
    "report": "Show the tables of finished or unfinished runs again; join shards.",
    "reproduce": "Run one cell of a run again: is it identical?",
    "edit": "Edit a picture, or a folder of pictures.",
    "generate": "Draw pictures from a prompt.",
    "reconstruct": "Invert a picture and bring it back: error against cost.",
    "list": "Show solvers, editors, models, metrics, cases, presets and protocols.",
    "check": "Hold a solver to what it claims; look through a data set before hours are spent on it.",
}
MODULES = {"list": "listing"}  # where a command's module is not called as the command is
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class Commands(click.Group):
    """A group that knows its commands' names and short helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command {cmd_name!r}; {hint}")
        module = import_module(f".{MODULES.get(cmd_name, cmd_name)}", __package__)
        command: click.Command = getattr(module, MODULES.get(cmd_name, cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with refusing(debug=False):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        debug = bool(ctx.params["debug"])
        # threads that spin while they wait cost a busy machine a factor of ten or more
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if debug:
            logging.getLogger(__name__.partition(".")[0]).setLevel(logging.INFO)
        with refusing(debug), nullcontext() if debug else _quiet():
            return super().invoke(ctx)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep other libraries' warnings, log lines and progress bars off the screen inside; our own warnings stay."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"fe(\.|$)")
            warnings.showwarning = _say
            yield
    finally:
        logging.disable(before)


def _say(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: str | None = None
) -> None:
    """Show a warning as a note to the user, who has no use for the line of code that gave it."""
    click.echo(f"note: {message}", err=True)


@click.group("fe", cls=Commands, context_settings=SETTINGS)
@click.version_option(package_name="fe-toolkit", prog_name="fe")
@click.option(
    "--debug", is_flag=True, envvar="FE_DEBUG", show_envvar=True, help="Show tracebacks and other libraries' warnings."
)
def main(debug: bool) -> None:
    """Compare ODE solvers and editing strategies for rectified-flow image models.

    Pick a model, a solver, an editor and some cases: fe says what each combination costs, counted at the network, and what it
    gives. Start with: fe compare
    """


if __name__ == "__main__":
    main(prog_name="fe")
