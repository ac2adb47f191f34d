"""How much memory recorded features take, and where they go."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch

from ..models.base import Model

SPARE: Final = 0.1
"""Share of a GPU's memory that stays free of features: what the network and the codec need while they work."""


class Kept(NamedTuple):
    """Features of `blocks` blocks in `steps` steps: `bytes` of them, 0 where the model does not know."""

    bytes: int
    blocks: int
    steps: int

    def on_host(self, model: Model[Any], device: torch.device) -> bool:
        """Whether to keep them in the host's memory: as the model's setup says, and where it leaves that open, if the device
        has no room for them beside the weights that are still to come there."""
        wanted = "auto" if model.setup is None else model.setup.features
        if wanted != "auto":
            return wanted == "host"
        return device.type == "cuda" and self.bytes > _room(model, device)

    def said(self, model: Model[Any], device: torch.device) -> str:
        """The same in words."""
        size = f"{_readable(self.bytes)} of features" if self.bytes else "features"
        blocks, steps = _counted(self.blocks, "block"), _counted(self.steps, "step")
        place = "in the host's memory" if self.on_host(model, device) else "on the device"
        return f"keeps {size} ({blocks}, {steps}) {place}"


def _room(model: Model[Any], device: torch.device) -> int:
    """Bytes of a GPU that features may take."""
    free, total = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    absent = sum(weight.nbytes for weight in model.network.parameters() if weight.device != device)
    return free + cached - absent - int(SPARE * total)


def _readable(size: int) -> str:
    unit, name = next((unit, name) for unit, name in ((10**9, "GB"), (10**6, "MB"), (1, "bytes")) if size >= unit)
    return f"{size / unit:.3g} {name}" if unit > 1 else f"{size} {name}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
