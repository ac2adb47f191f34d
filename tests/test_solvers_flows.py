"""The flows themselves: what they keep, and the mixture's velocity against its density."""

from __future__ import annotations

import pytest
import torch
from fe.ode import TimeGrid
from fe.solvers.base import integrate
from fe.solvers.flows import lotka_volterra, mild_mixture, mixture_velocity, pendulum
from fe.solvers.rk4 import RungeKutta4
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

torch.set_num_threads(1)
MEANS = torch.tensor([[-2.0, 0.5], [1.0, 1.5], [0.3, -1.0]], dtype=torch.float64)
STD = 0.4


def points(count: int = 50) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_pendulum_keeps_its_energy() -> None:
    x = points().requires_grad_()
    energy = x[:, 1] ** 2 / 2 - torch.cos(x[:, 0])
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert (gradient * pendulum(0.3, x)).sum(-1).abs().max() < 1e-14


def test_lotka_volterra_keeps_its_invariant() -> None:
    x = (points().abs() + 0.2).requires_grad_()
    kept = x[:, 0] - torch.log(x[:, 0]) + x[:, 1] - 1.5 * torch.log(x[:, 1])
    (gradient,) = torch.autograd.grad(kept.sum(), x)
    assert (gradient * lotka_volterra(0.3, x)).sum(-1).abs().max() < 1e-13


@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.999])
def test_mixture_velocity_follows_from_the_score(t: float) -> None:
    """E[noise | x] = -t grad log p_t (Tweedie) and x = (1-t) image + t noise give the velocity from the density alone."""
    x = points().requires_grad_()
    spread = ((1 - t) ** 2 * STD**2 + t**2) ** 0.5
    parts = Independent(Normal((1 - t) * MEANS, torch.full_like(MEANS, spread)), 1)
    density = MixtureSameFamily(Categorical(torch.ones(3, dtype=torch.float64)), parts)
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)  # type: ignore[no-untyped-call]
    noise = -t * score
    image = (x - t * noise) / (1 - t)
    assert torch.allclose(mixture_velocity(t, x, MEANS, STD), noise - image, rtol=1e-9, atol=1e-9)


def test_mixture_velocity_at_the_ends() -> None:
    """At t = 0 the image is x and the noise is independent of it; at t = 1 the noise is x and the image the mixture's mean."""
    x = points()
    assert torch.allclose(mixture_velocity(0.0, x, MEANS, STD), -x, rtol=0, atol=1e-14)
    assert torch.allclose(mixture_velocity(1.0, x, MEANS, STD), x - MEANS.mean(0), rtol=0, atol=1e-14)
    near = mixture_velocity(1e-9, x, MEANS, STD)
    assert (near + x).abs().max() < 1e-6


def test_flow_to_one_gaussian_is_an_affine_map() -> None:
    """With one component the noise z is carried to mean + std z."""
    noise, mean = points(), torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    walked = integrate(RungeKutta4(), lambda tick, x: mixture_velocity(tick.t, x, mean, STD), noise, TimeGrid.uniform(400))
    assert torch.allclose(walked.x, mean + STD * noise, rtol=0, atol=1e-8)


def test_mixture_velocity_takes_a_time_and_a_mixture_for_every_row() -> None:
    clouds = points(60).reshape(4, 15, 2)
    times = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    mixtures = torch.stack([MEANS + row for row in range(4)])
    together = mixture_velocity(times[:, None, None], clouds, mixtures[:, None], STD)
    alone = torch.stack([mixture_velocity(float(t), x, m, STD) for t, x, m in zip(times, clouds, mixtures, strict=True)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.5, 1.0])
def test_mixture_velocity_in_float32(t: float) -> None:
    """Also with modes so far apart that every unnormalised weight underflows."""
    x, means = points() * 20, MEANS * 10
    single = mixture_velocity(t, x.float(), means.float(), 1.0)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), mixture_velocity(t, x, means, 1.0), rtol=1e-4, atol=1e-3)


def test_mild_mixture_is_smooth_enough_to_stay_bounded() -> None:
    assert all(mild_mixture(t, points()).abs().max() < 10 for t in (0.0, 0.5, 1.0))
