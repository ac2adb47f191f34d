"""Cost, counted at the network and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_Call = Callable[..., Any]
_Before = Callable[[nn.Module, tuple[object, ...], dict[str, object]], None]
_After = Callable[[nn.Module, tuple[object, ...], object], None]


@dataclass
class Meter:
    """What a network was asked: forward `calls`, batch `rows` summed over them, and `seconds` inside them (wall clock)."""

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0


_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[Any]] = WeakKeyDictionary()
_MAKING = Lock()


@contextmanager
def alone(network: nn.Module) -> Iterator[None]:
    """Inside, no other thread works with `network`: its hooks would meet the evaluations of both, and offloaded parts would
    come and go under each other. Threads with networks of their own do not wait for each other."""
    with _MAKING:
        lock = _LOCKS.setdefault(network, RLock())
    with lock:
        yield


@contextmanager
def metered(network: nn.Module, watch: Callable[[int], None] | None = None) -> Iterator[Meter]:
    """Count every forward call of `network` inside the `with` block, whoever makes it; `watch` hears the number after each."""
    meter, started, device = Meter(), 0.0, torch.device("cpu")

    def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        nonlocal started, device
        batch = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 0)
        meter.calls += 1
        meter.rows += batch.shape[0]
        device = batch.device
        settle(device)
        started = time.perf_counter()

    def after(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        settle(device)
        meter.seconds += time.perf_counter() - started
        if watch is not None:
            watch(meter.calls)

    with _around(network, before, after):
        yield meter


@contextmanager
def _around(network: nn.Module, before: _Before, after: _After) -> Iterator[None]:
    """Call those two at every call of `network`: by hooks, unless its call as a whole was compiled in place. There, later hooks
    are left out, or break the compiling by what they do."""
    compiled = network._compiled_call_impl
    if compiled is None:
        with network.register_forward_pre_hook(before, with_kwargs=True), network.register_forward_hook(after):
            yield
        return

    def counted(*args: Any, **kwargs: Any) -> Any:
        before(network, args, kwargs)
        output = compiled(*args, **kwargs)
        after(network, args, output)
        return output

    network._compiled_call_impl = counted
    try:
        yield
    finally:
        network._compiled_call_impl = compiled


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked, so that the clock counts it; nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
