"""Cost, counted at the network and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Meter:
    """What a network was asked: forward `calls`, batch `rows` summed over them, and `seconds` inside them (wall clock)."""

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0


@contextmanager
def metered(network: nn.Module) -> Iterator[Meter]:
    """Count every forward call of `network` inside the `with` block, whoever makes it."""
    meter, started = Meter(), [0.0]

    def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        meter.calls += 1
        meter.rows += next(
            value.shape[0] for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 0
        )
        _settle()
        started[0] = time.perf_counter()

    def after(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        _settle()
        meter.seconds += time.perf_counter() - started[0]

    handles = [network.register_forward_pre_hook(before, with_kwargs=True), network.register_forward_hook(after)]
    try:
        yield meter
    finally:
        for handle in handles:
            handle.remove()


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
