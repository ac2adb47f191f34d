"""FlowAlign against its public code on a tiny random network, and against what mathematics says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, KeyedNoise, Noise, Request
from fe.editors.flowalign import FlowAlign
from fe.editors.flowedit import FlowEdit
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_editor, build_solver
from fe.experiments.probe import probe
from fe.models.mixture import MixtureModel
from fe.options import OptionError
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]
CASES = MixtureCases(points=100).take(3)
LATENT = torch.stack([case.picture for case in CASES])


def run(
    model: Any, editor: Editor, latent: Tensor, prompts: tuple[str, str], steps: int, noise: Noise, mask: Tensor | None = None
) -> tuple[Edit, Meter]:
    rows = len(latent)
    request = Request(latent, (prompts[0],) * rows, (prompts[1],) * rows, mask)
    with metered(model.network) as meter, torch.no_grad():
        return editor.edit(model, request, build_solver("euler"), model.grid(steps, latent.shape), noise, keep_path=True), meter


def on_mixture(editor: Editor, steps: int = 10, prompts: tuple[str, str] = ("source", "target")) -> tuple[Edit, Meter]:
    return run(MixtureModel(), editor, LATENT, prompts, steps, KeyedNoise(0, tuple(case.id for case in CASES), LATENT))


@pytest.mark.parametrize("name", ["flowalign_default", "flowalign_w1"])
def test_the_public_code(name: str, golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden(name)
    settings, steps = case["settings"], case["settings"]["NFE"]
    seen: list[Sequence[float]] = []
    model = embedded(case["model"], tensors)
    handle = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["timestep"].tolist()), with_kwargs=True
    )
    with handle:
        edit, meter = run(
            model,
            FlowAlign(guidance=settings["cfg"]),
            tensors["x_src"],
            ("src", "tar"),
            steps,
            lambda step, draw=0: tensors["noise"][steps - step],
        )
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(edit.path), tensors["traj"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(seen).flatten(), tensors["calls_t"].flatten(), atol=1e-3, rtol=0)
    assert meter.rows == case["nfe"]["batch_rows"]
    assert meter.calls == steps


@pytest.mark.parametrize("n_max", [None, 4])
def test_equal_prompts_leave_the_source_alone(n_max: int | None) -> None:
    edit, _ = on_mixture(FlowAlign(n_max=n_max), prompts=("target", "target"))
    torch.testing.assert_close(edit.latent, LATENT, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_max", [7, 10])
def test_at_guidance_one_and_without_the_pull_it_is_flowedit(n_max: int) -> None:
    plain, _ = on_mixture(FlowAlign(guidance=1.0, pull=0.0, n_max=n_max))
    flowedit, _ = on_mixture(FlowEdit(n_max=n_max, source_guidance=1.0, target_guidance=1.0))
    assert (plain.latent - LATENT).abs().max() > 1.0
    for mine, other in zip(plain.path, flowedit.path, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)


def test_a_full_pull_makes_the_source_out_of_what_is_predicted_of_it() -> None:
    """At guidance 1 and pull 1 a step from t to 0 ends at x, whatever the velocities: -t d + t d - (z - x) takes z to x."""
    edit, _ = on_mixture(FlowAlign(guidance=1.0, pull=1.0))
    assert (edit.path[-2] - LATENT).abs().max() > 0.1
    torch.testing.assert_close(edit.latent, LATENT, atol=1e-4, rtol=0)


def test_the_pull_holds_the_result_to_the_source() -> None:
    far = [float((on_mixture(FlowAlign(guidance=1.0, pull=pull))[0].latent - LATENT).norm()) for pull in (0.0, 0.05, 0.3)]
    assert far[0] > far[1] > far[2] > 0.0


@pytest.mark.parametrize(("steps", "n_max", "walked"), [(5, None, 5), (5, 3, 3), (5, 50, 5), (1, None, 1)])
def test_three_rows_a_step_in_one_call(steps: int, n_max: int | None, walked: int) -> None:
    editor = FlowAlign(n_max=n_max)
    edit, meter = on_mixture(editor, steps)
    assert (meter.calls, meter.rows) == (walked, walked * 3 * len(CASES))
    assert len(edit.path) == walked + 1
    assert torch.equal(edit.path[0], LATENT)
    assert torch.equal(edit.path[-1], edit.latent)
    spend = probe(editor, build_solver("euler"), steps, MixtureModel(), ("source", "target"))
    assert spend == (walked, 3 * walked, walked)


def test_every_step_asks_for_the_draw_of_its_own_number() -> None:
    asked: list[tuple[int, int]] = []

    def noise(step: int, draw: int = 0) -> Tensor:
        asked.append((step, draw))
        return torch.zeros_like(LATENT)

    run(MixtureModel(), FlowAlign(n_max=4), LATENT, ("source", "target"), 9, noise)
    assert asked == [(4, 0), (3, 0), (2, 0), (1, 0)]


@pytest.mark.parametrize("options", [{"guidance": float("nan")}, {"pull": float("inf")}, {"n_max": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"FlowAlign.{next(iter(options))} must be"):
        replace(FlowAlign(), **options)


def test_options_come_from_text() -> None:
    assert build_editor("flowalign", {"guidance": "7.5", "n-max": "auto"}) == FlowAlign(guidance=7.5)
