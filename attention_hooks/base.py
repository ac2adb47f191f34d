"""Where a network's attention features can be met, and how a hook meets them for exactly one evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..ode import Tick

Stream = Literal["joint", "single", "dual", "self"]
Part = Literal["q", "k", "v", "out"]


class Point(NamedTuple):
    """A named place in the network: the stream of blocks, the block's index in that stream, and the tensor met there.

    Streams: "single", where text and image are one sequence (FLUX); "joint", the image side where they have weights of their
    own (FLUX, SD3); "dual", a joint block's second attention among image tokens alone (SD3.5); "self", a UNet's attention
    among image tokens.
    q and k are met after their QK-norm and before the rotary embedding, v straight after its projection.
    """

    stream: Stream
    block: int
    part: Part


class AttentionHook(Protocol):
    """Called with each value met at `points` (rows first); what it returns goes on through the network."""

    @property
    def points(self) -> Collection[Point]: ...

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor: ...


@contextmanager
def attached(modules: Mapping[Point, nn.Module], hook: AttentionHook | None, at: Tick) -> Iterator[None]:
    """Let `hook` act inside the `with` block; it comes off however the block ends.

    Compiled code leaves out, without a word, all hooks that came later than it. So what was compiled runs eagerly inside the
    block, in every thread of the process: threads whose networks have hooks must take turns.
    Raises LookupError, before anything is attached, if the hook asks for a point that the network does not have.
    """
    points = [] if hook is None else list(hook.points)
    missing = [point for point in points if point not in modules]
    if missing:
        raise LookupError(f"this network has no attention point {missing[0]}; it has {len(modules)} points, see Model.points()")
    if not points:
        yield
        return
    handles = []
    try:
        for point in points:

            def meet(module: nn.Module, inputs: object, value: Tensor, point: Point = point) -> Tensor:
                assert hook is not None
                return hook(at, point, value)

            handles.append(modules[point].register_forward_hook(meet))
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()
