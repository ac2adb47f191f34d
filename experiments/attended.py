"""A model as it works, with somebody watching: what its codec and its text encoders take, and which states it meets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..attention_hooks.base import AttentionHook, Point
from ..models.base import Model
from ..ode import Field, Tick, TimeGrid
from .meter import settle

Look = Callable[[Tick, Tensor, Tensor], None]


@dataclass
class Trace:
    """Looks for the evaluation in whose step states stop being finite: `last`, or the last one of all where each state and
    velocity that it saw is finite (None where it saw nothing)."""

    last: Tick | None = None
    found: bool = False
    _before: Tick | None = None

    def __call__(self, tick: Tick, x: Tensor, velocity: Tensor) -> None:
        if self.found:
            return
        if self.last is not None and tick[1:] != self.last[1:]:
            self._before = self.last  # of an earlier step
        sound = bool(torch.isfinite(x).all())
        self.last = tick if sound or self._before is None else self._before
        self.found = not (sound and torch.isfinite(velocity).all())


class Attended(Model[Any]):
    """Another model, to be used in its place. `codec_seconds` and `text_seconds` are the time spent in `encode` and `decode`,
    and in `condition` (wall clock; text encoders are taken to be where the latents are). `look`, if given, is shown every
    evaluation: its time, state (B, ...) and velocity; not those of an editor that goes past `field`."""

    def __init__(self, model: Model[Any], look: Look | None = None) -> None:
        self.network, self.trained, self.setup = model.network, model.trained, model.setup
        self.codec_seconds = self.text_seconds = 0.0
        self._model, self._look, self._device = model, look, torch.device("cpu")

    def encode(self, pictures: Tensor) -> Tensor:
        started = time.perf_counter()
        latents = self._model.encode(pictures)
        self._device = latents.device
        self.codec_seconds += self._since(started)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        started = time.perf_counter()
        pictures = self._model.decode(latents)
        self.codec_seconds += self._since(started)
        return pictures

    def condition(self, prompts: Sequence[str], guidance: float) -> Any:
        started = time.perf_counter()
        condition = self._model.condition(prompts, guidance)
        self.text_seconds += self._since(started)
        return condition

    def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
        return self._model.velocity(t, x, condition)

    def calls(self, condition: Any) -> Sequence[Sequence[int]]:
        return self._model.calls(condition)

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        return self._model.grid(steps, latent_shape)

    def start(self, t: float, noise: Tensor) -> Tensor:
        return self._model.start(t, noise)

    def points(self) -> Mapping[Point, nn.Module]:
        return self._model.points()

    def feature_bytes(self, latent_shape: Sequence[int]) -> Mapping[Point, int]:
        return self._model.feature_bytes(latent_shape)

    def parts(self) -> Mapping[str, nn.Module | str]:
        return self._model.parts()

    @property
    def multiple(self) -> int:
        return self._model.multiple

    @property
    def packing(self) -> int:
        return self._model.packing

    @property
    def side(self) -> int:
        return self._model.side

    @property
    def usual_side(self) -> int:
        return self._model.usual_side

    def field(self, condition: Any, hook: AttentionHook | None = None) -> Field:  # type: ignore[misc]
        """The model's own field; it is final, and stays what it is: only here is it known to which step a state belongs."""
        field, look = self._model.field(condition, hook), self._look
        if look is None:
            return field

        def seen(tick: Tick, x: Tensor) -> Tensor:
            velocity = field(tick, x)
            look(tick, x, velocity)
            return velocity

        return seen

    def _since(self, started: float) -> float:
        settle(self._device)
        return time.perf_counter() - started
