"""What the output of a UNet of Stable Diffusion 1.5's layout means, and how it becomes the velocity of a flow.

A rectified flow's network knows the flow's own time. A diffusion model's network knows the states of a variance-preserving
process, z = sqrt(a) image + sqrt(1 - a) noise, where a (alpha-bar) falls with the DDPM step (Ho et al. 2020, arXiv 2006.11239).
Scaled, these are the states of a flow, x = (1 - t) image + t noise: t / (1 - t) = sqrt((1 - a) / a) and z = x / s with
s^2 = (1 - t)^2 + t^2, so sqrt(a) = (1 - t) / s and sqrt(1 - a) = t / s. In these terms a DDIM step (Song et al. 2020,
arXiv 2010.02502), which keeps the estimates of image and noise, is an Euler step of dx/dt = noise - image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from ..ode import TimeGrid
from .grids import shifted_grid

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

KNOT: Final = 1e-3
"""How near to a DDPM step, in steps, a time counts as its own."""


class Parameterisation(ABC):
    """How a flow's time and state are fed to a network, and how its output is read. Times are (B,), float64 and on the CPU, as
    what is computed of them is small and wants to be exact; states are (B, C, h, w)."""

    @abstractmethod
    def feed(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The timestep (B,) and the state that the network is to be given at (t, x)."""

    @abstractmethod
    def velocity(self, t: Tensor, x: Tensor, output: Tensor) -> Tensor:
        """dx/dt from the network's (guided) output at (t, x)."""

    @abstractmethod
    def grid(self, steps: int) -> TimeGrid:
        """The knots that such a network is sampled on. Raises ValueError for a number of steps that it has no knots for."""

    @abstractmethod
    def start(self, t: float, noise: Tensor) -> Tensor:
        """The state at the first knot `t` that generation from `noise` starts from."""


