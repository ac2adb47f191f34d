"""Features that wait in the host's memory: copied there beside the network's work, and back when they are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class OnHost:
    """A feature of a GPU in page-locked host memory: `copy`, and the event after which it is complete."""

    copy: Tensor
    device: torch.device
    done: torch.cuda.Event

    @classmethod
    def of(cls, feature: Tensor) -> OnHost:
        """Start to copy `feature`, which nobody may change from now on. Returns before that is done."""
        copy = torch.empty(feature.shape, dtype=feature.dtype, pin_memory=True)
        stream = _beside(feature.device)
        stream.wait_stream(torch.cuda.current_stream(feature.device))  # the feature may still be being computed
        with torch.cuda.stream(stream):
            copy.copy_(feature, non_blocking=True)
            done = stream.record_event()
        feature.record_stream(stream)  # its memory is not given to others before the copy is done
        return cls(copy, feature.device, done)

    def back(self) -> Tensor:
        """The feature on its GPU again, for whatever the current stream does next."""
        torch.cuda.current_stream(self.device).wait_event(self.done)
        return self.copy.to(self.device, non_blocking=True)


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """One stream of a GPU for all copies to the host, beside that of the network."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
