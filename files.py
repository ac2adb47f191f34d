"""Files that are there whole or not at all, whatever ends the process or the machine that writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

PASSING = ".fe-"
"""How the name of a file begins while it is written; one that is left over was being written when its process was ended."""


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which is forced to disk and then takes its place at `path` when the block ends well; nothing stays
    of it otherwise. Raises OSError naming `path`."""
    passing = path.with_name(f"{PASSING}{token_hex(8)}")
    try:
        with passing.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a machine that loses power may have the name without the content
        os.replace(passing, path)
    except BaseException as fault:
        with suppress(OSError):
            passing.unlink()
        if isinstance(fault, OSError) and fault.errno is not None:
            raise OSError(fault.errno, fault.strerror, str(path)) from fault
        raise