@dataclass(frozen=True)
class FlowVelocity(Parameterisation):
    """InstaFlow and 2-rectified flow (Liu et al. 2023, arXiv 2309.06380): the network is fed 1000 t and gives image - noise,
    minus our velocity; it is sampled on uniform steps from 1 to 0."""

    def feed(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return 1000.0 * t, x

    def velocity(self, t: Tensor, x: Tensor, output: Tensor) -> Tensor:
        return -output

    def grid(self, steps: int) -> TimeGrid:
        return shifted_grid(steps, 1.0)

    def start(self, t: float, noise: Tensor) -> Tensor:
        return noise


@dataclass(frozen=True, eq=False)
class Diffusion(Parameterisation):
    """A diffusion model's network. `times`: the flow's time at each DDPM step, rising, float64. `config`: its scheduler's.

    Between two DDPM steps the network is fed the step in between, in proportion; above the last and below the first, that
    one. Times above the last (0.936 for Stable Diffusion 1.5) are read as the last itself: the network knows no more noise.
    The grid is the knots of diffusers' DDIMScheduler and then exactly 0, as that scheduler ends with set_alpha_to_one=True;
    with False, as Stable Diffusion 1.5's files say, it ends at the noise of DDPM step 0 (0.028), and calls that the image.
    """

    times: Tensor
    config: Mapping[str, Any]

    def feed(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        step, t = self._known(t)
        return step, x / _shaped(torch.hypot(1.0 - t, t), x)

    def grid(self, steps: int) -> TimeGrid:
        most = len(self.times) - 1
        if not 1 <= steps <= most:
            raise ValueError(f"a network of {len(self.times)} noise levels is sampled in 1 to {most} steps, got {steps}")
        scheduler = _ddim(self.config)
        scheduler.set_timesteps(steps)
        return TimeGrid((*self.times[scheduler.timesteps].tolist(), 0.0))

    def start(self, t: float, noise: Tensor) -> Tensor:
        return noise * math.hypot(1.0 - t, t)

    def _known(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The DDPM step (a fraction between two) and the time, of times that the network knows."""
        below = (torch.searchsorted(self.times, t, right=True) - 1).clamp(0, len(self.times) - 2)
        step = below + ((t - self.times[below]) / (self.times[below + 1] - self.times[below])).clamp(0.0, 1.0)
        nearest = step.round()
        # A tensor of times in float32 misses a knot by 1e-4 of a step, which 1 / (1 - t) would make visible.
        at = ((step - nearest).abs() < KNOT) & (t >= self.times[0])
        return torch.where(at, nearest, step), torch.where(at, self.times[nearest.long()], t).clamp(max=self.times[-1])


@dataclass(frozen=True, eq=False)
class PredictedNoise(Diffusion):
    """The network estimates the noise e, so the image is (x - t e) / (1 - t), and the velocity, e minus that, is
    (e - x) / (1 - t)."""

    def velocity(self, t: Tensor, x: Tensor, output: Tensor) -> Tensor:
        _, t = self._known(t)
        return (output - x) / _shaped(1.0 - t, x)


@dataclass(frozen=True, eq=False)
class PredictedV(Diffusion):
    """The network gives V = sqrt(a) noise - sqrt(1 - a) image (Salimans and Ho 2022, arXiv 2202.00512), so its estimates are
    image = sqrt(a) z - sqrt(1 - a) V and noise = sqrt(1 - a) z + sqrt(a) V, and the velocity, their difference, is
    ((2 t - 1) z + V) / s.

    InstaFlow has been driven so, as if its network gave this V, and not a flow's velocity; to examine what that costs, it can
    be here too.
    """

    def velocity(self, t: Tensor, x: Tensor, output: Tensor) -> Tensor:
        _, t = self._known(t)
        size = torch.hypot(1.0 - t, t)
        return _shaped((2.0 * t - 1.0) / size**2, x) * x + output / _shaped(size, x)


def _shaped(factors: Tensor, x: Tensor) -> Tensor:
    """A factor for each row of `x`, to multiply it with."""
    return factors.to(x.device, x.dtype).reshape(-1, 1, 1, 1)


PREDICTIONS: Final = ("velocity", "epsilon", "v-vp")


def parameterisation(predicts: str, config: Mapping[str, Any]) -> Parameterisation:
    """The reading of a network that `predicts` one of PREDICTIONS, in a pipeline whose scheduler has this `config`.

    Raises ValueError if the scheduler has no noise levels to read the network by, or says that it does not predict noise
    where it is to do so.
    """
    if predicts == "velocity":
        return FlowVelocity()
    if "beta_schedule" not in config:
        raise ValueError(
            f"predicts={predicts} needs the noise levels (betas) that the network was trained with, and this pipeline's "
            "scheduler has none; use predicts=velocity, or a pipeline with a diffusion scheduler"
        )
    named = config.get("prediction_type", "epsilon")
    if predicts == "epsilon" and named != "epsilon":
        use = "use predicts=v-vp" if named == "v_prediction" else "use a model that predicts noise"
        raise ValueError(f"the scheduler of this pipeline says that its network predicts {named!r}, not noise (epsilon); {use}")
    kinds: Mapping[str, type[Diffusion]] = {"epsilon": PredictedNoise, "v-vp": PredictedV}
    alphas = _ddim(config).alphas_cumprod.double()
    signal, noise = alphas.sqrt(), (1.0 - alphas).sqrt()
    return kinds[predicts](noise / (signal + noise), dict(config))


def _ddim(config: Mapping[str, Any]) -> DDIMScheduler:
    """DDIM over the noise levels of a scheduler's `config`. Its steps fit "leading" and "trailing" timesteps; others
    ("linspace") are laid "leading", as Stable Diffusion's own are."""
    from diffusers import DDIMScheduler

    spacing = "trailing" if config.get("timestep_spacing") == "trailing" else "leading"
    offset = config.get("steps_offset", 0)  # named, as from_config drops what the pipeline has corrected in an old file
    scheduler: DDIMScheduler = DDIMScheduler.from_config(config, timestep_spacing=spacing, steps_offset=offset)
    return scheduler
