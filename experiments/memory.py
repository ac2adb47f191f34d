"""Peak memory of a stretch of work: on the GPU, or of the whole process where the system says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: torch.device) -> bool:
    """Start a new stretch. Returns whether `peak_bytes` can tell its peak on this system."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _CLEAR.write_text("5")  # Linux: the peak becomes what is resident now
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The peak since the last reset, in bytes: allocated on a GPU; otherwise resident of the whole process, libraries and
    weights included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None  # where the peak can be reset, the kernel shows it
    return int(found[1]) * 1024
