"""The contract of a model: a velocity field over latents, conditioned on prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, final

from torch import Tensor, nn

from ..attention_hooks.base import AttentionHook, Point, attached
from ..ode import Field, Tick, TimeGrid


class Condition(Protocol):
    """What the velocity depends on besides (t, x): one entry a row. Made by `Model.condition`, joined by `joined`."""

    def __len__(self) -> int: ...

    def joined(self, other: Self) -> Self:
        """The rows of this condition followed by the rows of `other`, for one network call."""
        ...


AnyCondition = TypeVar("AnyCondition", bound=Condition)


class Model(ABC, Generic[AnyCondition]):
    """A rectified-flow model. Latents are float32 (float64 where a test asks for it), rows first; the network may run in
    another dtype inside. Time is 1 at noise and 0 at the image, velocity is noise - image, whatever the network's own
    conventions are. Nothing is kept from call to call.
    """

    network: nn.Module
    """Every evaluation is one forward call of this module: cost is counted here."""

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to latents (B, ...) float32, by the mode of the codec's distribution.
        Pictures may come from any device; latents are on the model's.
        Raises ValueError if H or W does not suit the model."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, ...) to pictures (B, 3, H, W) in [0, 1], float32."""

    @abstractmethod
    def condition(self, prompts: Sequence[str], guidance: float) -> AnyCondition:
        """One row for each prompt, all at one guidance scale. Each distinct prompt is encoded once.
        Raises ValueError for a prompt that the model cannot read."""

    @abstractmethod
    def velocity(self, t: float | Tensor, x: Tensor, condition: AnyCondition) -> Tensor:
        """dx/dt at (t, x), same shape and dtype as `x` (B, ...), by one network call. `t`: one time for all rows, or (B,).
        `condition` has B rows, each with its own prompt and guidance."""

    @abstractmethod
    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        """The model's own sampling grid from 1 to 0, for latents of that shape (B, ...)."""

    @abstractmethod
    def points(self) -> Mapping[Point, nn.Module]:
        """Where attention features can be met: point to the module whose output is the feature. Empty if nowhere."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Picture sides must be multiples of this many pixels (0 where the latents are no pictures)."""

    @property
    def side(self) -> int:
        """Side in pixels of the square pictures it was made for, where it knows no other size (0: any size will do)."""
        return 0

    @final
    def field(self, condition: AnyCondition, hook: AttentionHook | None = None) -> Field:
        """The velocity under `condition` as a field to integrate; `hook` acts in every evaluation and always comes off."""

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            with attached(self.points() if hook is not None else {}, hook, tick):
                return self.velocity(tick.t, x, condition)

        return velocity


class Loader(ABC):
    """How a named model comes to be: the registry's entry for a model. `load` is given the user's path or id, if any."""

    @classmethod
    @abstractmethod
    def load(cls, source: str | None, *, device: str, dtype: str, local_only: bool = True) -> Model[Any]:
        """Build the model on `device` with its network in `dtype` ("float32", "bfloat16", "float16").

        `source`: a folder or hub id, None for the name's own default. `local_only`: never ask a hub.
        Raises ValueError (one sentence: what was wrong, what would do) if it cannot be had.
        """
