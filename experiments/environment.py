"""Where a run takes place: versions, device, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("fe-toolkit", "torch", "diffusers", "transformers", "torchmetrics", "numpy")


def environment(device: str) -> dict[str, Any]:
    """What a reader of the results has to know to get them again, as plain values."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: found for name in _PACKAGES if (found := _version(name))},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def device_name(device: str) -> str:
    """What a device is called: the GPU's name, or the machine's kind."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def commit() -> str | None:
    """The commit of this package's source, with "+changes" where files differ from it; None outside a repository."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
