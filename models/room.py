"""Whether networks fit this machine's memory at all. That is asked before the work: a system ends without a word whoever takes
more than there is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

_SAID: Final = Path("/proc/meminfo")
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


def check_room(needed: int, what: str) -> None:
    """Raise ValueError (one sentence) if `what` needs more bytes than this machine's memory and swap space hold in all."""
    here = host_bytes()
    if needed > here:
        raise ValueError(
            f"{what} needs {needed / 1e9:.1f} GB of memory and this machine has {here / 1e9:.1f} GB in all; "
            "use a narrower --dtype, a smaller model, or another machine"
        )


def host_bytes() -> float:
    """Memory and swap space of this machine; infinite where the system does not say."""
    if not _SAID.is_file():
        return math.inf
    return 1024.0 * sum(int(kilobytes) for kilobytes in re.findall(r"(?:MemTotal|SwapTotal):\s+(\d+) kB", _SAID.read_text()))


def network_bytes(folder: Path, dtypes: Mapping[str, torch.dtype]) -> int:
    """What the networks of a saved pipeline take once they are loaded, each (by its part's name) in that dtype; numbers that
    are no floats, as rounded weights are stored, stay what they are. A file that cannot be read counts as nothing."""
    return sum(_loaded(file, dtype) for name, dtype in dtypes.items() for file in _files(folder / name))


def _files(part: Path) -> list[Path]:
    """The weights of a part, without second copies for other uses."""
    return [file for file in part.glob("*.safetensors") if not re.search(r"\.(fp16|bf16|non_ema)\b", file.name)]


def _loaded(file: Path, dtype: torch.dtype) -> int:
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(entry["shape"]) * (dtype.itemsize if entry["dtype"] in _FLOATS else 1) for entry in entries)
    except Exception:  # a damaged file fails in every way there is, and loading it will tell
        return 0
