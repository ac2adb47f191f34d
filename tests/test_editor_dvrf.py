"""DVRF against its public code on a tiny random network, and against what mathematics says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor, KeyedNoise, Noise, Request
from fe.editors.dvrf import DVRF
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
NOISE = KeyedNoise(0, tuple(case.id for case in CASES), LATENT)
PLAIN = DVRF(source_guidance=1.0, target_guidance=1.0)


def run(
    model: Any, editor: Editor, latent: Tensor, prompts: tuple[str, str], steps: int, noise: Noise, mask: Tensor | None = None
) -> tuple[Edit, Meter]:
    rows = len(latent)
    request = Request(latent, (prompts[0],) * rows, (prompts[1],) * rows, mask)
    with metered(model.network) as meter, torch.no_grad():
        return editor.edit(model, request, build_solver("euler"), model.grid(steps, latent.shape), noise, keep_path=True), meter


def on_mixture(
    editor: Editor, steps: int = 10, prompts: tuple[str, str] = ("source", "target"), noise: Noise = NOISE
) -> tuple[Edit, Meter]:
    return run(MixtureModel(), editor, LATENT, prompts, steps, noise)


def test_the_public_code(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("dvrf_default")
    settings, model, times = case["settings"], embedded(case["model"], tensors), []

    def keep(module: object, args: object, kwargs: dict[str, Tensor]) -> None:
        times.append(kwargs["timestep"][:1])

    editor = DVRF(settings["g_src"], settings["g_tar"], settings["eta"], settings["B"], order=settings["strategy"])
    noise = tensors["noise"]
    with model.network.register_forward_pre_hook(keep, with_kwargs=True):
        edit, meter = run(
            model, editor, tensors["x_src"], ("src", "tar"), settings["T"], lambda step, draw=0: noise[len(noise) - step]
        )
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(edit.path), tensors["traj"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.stack(times), tensors["calls_t"], atol=1e-3, rtol=0)
    assert (meter.calls, meter.rows) == (case["nfe"]["edit_calls"], case["nfe"]["edit_rows"]) == (50, 200)


class Straight(MixtureModel):  # type: ignore[misc]
    """The velocity of the target is 3 everywhere, that of the source 1."""

    def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
        same = (condition.means == self.condition(("source",), 1.0).means).flatten(1).all(1)
        return torch.where(same[:, None, None], 1.0, 3.0).expand_as(x)


def test_the_rates_are_the_published_ones(golden: Golden) -> None:
    """Where the target's velocity is 2 above the source's and nothing is shifted, a step loses its rate times 2 + z - x."""
    _, tensors = golden("dvrf_default")
    request = Request(LATENT, ("source",) * 3, ("target",) * 3)
    grid, editor = TimeGrid(tuple(tensors["sigmas"].tolist())), replace(PLAIN, eta=0.0)
    path = editor.edit(Straight(), request, build_solver("euler"), grid, NOISE, keep_path=True).path
    states = torch.stack([state.flatten()[0] - LATENT.flatten()[0] for state in path])
    rates = (states[:-1] - states[1:]) / (2 + states[:-1])
    torch.testing.assert_close(rates, tensors["lr"], atol=1e-4, rtol=0)


def test_a_rate_of_ones_own_is_used_in_every_step() -> None:
    """Straight velocities and no shift: z - x decays to minus their difference, by 1 - rate a step."""
    edit, _ = run(Straight(), replace(PLAIN, eta=0.0, rate=0.25), LATENT, ("source", "target"), 6, NOISE)
    for count, state in enumerate(edit.path):
        torch.testing.assert_close(state, LATENT - 2 * (1 - 0.75**count), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"order": "random"}, {"n_avg": 2, "eta": 0.3}, {"n_max": 3}])
def test_equal_prompts_leave_the_source_alone(options: dict[str, Any]) -> None:
    edit, _ = on_mixture(replace(PLAIN, **options), prompts=("target", "target"))
    torch.testing.assert_close(edit.latent, LATENT, atol=1e-5, rtol=0)
    moved, _ = on_mixture(replace(PLAIN, **options))
    assert (moved.latent - LATENT).abs().max() > 0.05


@pytest.mark.parametrize(("n_max", "eta"), [(None, 1.0), (None, 0.4), (10, 1.0)])
def test_the_order_of_the_times_is_all_that_random_changes(n_max: int | None, eta: float) -> None:
    """Where velocities do not depend on time, both orders go the same way, step by step."""
    paths = [
        run(Straight(), replace(PLAIN, order=order, n_max=n_max, eta=eta), LATENT, ("source", "target"), 10, NOISE)[0].path
        for order in ("descending", "random")
    ]
    assert (paths[0][-1] - LATENT).abs().max() > 0.01
    torch.testing.assert_close(torch.stack(paths[0]), torch.stack(paths[1]), atol=1e-6, rtol=0)


@dataclass(frozen=True)
class Picked:
    """Zero noise, but for the second draw of a step, whose numbers pick the knot of each row among `count`."""

    picks: tuple[int, ...]
    count: int

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        if draw == 0:
            return torch.zeros_like(LATENT)
        size = LATENT[0].numel()
        values = [NormalDist().inv_cdf((pick + 0.5) / self.count) / size**0.5 for pick in self.picks]
        return torch.tensor(values)[:, None, None].expand_as(LATENT)


@pytest.mark.parametrize(("steps", "first", "count"), [(10, 2, 7), (4, 2, 1), (3, 0, 3), (1, 0, 1)])
def test_random_picks_a_knot_for_every_row(steps: int, first: int, count: int) -> None:
    seen: list[Tensor] = []

    class Watched(MixtureModel):  # type: ignore[misc]
        def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
            assert isinstance(t, Tensor)
            seen.append(t)
            velocity: Tensor = super().velocity(t, x, condition)
            return velocity

    for picks in ((0, count - 1, count // 2), (count // 2, 0, 0)):
        seen.clear()
        editor = replace(PLAIN, order="random")
        run(Watched(), editor, LATENT, ("source", "target"), steps, Picked(picks, count))
        expected = torch.tensor([MixtureModel().grid(steps, LATENT.shape).times[first + pick] for pick in picks * 2])
        assert len(seen) == steps
        for times in seen:
            torch.testing.assert_close(times, expected, atol=1e-6, rtol=0)


def test_random_knots_are_evenly_spread() -> None:
    seen: Counter[float] = Counter()

    class Watched(MixtureModel):  # type: ignore[misc]
        def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
            assert isinstance(t, Tensor)
            seen.update(round(value, 4) for value in t[: len(x) // 2].tolist())
            return torch.zeros_like(x)

    model = Watched()
    for seed in range(100):
        noise = KeyedNoise(seed, ("a", "b", "c"), LATENT)
        run(model, replace(PLAIN, order="random"), LATENT, ("source", "target"), 8, noise)
    assert sorted(seen) == [0.25, 0.375, 0.5, 0.625, 0.75]
    assert all(abs(count - 480) < 5 * (2400 * 0.2 * 0.8) ** 0.5 for count in seen.values())


@pytest.mark.parametrize(
    ("options", "steps", "walked", "draws"),
    [({}, 7, 7, 1), ({"n_max": 3}, 7, 3, 1), ({"n_max": 50}, 7, 7, 1), ({"n_avg": 3}, 4, 4, 3), ({}, 1, 1, 1)],
)
@pytest.mark.parametrize("order", ["descending", "random"])
def test_two_rows_a_draw_in_one_call(order: str, options: dict[str, int], steps: int, walked: int, draws: int) -> None:
    editor = replace(PLAIN, order=order, **options)
    edit, meter = on_mixture(editor, steps)
    assert (meter.calls, meter.rows) == (walked * draws, walked * draws * 2 * len(CASES))
    assert len(edit.path) == walked + 1
    assert torch.equal(edit.path[0], LATENT)
    assert torch.equal(edit.path[-1], edit.latent)
    spend = probe(editor, build_solver("euler"), steps, MixtureModel(), ("source", "target"))
    assert spend[:2] == (walked * draws, 2 * walked * draws)


def test_every_step_asks_for_the_draws_of_its_own_number() -> None:
    asked: list[tuple[int, int]] = []

    def noise(step: int, draw: int = 0) -> Tensor:
        asked.append((step, draw))
        return torch.zeros_like(LATENT)

    on_mixture(replace(PLAIN, n_max=2, n_avg=2), noise=noise)
    assert asked == [(2, 0), (2, 1), (1, 0), (1, 1)]
    asked.clear()
    on_mixture(replace(PLAIN, n_max=1, n_avg=2, order="random"), steps=9, noise=noise)
    assert asked == [(9, 2), (9, 0), (9, 3), (9, 1)]  # each draw's knot is picked by a draw of its own


def test_draws_are_averaged() -> None:
    """Where velocities do not depend on the draw, any number of draws gives the same."""
    one, three = (run(Straight(), replace(PLAIN, n_avg=n), LATENT, ("source", "target"), 6, NOISE)[0].latent for n in (1, 3))
    assert (one - LATENT).abs().max() > 0.01
    torch.testing.assert_close(one, three, atol=1e-5, rtol=0)


def test_the_first_random_steps_are_those_of_the_whole_run() -> None:
    """In random order n_max counts steps, and rates and shifts start at the first."""
    whole, first = (
        run(Straight(), replace(PLAIN, order="random", n_max=n_max), LATENT, ("source", "target"), 10, NOISE)[0].path
        for n_max in (None, 4)
    )
    assert len(first) == 5
    torch.testing.assert_close(torch.stack(first), torch.stack(whole[:5]), atol=1e-6, rtol=0)
    assert (whole[4] - LATENT).abs().max() > 1e-3


def test_the_last_steps_alone_are_those_of_the_whole_run() -> None:
    """With n_max the steps keep their number in the grid: rates and shifts do not start anew."""
    whole = run(Straight(), replace(PLAIN, eta=0.0), LATENT, ("source", "target"), 10, NOISE)[0].path
    last = run(Straight(), replace(PLAIN, eta=0.0, n_max=4), LATENT, ("source", "target"), 10, NOISE)[0].path
    kept = [[(2 + (b - LATENT)) / (2 + (a - LATENT)) for a, b in pairwise(path)] for path in (whole, last)]
    assert [len(each) for each in kept] == [10, 4]
    torch.testing.assert_close(torch.stack(kept[0][6:]), torch.stack(kept[1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options", [{"eta": float("nan")}, {"n_avg": 0}, {"n_max": 0}, {"rate": -1.0}, {"order": "rising"}, {"rate": float("inf")}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"DVRF.{next(iter(options))} must be"):
        replace(DVRF(), **options)


def test_options_come_from_text() -> None:
    assert build_editor("dvrf", {"rate": "0.02", "n-avg": "2", "order": "random"}) == DVRF(rate=0.02, n_avg=2, order="random")
    assert build_editor("dvrf", {"rate": "auto"}) == DVRF()
