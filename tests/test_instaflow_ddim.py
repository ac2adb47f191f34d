"""Diffusion models seen as flows, against diffusers' DDIM schedulers: in float64, where the two are the same to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from fe.editors.base import Request
from fe.editors.controls import FromNoise
from fe.models.instaflow import UNetModel
from fe.ode import TimeGrid
from fe.solvers.base import integrate
from fe.solvers.euler import Euler
from torch import Tensor, nn

Pipelines = Callable[..., StableDiffusionPipeline]
PROMPTS = ("a large red star", "a small blue ring")
LAID = [("leading", 1), ("leading", 7), ("leading", 20), ("trailing", 1), ("trailing", 8)]
TYPES = {"epsilon": "epsilon", "v-vp": "v_prediction"}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ddim(pipeline: StableDiffusionPipeline, predicts: str, spacing: str, kind: Any = DDIMScheduler) -> Any:
    """DDIM over the pipeline's noise levels that ends (or starts) at the image, exact in float64."""
    settings = {"prediction_type": TYPES[predicts], "set_alpha_to_one": True, "clip_sample": False}
    scheduler = kind.from_config(pipeline.scheduler.config, timestep_spacing=spacing, **settings)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


def model_and_pipeline(tiny_unet: Pipelines, predicts: str, spacing: str, dtype: torch.dtype) -> tuple[UNetModel, Any]:
    pipeline = tiny_unet(dtype)
    pipeline.scheduler = ddim(pipeline, predicts, spacing)
    pipeline.set_progress_bar_config(disable=True)
    return UNetModel(pipeline, predicts=predicts), pipeline


@pytest.mark.parametrize("predicts", TYPES)
@pytest.mark.parametrize(
    ("spacing", "steps"), [("leading", 1), ("leading", 7), ("leading", 20), ("trailing", 1), ("trailing", 8)]
)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_euler_is_the_pipelines_own_ddim(
    predicts: str, spacing: str, steps: int, guidance: float, tiny_unet: Pipelines
) -> None:
    """From the same noise: the first knot lies below 1, and the model says what is to start there."""
    model, pipeline = model_and_pipeline(tiny_unet, predicts, spacing, torch.float64)
    noise = random(2, 4, 8, 12)
    theirs = pipeline(
        list(PROMPTS), num_inference_steps=steps, guidance_scale=guidance, latents=noise, output_type="latent"
    ).images
    edit = FromNoise(target_guidance=guidance).edit(
        model, Request(noise, PROMPTS, PROMPTS), Euler(), model.grid(steps, noise.shape), lambda step, draw=0: noise
    )
    torch.testing.assert_close(edit.latent, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("predicts", TYPES)
def test_float32_agrees_to_rounding(predicts: str, tiny_unet: Pipelines) -> None:
    model, pipeline = model_and_pipeline(tiny_unet, predicts, "leading", torch.float32)
    noise = random(2, 4, 8, 12).float()
    pipeline.scheduler.alphas_cumprod = pipeline.scheduler.alphas_cumprod.float()
    theirs = pipeline(list(PROMPTS), num_inference_steps=10, guidance_scale=2.0, latents=noise, output_type="latent").images
    field, grid = model.field(model.condition(PROMPTS, 2.0)), model.grid(10, noise.shape)
    ours = integrate(Euler(), field, model.start(grid.times[0], noise), grid).x
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max())


@pytest.mark.parametrize("predicts", TYPES)
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_euler_upwards_is_ddim_inversion(predicts: str, steps: int, tiny_unet: Pipelines) -> None:
    model, pipeline = model_and_pipeline(tiny_unet, predicts, "leading", torch.float64)
    condition, image = model.condition(PROMPTS, 1.0), random(2, 4, 8, 12)
    grid = model.grid(steps, image.shape).reversed()
    inverted = integrate(Euler(), model.field(condition), image, grid).x

    scheduler = ddim(pipeline, predicts, "leading", DDIMInverseScheduler)
    scheduler.set_timesteps(steps)
    state, known = image, 0  # the step below 0 has no noise at all; the network knows none below DDPM step 0
    for timestep in scheduler.timesteps.tolist():
        output = pipeline.unet(state, known, encoder_hidden_states=condition.text[0], return_dict=False)[0]
        state, known = scheduler.step(output, timestep, state, return_dict=False)[0], timestep
    last = grid.times[-1]
    signal = pipeline.scheduler.alphas_cumprod[known].sqrt()
    torch.testing.assert_close(inverted, state * (1.0 - last) / signal, atol=1e-10, rtol=1e-10)


