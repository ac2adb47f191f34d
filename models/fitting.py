"""Work that may need more memory than the GPU has, and what is said then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .base import Setup

Made = TypeVar("Made")


class OutOfMemoryError(ValueError):
    """The GPU's memory does not suffice; less at once may fit."""


def fitting(work: Callable[[], Made], setup: Setup | None, further: Sequence[str] = ()) -> Made:
    """What `work` returns. `setup`: how its model was loaded; `further`: what else would take less memory.

    Raises OutOfMemoryError (one sentence) if the GPU's memory does not suffice: what was in use, and what may fit.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        pass  # this fault holds all that was on the stack; whoever tries something smaller next needs that memory
    ways = [*_smaller(setup), *further]
    raise OutOfMemoryError(f"out of GPU memory{_used()}; " + (f"try {' or '.join(ways)}" if ways else "a larger GPU would do"))


def _used() -> str:
    if not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info()
    return f": {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB were in use"


def _smaller(setup: Setup | None) -> list[str]:
    """What of a setup can be made smaller, as the command line calls it."""
    if setup is None:
        return ["a pipeline in bfloat16", "its enable_model_cpu_offload()", "quantised weights"]
    ways = {
        "--dtype bfloat16": setup.dtype == "float32",
        "--low-memory": not setup.low_memory,
        "--quantise nf4": setup.quantise != "nf4",
    }
    return [way for way, possible in ways.items() if possible]
