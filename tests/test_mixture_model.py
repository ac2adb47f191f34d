"""The closed-form model against torch.distributions, and the contract of a model."""

from __future__ import annotations

import math

import pytest
import torch
from fe.cases.mixture import STD, modes
from fe.editors.base import KeyedNoise, Request
from fe.editors.controls import FromNoise
from fe.experiments.meter import metered
from fe.models.base import Setup
from fe.models.mixture import MixtureLoader, MixtureModel
from fe.ode import Tick
from fe.solvers.rk4 import RungeKutta4


def score(t: float, x: torch.Tensor, prompt: str) -> torch.Tensor:
    """The gradient of the log density of x_t, by automatic differentiation of torch's own mixture distribution."""
    centres = modes(prompt)
    spread = math.sqrt(((1 - t) * STD) ** 2 + t**2)
    parts = torch.distributions.MultivariateNormal((1 - t) * centres, spread**2 * torch.eye(2, dtype=torch.float64))
    density = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(len(centres))), parts)
    x = x.clone().requires_grad_()
    logarithm: torch.Tensor = density.log_prob(x)  # type: ignore[no-untyped-call]
    return torch.autograd.grad(logarithm.sum(), x)[0]


@pytest.mark.parametrize("prompt", ["source", "target", "printed-target"])
@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 0.97])
def test_velocity_follows_from_the_density(t: float, prompt: str) -> None:
    model, x = MixtureModel(), 6 * torch.randn(1, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = -t * score(t, x, prompt)  # Tweedie: E[noise | x_t]
    image = (x - t * noise) / (1 - t)
    torch.testing.assert_close(model.velocity(t, x, model.condition([prompt], 1.0)), noise - image, atol=1e-10, rtol=1e-10)


def test_rows_have_their_own_time_and_mixture() -> None:
    model = MixtureModel()
    x = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(1))
    prompts, times = ("source", "target", "printed-target"), torch.tensor([0.0, 0.4, 1.0])
    together = model.velocity(times, x, model.condition(prompts[:1], 1.0).joined(model.condition(prompts[1:], 1.0)))
    for row, prompt in enumerate(prompts):
        alone = model.velocity(times[row].item(), x[row : row + 1], model.condition([prompt], 1.0))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_latents_are_the_points_in_float32_and_the_velocity_keeps_float64() -> None:
    model, x = MixtureModel(), torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert model.encode(x).dtype == model.decode(model.encode(x)).dtype == torch.float32
    torch.testing.assert_close(model.decode(model.encode(x)), x.float())
    condition = model.condition(["source", "target"], 1.0)
    assert model.velocity(0.5, x, condition).dtype == torch.float64
    torch.testing.assert_close(model.velocity(0.5, x.float(), condition), model.velocity(0.5, x, condition).float())


def test_calls_are_counted_at_the_network() -> None:
    model = MixtureModel()
    field = model.field(model.condition(["source", "target"], 1.0))
    with metered(model.network) as meter:
        field(Tick(0.5, 0.5, 0.4), torch.randn(2, 5, 2))
    assert (meter.calls, meter.rows) == (1, 2)


def test_generation_reaches_the_mixture() -> None:
    model, source = MixtureModel(), torch.zeros(4, 2000, 2)
    request = Request(source, ("source",) * 4, ("target",) * 4)
    noise = KeyedNoise(0, ("a", "b", "c", "d"), source)
    edit = FromNoise(target_guidance=1.0).edit(model, request, RungeKutta4(), model.grid(40, source.shape), noise)
    points = edit.latent.flatten(0, 1).double()
    right = points[points[:, 0] > 0]
    assert len(right) / len(points) == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(right.mean(0), modes("target")[1], atol=0.08, rtol=0)
    torch.testing.assert_close(right.std(0), torch.full((2,), STD, dtype=torch.float64), atol=0.06, rtol=0)


def test_what_it_refuses() -> None:
    model = MixtureModel()
    with pytest.raises(ValueError, match=r"guidance must be 1, got 5\.5"):
        model.condition(["source"], 5.5)
    with pytest.raises(ValueError, match="guidance must be 1, got nan"):
        model.condition(["source"], math.nan)
    with pytest.raises(ValueError, match="source, target, printed-target, got 'a cat'"):
        model.condition(["a cat"], 1.0)
    with pytest.raises(ValueError, match=r"clouds of points \(B, P, 2\), got \(1, 3, 8, 8\)"):
        model.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="positive standard deviation"):
        MixtureModel(std=0.0)
    with pytest.raises(ValueError, match="no weights to load, got '/models/mine'"):
        MixtureLoader().load("/models/mine", Setup())
    with pytest.raises(ValueError, match="float32, got 'bfloat16'"):
        MixtureLoader().load(None, Setup(dtype="bfloat16"))
    assert not model.points()
