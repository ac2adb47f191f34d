"""DNAEdit against its public code on tiny random networks, and against what mathematics says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, KeyedNoise, Noise, Request
from fe.editors.dnaedit import DNAEdit
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.experiments.probe import probe
from fe.models.mixture import MixtureModel
from fe.ode import TimeGrid
from fe.options import OptionError
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]
CASES = MixtureCases(points=100).take(3)
LATENT = torch.stack([case.picture for case in CASES])
PLAIN = DNAEdit(target_guidance=1.0)


def run(
    model: Any, editor: Editor, latent: Tensor, prompts: tuple[str, str], steps: int, noise: Noise, mask: Tensor | None = None
) -> tuple[Edit, Meter]:
    rows = len(latent)
    request = Request(latent, (prompts[0],) * rows, (prompts[1],) * rows, mask)
    with metered(model.network) as meter, torch.no_grad():
        return editor.edit(model, request, build_solver("euler"), model.grid(steps, latent.shape), noise, keep_path=True), meter


def on_mixture(editor: Editor, steps: int = 12, prompts: tuple[str, str] = ("source", "target")) -> tuple[Edit, Meter]:
    return run(MixtureModel(), editor, LATENT, prompts, steps, KeyedNoise(0, tuple(case.id for case in CASES), LATENT))


def unpacked(tensor: Tensor) -> Tensor:
    """Latents (B, 4, 8, 12), from themselves or from FLUX tokens (B, 24, 16)."""
    if tensor.ndim == 4:
        return tensor
    latents: Tensor = FluxPipeline._unpack_latents(tensor, 64, 96, 8)
    return latents


@pytest.mark.parametrize(("name", "needed"), [("dnaedit_flux_default", 48), ("dnaedit_sd3_yaml", 81)])
def test_the_public_code(name: str, needed: int, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    settings, model = case["settings"], embedded(case["model"], tensors)
    walked = settings["T"] - settings["start"]
    editor = DNAEdit(walked, settings["mvg"], settings["g_src"], settings["g_tar"])
    states: list[Tensor] = []

    def keep(module: object, args: object, kwargs: dict[str, Tensor]) -> None:
        states.append(kwargs["hidden_states"][:1])

    with model.network.register_forward_pre_hook(keep, with_kwargs=True):
        edit, meter = run(
            model, editor, tensors["x_src"], ("src", "tar"), settings["T"], lambda step, draw=0: unpacked(tensors["noise"])
        )
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(states), tensors["calls_x"], atol=1e-4, rtol=0)
    assert meter.calls == case["nfe"]["transformer_calls"]
    assert meter.rows == needed <= case["nfe"]["batch_rows"]


def test_without_the_pull_equal_prompts_give_the_source_back() -> None:
    """The offset puts every evaluation back where the inversion made it, so that v_t is v_s and x goes back as it came."""
    edit, _ = on_mixture(replace(PLAIN, mix=1.0), prompts=("source", "source"))
    torch.testing.assert_close(edit.latent, LATENT, atol=1e-5, rtol=0)
    other, _ = on_mixture(replace(PLAIN, mix=1.0))
    assert (other.latent - LATENT).abs().max() > 1.0


def constant(velocity: Tensor, model: Any) -> Any:
    """`model` with that velocity for the source, and three times as much for the target."""

    class Constant(MixtureModel):  # type: ignore[misc]
        def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
            same = (condition.means == model.condition(("source",), 1.0).means).flatten(1).all(1)
            return torch.where(same[:, None, None], 1.0, 3.0) * velocity

    return Constant()


@pytest.mark.parametrize(
    ("mix", "target", "moved"), [(0.0, "target", -2.0), (1.0, "target", -2.0), (0.0, "source", 0.0), (0.8, "source", 0.0)]
)
def test_on_a_straight_flow_it_moves_by_the_difference_of_the_velocities(mix: float, target: str, moved: float) -> None:
    """The source's velocity is v everywhere, the target's 3 v: the reference moves by -2 v over the time that is walked, which
    is where x goes with mix 0; with mix 1 it comes back along 3 v from where v led. Equal prompts stay with any mix."""
    velocity = torch.randn(LATENT.shape, generator=torch.Generator().manual_seed(5))
    grid, editor = TimeGrid.uniform(8), DNAEdit(n_max=6, mix=mix, target_guidance=1.0)
    model, noise = constant(velocity, MixtureModel()), KeyedNoise(0, ("a", "b", "c"), LATENT)
    request = Request(LATENT, ("source",) * 3, (target,) * 3)
    edited = editor.edit(model, request, build_solver("euler"), grid, noise).latent
    torch.testing.assert_close(edited, LATENT + moved * velocity * grid.truncated(6).times[0], atol=1e-5, rtol=0)


def test_the_result_follows_the_noise_only_through_the_offsets() -> None:
    """On a straight flow the first velocity, noise - x, is put right by the first evaluation: any draw gives one result."""
    velocity = torch.ones_like(LATENT)
    model, request = constant(velocity, MixtureModel()), Request(LATENT, ("source",) * 3, ("target",) * 3)
    results = [
        PLAIN.edit(model, request, build_solver("euler"), TimeGrid.uniform(6), KeyedNoise(seed, ("a", "b", "c"), LATENT)).latent
        for seed in (0, 1)
    ]
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    curved = [on_mixture(PLAIN)[0].latent]
    curved.append(
        run(MixtureModel(), PLAIN, LATENT, ("source", "target"), 12, KeyedNoise(9, ("a", "b", "c"), LATENT))[0].latent
    )
    assert (curved[0] - curved[1]).abs().max() > 0.1


@pytest.mark.parametrize(("steps", "n_max", "walked"), [(28, None, 24), (14, None, 12), (1, None, 1), (5, 2, 2), (5, 50, 5)])
def test_one_row_a_step_each_way(steps: int, n_max: int | None, walked: int) -> None:
    editor = replace(PLAIN, n_max=n_max)
    edit, meter = on_mixture(editor, steps)
    assert (meter.calls, meter.rows) == (2 * walked, 2 * walked * len(CASES))
    assert len(edit.path) == walked + 1
    assert torch.equal(edit.path[0], LATENT)
    assert torch.equal(edit.path[-1], edit.latent)
    assert probe(editor, build_solver("euler"), steps, MixtureModel(), ("source", "target")) == (2 * walked, 2 * walked, 1)


@pytest.mark.parametrize(("steps", "n_max"), [(9, None), (4, 2)])
def test_there_is_one_draw_and_it_is_that_of_the_last_step(steps: int, n_max: int | None) -> None:
    asked: list[tuple[int, int]] = []

    def noise(step: int, draw: int = 0) -> Tensor:
        asked.append((step, draw))
        return torch.zeros_like(LATENT)

    run(MixtureModel(), replace(PLAIN, n_max=n_max), LATENT, ("source", "target"), steps, noise)
    assert asked == [(1, 0)]


@pytest.mark.parametrize("options", [{"mix": 1.1}, {"mix": -0.1}, {"n_max": 0}, {"target_guidance": float("nan")}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"DNAEdit.{next(iter(options))} must be"):
        replace(DNAEdit(), **options)


def test_options_come_from_text() -> None:
    assert build_editor("dnaedit", {"mix": "0.5", "n-max": "7"}) == DNAEdit(n_max=7, mix=0.5)
