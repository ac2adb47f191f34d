"""Where a run takes place: versions, device, commit, command. Nothing of whose machine it is."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import torch

from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS

_PACKAGES = (
    *("fe-toolkit", "torch", "diffusers", "transformers", "accelerate", "torchmetrics", "numpy", "pillow"),
    *("bitsandbytes", "torchao", "peft", "ray"),
)


def environment(device: str) -> dict[str, Any]:
    """What a reader of the results has to know to get them again, as plain values. `changes`: whether files of this package's
    source differ from the commit (None, as the commit, outside of a repository)."""
    head, changes = commit()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": head,
        "changes": changes,
        "versions": {"python": platform.python_version()} | _packages() | _plugins() | _gpu(device),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def device_name(device: str) -> str:
    """What a device is called: the GPU's name, or the machine's kind with what its cores can do at once."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def commit() -> tuple[str | None, bool | None]:
    """The commit of this package's source, and whether files that it has differ from it; None outside of a repository."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None, None
    try:
        changed = _said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
        return _said("git", "-C", str(folder), "rev-parse", "HEAD"), bool(changed)
    except (OSError, subprocess.SubprocessError):
        return None, None


def _packages() -> dict[str, str]:
    found = {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    return found | {"torch": str(torch.__version__)}  # with its build, such as +cpu


def _plugins() -> dict[str, str]:
    """The packages that bring solvers, editors, models, metrics or cases of their own."""
    tables = (SOLVERS, EDITORS, MODELS, METRICS, CASES)
    entries = [entry for table in tables for entry in entry_points(group=table.group)]
    return {entry.dist.name: entry.dist.version for entry in entries if entry.dist is not None}


def _gpu(device: str) -> dict[str, str]:
    """The driver of the GPU, and what drives it: CUDA or ROCm, and cuDNN."""
    if not device.startswith("cuda"):
        return {}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    found = {"cuda": torch.version.cuda, "hip": torch.version.hip, "cudnn": cudnn, "driver": _driver()}
    return {name: str(value) for name, value in found.items() if value is not None}


def _driver() -> str | None:
    try:
        return _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
