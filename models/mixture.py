"""The closed-form model: rectified flow between Gaussian noise and a Gaussian mixture in the plane, with no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Point
from ..cases.mixture import STD, modes
from ..ode import TimeGrid
from ..solvers.flows import mixture_velocity
from .base import Loader, Model, Setup


@dataclass(frozen=True)
class MixtureCondition:
    """The mixture that each row flows to: the centres of its modes (B, K, 2), in float64."""

    means: Tensor

    def __len__(self) -> int:
        return self.means.shape[0]

    def joined(self, other: MixtureCondition) -> MixtureCondition:
        return MixtureCondition(torch.cat((self.means, other.means)))


class MixtureNetwork(nn.Module):
    """The velocity E[noise - image | x_t = x] of equally weighted Gaussian modes, as a module so that its calls are counted."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor, t: Tensor, means: Tensor) -> Tensor:
        """x: points (B, P, 2). t: times (B,). means: centres of the modes (B, K, 2). Returns (B, P, 2) in x's dtype."""
        return mixture_velocity(t.to(x.dtype)[:, None, None], x, means.to(x.dtype)[:, None], self.std)


class MixtureModel(Model[MixtureCondition]):
    """Two-dimensional Gaussian mixtures of standard deviation `std` > 0 (Kulikov et al. 2024, arXiv 2412.08629).

    A "picture" is a cloud of points (P, 2) and is its own latent. Prompts name mixtures (see `cases.mixture.MODES`). There is
    nothing to guide: the velocity is exact, and a guidance other than 1 is refused.
    """

    def __init__(self, std: float = STD, device: str = "cpu") -> None:
        if not std > 0:
            raise ValueError(f"the modes need a positive standard deviation, got {std}")
        self.network = MixtureNetwork(std)
        self.device = torch.device(device)

    def encode(self, pictures: Tensor) -> Tensor:
        if pictures.ndim != 3 or pictures.shape[-1] != 2:
            raise ValueError(
                f"the mixture model takes clouds of points (B, P, 2), got {tuple(pictures.shape)}; use its own cases"
            )
        return pictures.to(self.device, torch.float32)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.float()

    def condition(self, prompts: Sequence[str], guidance: float) -> MixtureCondition:
        if guidance != 1.0:
            raise ValueError(f"the mixture model has no guidance: every guidance must be 1, got {guidance}")
        return MixtureCondition(torch.stack([modes(prompt) for prompt in prompts]).to(self.device))

    def velocity(self, t: float | Tensor, x: Tensor, condition: MixtureCondition) -> Tensor:
        times = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
        velocity: Tensor = self.network(x, times, condition.means)
        return velocity

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        return TimeGrid.uniform(steps)

    def points(self) -> Mapping[Point, nn.Module]:
        return {}

    @property
    def multiple(self) -> int:
        return 0


@dataclass(frozen=True)
class MixtureLoader(Loader):
    """Two-dimensional Gaussian mixtures with a closed-form velocity: nothing to read, nothing to choose."""

    def load(self, source: str | None, setup: Setup) -> Model[Any]:
        if source is not None:
            raise ValueError(f"the mixture model has no weights to load, got {source!r}; name it 'mixture' alone")
        if setup.weights == "random":
            raise ValueError("the mixture model has no weights, so none can be random; leave out --weights random")
        if setup.dtype != "float32":
            raise ValueError(f"the mixture model computes in float32, got {setup.dtype!r}")
        return MixtureModel(device=setup.device)