def test_ddim_inversion_comes_back_to_first_order(tiny_unet: Pipelines) -> None:
    """On a smooth field the round trip by Euler steps halves its error as they double."""
    model, _ = model_and_pipeline(tiny_unet, "v-vp", "leading", torch.float64)
    field, image = model.field(model.condition(PROMPTS, 1.0)), random(2, 4, 8, 12)
    errors = []
    for steps in (20, 40):
        grid = model.grid(steps, image.shape)
        noisy = integrate(Euler(), field, image, grid.reversed()).x
        errors.append(float((integrate(Euler(), field, noisy, grid).x - image).square().mean().sqrt()))
    assert 1.6 < errors[0] / errors[1] < 2.6


@pytest.mark.parametrize("predicts", TYPES)
def test_the_network_is_fed_the_step_of_its_noise(predicts: str, tiny_unet: Pipelines) -> None:
    model, pipeline = model_and_pipeline(tiny_unet, predicts, "leading", torch.float32)
    condition, x = model.condition(PROMPTS, 1.0), random(2, 4, 8, 12).float()
    fed: list[Tensor] = []

    def meet(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        fed.append(inputs[1])

    handle = model.network.register_forward_pre_hook(meet)
    alphas = pipeline.scheduler.alphas_cumprod
    times = ((1 - alphas) / alphas).sqrt() / (1 + ((1 - alphas) / alphas).sqrt())
    exact, rounded = [float(times[step]) for step in (0, 17, 981)], times.float()[[17, 981]]
    try:
        for t in (*exact, rounded, 1.0, 0.0, float(times[17] + times[18]) / 2):
            model.velocity(t, x, condition)
    finally:
        handle.remove()
    expected = [[0, 0], [17, 17], [981, 981], [17, 981], [999, 999], [0, 0]]
    assert [step.tolist() for step in fed[:-1]] == expected
    assert fed[-1].tolist() == pytest.approx([17.5, 17.5])


def test_knots_survive_a_tensor_of_float32_times(tiny_unet: Pipelines) -> None:
    model, _ = model_and_pipeline(tiny_unet, "epsilon", "leading", torch.float64)
    x, grid = random(2, 4, 8, 12), model.grid(10, (2, 4, 8, 12))
    low, high = grid.times[-2], grid.times[0]
    both = model.velocity(torch.tensor([high, low], dtype=torch.float32), x, model.condition(PROMPTS, 3.0))
    for row, t in enumerate((high, low)):
        alone = model.velocity(t, x[[row]], model.condition([PROMPTS[row]], 3.0))
        torch.testing.assert_close(both[[row]], alone, atol=1e-6, rtol=1e-10)


def test_grids(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    uniform = UNetModel(pipeline).grid(5, (1, 4, 8, 8))
    assert uniform.times == pytest.approx(TimeGrid.uniform(5).times)
    falling = UNetModel(pipeline, predicts="epsilon").grid(20, (1, 4, 8, 8))
    alpha = float(DDIMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod[951])
    first = math.sqrt(1 - alpha) / (math.sqrt(alpha) + math.sqrt(1 - alpha))
    assert falling.times[0] == pytest.approx(first)
    assert (falling.times[-1], falling.steps) == (0.0, 20)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    assert UNetModel(pipeline, predicts="epsilon").grid(4, (1, 4, 8, 8)).times[0] == pytest.approx(0.936, abs=1e-4)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    assert UNetModel(pipeline, predicts="epsilon").grid(20, (1, 4, 8, 8)) == falling


@pytest.mark.parametrize("steps", [0, 1000])
def test_more_steps_than_noise_levels_are_refused(steps: int, tiny_unet: Pipelines) -> None:
    with pytest.raises(ValueError, match=f"sampled in 1 to 999 steps, got {steps}"):
        UNetModel(tiny_unet(), predicts="epsilon").grid(steps, (1, 4, 8, 8))


@pytest.mark.parametrize(
    ("kind", "named", "predicts", "message"),
    [
        (
            DDIMScheduler,
            {"prediction_type": "v_prediction"},
            "epsilon",
            "'v_prediction', not noise .* use predicts=v-vp",
        ),
        (
            DDIMScheduler,
            {"prediction_type": "sample"},
            "epsilon",
            "'sample', not noise .* use a model that predicts noise",
        ),
        (FlowMatchEulerDiscreteScheduler, {}, "epsilon", "predicts=epsilon needs the noise levels"),
        (FlowMatchEulerDiscreteScheduler, {}, "v-vp", "predicts=v-vp needs the noise levels"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_refused(
    kind: Any, named: dict[str, str], predicts: str, message: str, tiny_unet: Pipelines
) -> None:
    pipeline = tiny_unet()
    pipeline.scheduler = kind(**named)
    with pytest.raises(ValueError, match=message):
        UNetModel(pipeline, predicts=predicts)
    UNetModel(pipeline)  # a flow needs no noise levels, and InstaFlow's schedulers are inherited
