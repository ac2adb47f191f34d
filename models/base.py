"""The contract of a model: a velocity field over latents, conditioned on prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, Self, TypeVar, final

import torch
from torch import Tensor, nn

from ..attention_hooks.base import AttentionHook, Point, attached
from ..ode import Field, Tick, TimeGrid
from ..options import check, option

USUAL_SIDE: Final = 1024
"""Of pictures drawn by a model that does not say for which size it was made."""

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    """Every evaluation is a forward call of this module: cost is counted here."""

    trained: bool = True
    """False where the network's weights are random: then its results say what things cost, and nothing of their quality."""

    setup: Setup | None = None
    """How it was loaded (None: it was handed over as it is)."""

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
        """dx/dt at (t, x), same shape and dtype as `x` (B, ...), by the network calls that `calls` tells of. `t`: one time for
        all rows, or (B,). `condition` has B rows, each with its own prompt and guidance."""

    def calls(self, condition: AnyCondition) -> Sequence[Sequence[int]]:
        """The network calls that one evaluation under `condition` makes: for each, the row of the condition that every batch
        row of the call serves, the row's own evaluation before any that guide it. One call with a row each, unless a
        model guides with extra rows or cannot batch its rows."""
        return [range(len(condition))]

    @abstractmethod
    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        """The model's own sampling grid, for latents of that shape (B, ...): from 1, or the last time below it that the network
        was trained on, to 0."""

    def start(self, t: float, noise: Tensor) -> Tensor:
        """Where generation from `noise` (B, ...) starts, at the first knot `t` of a grid: the noise itself, unless the model
        scales its states."""
        return noise

    @abstractmethod
    def points(self) -> Mapping[Point, nn.Module]:
        """Where attention features can be met: point to the module whose output is the feature. Empty if nowhere."""

    def feature_bytes(self, latent_shape: Sequence[int]) -> Mapping[Point, int]:
        """Memory that the feature of one row takes at each point, for latents of that shape (B, ...). Empty if not known."""
        return {}

    def parts(self) -> Mapping[str, nn.Module | str]:
        """What results depend on besides code, by name: networks (a codec and text encoders too), and settings as text that is
        the same wherever the model lies."""
        return {"network": self.network}

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Picture sides must be multiples of this many pixels (0 where the latents are no pictures)."""

    @property
    def packing(self) -> int:
        """Side of the squares of latent entries that the model's pipeline packs into one place (FLUX: 2). Methods that weigh
        places against each other take such a square as one, as their authors' codes do on that model."""
        return 1

    @property
    def side(self) -> int:
        """Side in pixels of the square pictures it was made for, where it knows no other size (0: any size will do)."""
        return 0

    @property
    def usual_side(self) -> int:
        """Side in pixels of the squares that it draws where no size is asked for."""
        return self.side or USUAL_SIDE

    def __repr__(self) -> str:
        size = sum(weights.numel() for weights in self.network.parameters())
        parts = [type(self.network).__name__]
        if size > 0:
            parts.append(f"{size / 1e6:,.1f} M parameters")
        if not self.trained:
            parts.append("random weights")
        return f"{type(self).__name__}({', '.join(parts)})"

    @final
    def field(self, condition: AnyCondition, hook: AttentionHook | None = None) -> Field:
        """The velocity under `condition` as a field to integrate; `hook` acts in every evaluation and always comes off."""

        def velocity(tick: Tick, x: Tensor) -> Tensor:
            with attached(self.points() if hook is not None else {}, hook, tick):
                return self.velocity(tick.t, x, condition)

        return velocity


@dataclass(frozen=True)
class Setup:
    """How a model is to be had, whichever it is.

    `device`: "cpu", "cuda", "cuda:1", "mps". `dtype`: what its networks compute in.
    `weights`: "trained", or "random" for the full-size architecture filled with random numbers, to measure speed and memory
    without any download. `compiled`: compile its blocks. `low_memory`: only the part that works is on the device, and
    the codec works in tiles. `quantise`: "none", or what the weights of its largest networks are rounded to as they load.
    `features`: where recorded attention features are kept: on the "device", in the "host"'s memory, or "auto", which takes
    the host's where the device has no room for them.
    Raises OptionError for a value that is no choice.
    """

    device: str = "cpu"
    dtype: str = option("float32", "what the networks compute in", choices=tuple(DTYPES))
    weights: str = option("trained", "the weights to load", choices=("trained", "random"))
    compiled: bool = False
    low_memory: bool = False
    quantise: str = option("none", "what the weights are rounded to", choices=("none", "int8", "nf4"))
    features: str = option("auto", "where recorded features are kept", choices=("auto", "device", "host"))

    def __post_init__(self) -> None:
        check(self)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


class Loader(ABC):
    """How a named model comes to be: the registry's entry for a model. Subclasses are final frozen dataclasses whose fields
    are the model's options (see `options.option`)."""

    @abstractmethod
    def load(self, source: str | None, setup: Setup) -> Model[Any]:
        """Build the model. `source`: a folder or hub id, None for the name's own default.
        Raises ValueError (one sentence: what was wrong, what would do) if it cannot be had.
        """

    def wrap(self, pipeline: Any) -> Model[Any]:
        """The model around a diffusers pipeline object, whose parts stay where and as they are.
        Raises ValueError (one sentence) if this loader cannot drive it, or drives none."""
        raise ValueError(f"{type(self).__name__} makes no model of a pipeline object; give the model's name or folder")


def check_rows(condition: Condition, x: Tensor) -> None:
    """Raise ValueError unless `condition` has an entry for each row of `x`."""
    if len(condition) != len(x):
        raise ValueError(f"the condition has {len(condition)} rows and the latent {len(x)}; they must be equal")


def per_row(t: float | Tensor, x: Tensor) -> Tensor:
    """The time of every row of `x`, float32 (B,), on its device."""
    if isinstance(t, Tensor):
        return t.to(x.device, torch.float32).expand(x.shape[0])
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)
