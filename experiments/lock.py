"""One process at a time for a folder, and who that is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import whole

LOCK, HOLDER = ".lock", ".holder"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others out of a folder. The system lets go of the lock when the process ends, however it ends; the empty lock file
    stays, since removing it would let in one who has opened it already beside one who makes a new one.

    Raises ValueError if it is taken, naming who has it, or if the file system knows no locks."""
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{str(path)!r} is in use by {_holder(path)}; wait for it, or give --out another folder") from None
    except (NotImplementedError, OSError) as fault:
        raise ValueError(
            f"{str(path)!r} cannot be locked against other processes ({fault}); give --out another folder"
        ) from fault
    try:
        with whole(path / HOLDER) as file:  # beside the lock, which is emptied by whoever tries it
            file.write(_this_process().encode())
        yield
    finally:
        with suppress(OSError):  # the folder may be read-only by now
            (path / HOLDER).unlink()
        lock.release()


def _this_process() -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _holder(path: Path) -> str:
    try:
        return (path / HOLDER).read_text(encoding="utf-8")
    except (OSError, ValueError):  # just taken, or just left
        return "another process"
