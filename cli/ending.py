"""How a long command ends before its time: told to stop, or by a disk that takes no more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

from .refusal import Interrupted, sentence

if TYPE_CHECKING:
    from ..experiments.folder import RunFolder

STOPS: Final = (signal.SIGINT, signal.SIGTERM)
_GOES_ON: Final = "; the same command goes on from there"


class Ended(Interrupted):
    """Told to stop by SIGTERM, which `kill` and schedulers send before they take a machine back: the exit code that shells
    expect of that."""

    exit_code = 143


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does. A second one of either, while that ends, ends the process at once.
    Raises Interrupted where nobody inside has said more."""

    told: list[int] = []  # kept here, since Ray puts a KeyboardInterrupt of its own in the place of ours

    def stop(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for one in heard:
            signal.signal(one, signal.SIG_DFL)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()  # Python hears signals there alone
    heard = [one for one in STOPS if here and signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, stop) for one in heard}
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stopped:
        said = stopped.message if isinstance(stopped, Interrupted) else "interrupted"
        raise (Ended if signal.SIGTERM in told else Interrupted)(said) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def keeping(folder: RunFolder, total: int) -> Iterator[None]:
    """If the run inside is ended early, say how many of its `total` cells are kept. Raises as `telling` does."""
    with telling(lambda: f"{len(folder.records())} of {total} cells are kept in {folder.path}"):
        yield


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """If what is inside is ended early, say what is `kept` of it for the same command to go on from. Raises Interrupted where
    it was told to stop, OSError where the folder could not be written."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {kept()}{_GOES_ON}") from None
    except BrokenPipeError:
        raise  # the reader of our output has gone, which is nothing to speak of
    except OSError as fault:
        raise OSError(f"{sentence(fault)}; {kept()}{_GOES_ON}") from fault
