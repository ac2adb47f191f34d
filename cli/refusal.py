"""One error policy for every command: the user's mistakes are one sentence and exit code 2, bugs are tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import TracebackType

import click

from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS


class Refused(click.ClickException):
    """Bad input: `fe: <one sentence>` on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        click.echo(f"fe: {' '.join(self.message.split())}", err=True)


class Interrupted(Refused):
    """Told to stop by Ctrl-C: one line, exit code 130 as shells expect it."""

    exit_code = 130


@contextmanager
def refusing(debug: bool) -> Iterator[None]:
    """Turn what this package refuses, and what the operating system refuses, into `Refused`; let bugs through as they are.

    With `debug` the traceback is kept for everything but misuse of the command line itself.
    """
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as fault:
        raise Refused(_usage(fault)) from fault
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except BrokenPipeError:
        raise  # click ends quietly when the reader of our output has gone
    except (ValueError, LookupError, OSError, FloatingPointError) as fault:
        if debug or not is_refusal(fault):
            raise
        raise Refused(sentence(fault)) from fault


def is_refusal(fault: BaseException) -> bool:
    """Whether `fault` speaks to the user: any OSError, and what this package or a plug-in raises as a judgement on its input.

    KeyError and IndexError, and a ValueError out of another library, are bugs of ours until proven otherwise.
    """
    if isinstance(fault, OSError):
        return True
    if isinstance(fault, KeyError | IndexError | UnicodeError):
        return False
    return _origin(fault.__traceback__) in _speakers()


def _origin(trace: TracebackType | None) -> str:
    """The top-level package of the frame that raised."""
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _speakers() -> set[str]:
    tables = (SOLVERS, EDITORS, MODELS, METRICS, CASES)
    return {__name__.partition(".")[0]} | {
        entry.module.partition(".")[0] for table in tables for entry in entry_points(group=table.group)
    }


def sentence(fault: BaseException) -> str:
    """What is said of a fault that is refused."""
    if isinstance(fault, OSError) and fault.strerror is not None:
        place = f" {fault.filename!r}" if fault.filename is not None else ""
        return f"cannot use{place}: {fault.strerror}" if place else fault.strerror
    notes = getattr(fault, "__notes__", ())
    return f"{fault} ({', '.join(notes)})" if notes else str(fault)


def _usage(fault: click.UsageError) -> str:
    command = fault.ctx.command_path if fault.ctx is not None else "fe"
    return f"{fault.format_message().rstrip('.')}; see {command} --help"
