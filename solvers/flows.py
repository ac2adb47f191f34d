"""Small flows with known behaviour: what the conformance kit walks, and the closed-form velocity of a Gaussian mixture."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ode import Slope


def pendulum(t: float, x: Tensor) -> Tensor:
    """A swinging pendulum, five radians of phase in unit time. x: (..., 2), angle and angular velocity."""
    angle, speed = x.unbind(-1)
    return 5.0 * torch.stack((speed, -torch.sin(angle)), dim=-1)


def lotka_volterra(t: float, x: Tensor) -> Tensor:
    """Prey and predators, about one of their cycles in unit time. x: (..., 2), both positive."""
    prey, predators = x.unbind(-1)
    return 4.0 * torch.stack((prey * (1.5 - predators), predators * (prey - 1.0)), dim=-1)


def mixture_velocity(t: float | Tensor, x: Tensor, means: Tensor, std: float) -> Tensor:
    """E[noise - image | x_t = x] where images are an equal mixture of Gaussians: the exact velocity of its rectified flow.

    t: time in [0, 1], a number or a tensor that broadcasts against x[..., :1]. x: (..., D). means: (..., K, D), whose leading
    axes broadcast against those of x. std > 0: the standard deviation of every component. Returns (..., D) in x's dtype.
    The posterior of component k is softmax_k of -|x - (1-t) m_k|^2 / 2 var, with var = (1-t)^2 std^2 + t^2; the factor 1/t of
    the textbook form is cancelled by hand, so t = 0 gives the limit, -x.
    """
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    variance = (1 - time) ** 2 * std**2 + time**2
    offsets = x.unsqueeze(-2) - (1 - time[..., None]) * means  # (..., K, D)
    weights = torch.softmax(-offsets.square().sum(-1, keepdim=True) / (2 * variance[..., None]), dim=-2)  # (..., K, 1)
    mean = (weights * means).sum(-2)  # (..., D)
    return ((time - (1 - time) * std**2) * x - time * mean) / variance


def mild_mixture(t: float, x: Tensor) -> Tensor:
    """The rectified flow to three wide, overlapping Gaussians in the plane. x: (..., 2)."""
    return mixture_velocity(t, x, x.new_tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -0.5]]), 0.6)


class Flow(NamedTuple):
    """A smooth flow in the plane over times in [0, 1], and the points (P, 2) from which it is walked."""

    name: str
    slope: Slope
    starts: tuple[tuple[float, float], ...]


FLOWS = (
    Flow("pendulum", pendulum, ((1.2, 0.3),)),
    Flow("Lotka-Volterra", lotka_volterra, ((1.2, 0.8),)),
    Flow("mixture", mild_mixture, ((0.3, -0.4), (-0.5, 0.8), (0.9, 0.2))),
)
