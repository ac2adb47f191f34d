"""The state is float32 whatever the network computes in, and a network meets its times unrounded where that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import Timesteps, get_timestep_embedding
from fe.cases.base import Case
from fe.editors.base import Editor
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.experiments.compare import prepare
from fe.experiments.execute import execute
from fe.experiments.names import build_solver
from fe.experiments.plan import Comparison
from fe.experiments.words import Method
from fe.models.base import Setup
from fe.models.flux import FluxModel
from fe.models.instaflow import UNetModel
from fe.models.sd3 import SD3Model
from torch import Tensor, nn

SOURCE, TARGET = "a large red star at the left", "a small blue ring at the right"
LATE = [0.999, 0.9813, 0.9542, 0.7777, 0.5311]
"""Times near the noise end, none of them a multiple of 4 in 1000."""
Pipelines = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def latent(rows: int = 1) -> Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What the sinusoidal embedding of time is asked for and what it gives, first that of time itself."""
    met: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        met.append((inputs[0], output))

    embedding = next(module for module in model.network.modules() if isinstance(module, Timesteps))
    with embedding.register_forward_hook(note):
        yield met


def embedded(model: Any, t: float) -> tuple[float, Tensor]:
    with watched(model) as met:
        model.velocity(t, latent(), model.condition([SOURCE], 1.0))
    asked, given = met[0]
    return asked.item(), given


@pytest.mark.parametrize("t", LATE)
def test_a_bfloat16_flux_embeds_the_time_that_float32_does(t: float, tiny_pipeline: Pipelines) -> None:
    fine, coarse = (FluxModel(tiny_pipeline(guided=True, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    (wanted, expected), (asked, given) = embedded(fine, t), embedded(coarse, t)
    assert asked == pytest.approx(wanted, abs=1e-4) == pytest.approx(1000 * t, abs=1e-3)
    torch.testing.assert_close(given.float(), expected, atol=1e-4, rtol=0)
    independent = get_timestep_embedding(torch.tensor([1000 * t]), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(given.float(), independent, atol=1e-3, rtol=0)


@pytest.mark.parametrize("t", LATE)
def test_switched_off_the_published_rounding_comes_back(t: float, tiny_pipeline: Pipelines) -> None:
    """To multiples of 4 in 1000, as in diffusers' own pipeline (which rounds once more on the way, by up to one such step)."""
    pipeline = tiny_pipeline(guided=False, dtype=torch.bfloat16)
    asked, _ = embedded(FluxModel(pipeline, exact_time=False), t)
    assert asked == (torch.tensor(t).bfloat16() * 1000).item()
    assert asked % 4 == 0
    assert asked != pytest.approx(1000 * t, abs=0.1)
    tokens = pipeline._pack_latents(latent(), 1, 4, 8, 8).bfloat16()
    pipeline.set_progress_bar_config(disable=True)
    with watched(FluxModel(pipeline)) as met:
        pipeline(SOURCE, sigmas=[t], latents=tokens, height=16, width=16, max_sequence_length=16, output_type="latent")
    theirs = met[0][0].item()
    assert theirs % 4 == 0
    assert abs(theirs - asked) <= 4


@pytest.mark.parametrize("t", LATE)
@pytest.mark.parametrize("family", ["sd3", "unet"])
def test_sd3_and_unets_embed_exact_times_by_themselves(
    family: str, t: float, tiny_sd3: Pipelines, tiny_unet: Pipelines
) -> None:
    coarse = {"dtype": torch.bfloat16}
    model = SD3Model(tiny_sd3(**coarse)) if family == "sd3" else UNetModel(tiny_unet(**coarse))
    asked, _ = embedded(model, t)
    assert asked == pytest.approx(1000 * t, abs=1e-3)


@pytest.fixture(params=["flux", "sd3", "unet"])
def build(request: pytest.FixtureRequest, tiny_pipeline: Pipelines, tiny_sd3: Pipelines, tiny_unet: Pipelines) -> Pipelines:
    made: dict[str, Pipelines] = {
        "flux": lambda dtype: FluxModel(tiny_pipeline(guided=True, dtype=dtype)),
        "sd3": lambda dtype: SD3Model(tiny_sd3(dual=True, dtype=dtype)),
        "unet": lambda dtype: UNetModel(tiny_unet(dtype)),
    }
    return made[request.param]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("editor", "solver"), [(FlowEdit(), "midpoint"), (Injection(inject=2), "fireflow")])
def test_the_state_is_float32_whatever_the_network_computes_in(
    dtype: torch.dtype, editor: Editor, solver: str, build: Pipelines
) -> None:
    """Also between the two: what the network gives is brought to float32 before it is added to anything."""
    model = build(dtype)
    case = Case("a", torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)), SOURCE, TARGET)
    with seen(model) as (given, made):
        outcome = execute(model, editor, build_solver(solver), 3, [case], 0, keep_path=True)
    assert {state.dtype for state in (outcome.latents, outcome.source_latents, outcome.pictures, *outcome.edit.path)} == {
        torch.float32
    }
    assert {value.dtype for value in made} == {dtype}
    assert {value.dtype for value in given} == {torch.float32}


@contextmanager
def seen(model: Any) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The velocities that a model gives, and what its network made."""
    given: list[Tensor] = []
    made: list[Tensor] = []
    plain = model.velocity

    def velocity(*args: Any) -> Tensor:
        given.append(plain(*args))
        return given[-1]

    model.velocity = velocity
    handle = model.network.register_forward_hook(lambda module, inputs, output: made.append(output[0]))
    try:
        yield given, made
    finally:
        handle.remove()
        del model.velocity


def test_small_steps_are_not_lost_in_a_bfloat16_network(build: Pipelines) -> None:
    """A bfloat16 state near 1 has steps of 1/128: what is added in 64 small pieces would vanish in it."""
    model, x = build(torch.bfloat16), torch.ones(1, 4, 8, 8)
    condition = model.condition([SOURCE], 1.0)
    step = 1e-3 * model.velocity(0.5, x, condition)
    assert (x + step != x).float().mean() > 0.9
    assert (x.bfloat16() + step.bfloat16() != x.bfloat16()).float().mean() < 0.5


@pytest.mark.parametrize(
    ("settings", "setup"),
    [
        ({"exact_time": "off"}, Setup(dtype="bfloat16")),
        ({}, Setup()),
        ({}, Setup(dtype="bfloat16", low_memory=True)),
    ],
)
def test_how_a_model_computes_is_part_of_what_a_result_is(settings: dict[str, str], setup: Setup, tiny_folder: Path) -> None:
    """Cells of the one never pass for those of the other, and run.json says which it was."""
    usual = comparison(tiny_folder, {}, Setup(dtype="bfloat16"))
    other = comparison(tiny_folder, settings, setup)
    keys = [{cell.key for cell in prepare(plan).cells} for plan in (usual, other)]
    assert keys[0]
    assert not keys[0] & keys[1]
    assert usual.described() != other.described()
    kept_elsewhere = comparison(tiny_folder, {}, Setup(dtype="bfloat16", features="host"))
    assert {cell.key for cell in prepare(kept_elsewhere).cells} == keys[0]


def comparison(folder: Path, settings: dict[str, str], setup: Setup) -> Comparison:
    method = Method("flowedit", "euler")
    return Comparison((method,), f"flux:{folder}", "scenes", 1, (2,), settings={"model": settings}, setup=setup)
