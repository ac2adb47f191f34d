"""Recording, injecting and sharing attention features, on a toy FLUX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from fe.attention_hooks.base import AttentionHook, Part, Point, attached
from fe.attention_hooks.store import FeatureStore, How, Inject, Record, Share, Together
from fe.models.flux import FluxCondition, FluxModel
from fe.ode import Tick
from torch import Tensor

SOURCE, TARGET = "a large red star at the left", "a small blue ring at the right"
TICK = Tick(0.5, 0.5, 0.4)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture
def model(tiny_pipeline: Callable[..., FluxPipeline]) -> FluxModel:
    return FluxModel(tiny_pipeline(guided=True))


def latent(seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, 4, 8, 12, generator=torch.Generator().manual_seed(seed))


def points(model: FluxModel, *parts: Part, stream: str = "single") -> list[Point]:
    return [point for point in model.points() if point.part in parts and point.stream == stream]


def hooks_left(model: FluxModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules())


def test_points_are_every_block_and_have_the_documented_shapes(model: FluxModel) -> None:
    assert list(model.points()) == [
        Point(*place, part) for place in (("joint", 0), ("single", 0), ("single", 1)) for part in ("q", "k", "v")
    ]
    store = FeatureStore()
    model.field(model.condition([SOURCE], 2.0), Record(store, list(model.points())))(TICK, latent(0))
    shapes = {slot.point: tuple(feature.shape) for slot, feature in store.items()}
    assert shapes[Point("joint", 0, "q")] == (1, 24, 2, 16)  # image tokens, heads, head size
    assert shapes[Point("single", 1, "k")] == (1, 16 + 24, 2, 16)  # text and image tokens
    assert shapes[Point("single", 1, "v")] == (1, 16 + 24, 32)
    assert store.bytes == 4 * 32 * (3 * 24 + 6 * 40)


def test_recorded_q_is_the_one_after_its_norm(model: FluxModel) -> None:
    store, point = FeatureStore(), Point("single", 0, "q")
    model.field(model.condition([SOURCE], 2.0), Record(store, [point]))(TICK, latent(0))
    (feature,) = store.values()
    spread = feature.pow(2).mean(dim=-1).sqrt()
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)  # the norm's weight is 1 in a new network


def test_hooks_leave_no_trace(model: FluxModel) -> None:
    condition, x = model.condition([SOURCE], 2.0), latent(0)
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    before = model.velocity(0.5, x, condition)
    store, places = FeatureStore(), list(model.points())
    recorded = model.field(condition, Record(store, places))(TICK, x)
    changed = model.field(condition, Inject(store, places, how="add"))(TICK, latent(1))
    assert torch.equal(recorded, before)
    assert not torch.equal(changed, model.velocity(0.5, latent(1), condition))
    assert torch.equal(model.velocity(0.5, x, condition), before)
    after = model.network.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert hooks_left(model) == 0


@dataclass(frozen=True)
class Failing:
    """A hook that fails where it is met."""

    points: tuple[Point, ...]

    def __call__(self, at: Tick, point: Point, value: Tensor) -> Tensor:
        raise RuntimeError("in the middle of the network")


def test_hooks_come_off_when_the_network_fails(model: FluxModel) -> None:
    condition, x = model.condition([SOURCE], 2.0), latent(0)
    hook: AttentionHook = Together([Record(FeatureStore(), list(model.points())), Failing((Point("single", 1, "v"),))])
    with pytest.raises(RuntimeError, match="in the middle"):
        model.field(condition, hook)(TICK, x)
    assert hooks_left(model) == 0
    bfloat16 = FluxModel(model.pipeline.to(torch.bfloat16))
    with pytest.raises(RuntimeError, match="in the middle"):
        bfloat16.field(condition, Failing((Point("single", 1, "v"),)))(TICK, x)
    assert hooks_left(bfloat16) == 0


def test_an_absent_point_is_refused_before_anything_is_attached(model: FluxModel) -> None:
    hook = Record(FeatureStore(), [Point("single", 0, "v"), Point("single", 7, "v")])
    with pytest.raises(LookupError, match="block=7"):
        model.field(model.condition([SOURCE], 2.0), hook)(TICK, latent(0))
    assert hooks_left(model) == 0


def test_fused_projections_are_refused(model: FluxModel) -> None:
    model.pipeline.transformer.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        model.points()
    model.velocity(0.5, latent(0), model.condition([SOURCE], 2.0))


@pytest.mark.parametrize("stream", ["single", "joint"])
@pytest.mark.parametrize(
    "changes",
    [
        [("v", "replace", 1.0)],
        [("k", "add", 1.0)],
        [("q", "replace", 0.5)],
        [("q", "add", 0.7), ("k", "add", 1.0), ("v", "replace", 1.2)],
        [("v", "replace", 1.0), ("v", "add", 1.0)],
    ],
)
def test_stored_injection_equals_sharing_in_the_batch(
    model: FluxModel, changes: list[tuple[Part, How, float]], stream: str
) -> None:
    source, target = model.condition([SOURCE] * 2, 1.0), model.condition([TARGET] * 2, 4.0)
    x_source, x_target = latent(0, 2), latent(1, 2)
    recorded, injected = Tick(0.45, 0.4, 0.5), Tick(0.45, 0.5, 0.4)
    store = FeatureStore()
    model.field(source, Record(store, points(model, "q", "k", "v", stream=stream)))(recorded, x_source)
    stored = Together([Inject(store, points(model, part, stream=stream), how, ratio) for part, how, ratio in changes])
    shared = Together([Share(points(model, part, stream=stream), [2, 3, 2, 3], how, ratio) for part, how, ratio in changes])
    expected = model.field(target, stored)(injected, x_target)
    both: FluxCondition = target.joined(source)
    result = model.field(both, shared)(injected, torch.cat([x_target, x_source]))
    torch.testing.assert_close(result[:2], expected, atol=1e-5, rtol=0)
    plain = model.velocity(0.45, x_source, source)
    torch.testing.assert_close(result[2:], plain, atol=1e-5, rtol=0)  # the rows that give are left alone
    assert (expected - model.velocity(0.45, x_target, target)).abs().max() > 1e-3


def test_injecting_a_run_into_itself_changes_nothing(model: FluxModel) -> None:
    condition, x, store = model.condition([SOURCE], 2.0), latent(0), FeatureStore()
    places = list(model.points())
    plain = model.field(condition, Record(store, places))(TICK, x)
    hook = Inject(store, places)
    assert torch.equal(model.field(condition, hook)(TICK, x), plain)
    assert (hook.hits, hook.misses) == (9, 0)


def met(hook: AttentionHook, tick: Tick, value: Tensor) -> Tensor:
    result: Tensor = hook(tick, Point("single", 0, "v"), value)
    return result


def test_stored_features_are_copies() -> None:
    store, place, value = FeatureStore(), Point("single", 0, "v"), torch.ones(1, 2)
    assert met(Record(store, [place]), TICK, value) is value
    value.zero_()
    for how in ("replace", "add"):
        hook = Inject(store, [place], "replace" if how == "replace" else "add")
        given = met(hook, TICK, torch.zeros(1, 2))
        assert torch.equal(given, torch.ones(1, 2))
        given.zero_()  # the network may write into what it is given


def test_replace_and_add_give_twice_the_feature() -> None:
    store, place = FeatureStore(), [Point("single", 0, "v")]
    met(Record(store, place), TICK, torch.full((1, 2), 3.0))
    hook = Together([Inject(store, place, "replace"), Inject(store, place, "add")])
    assert torch.equal(met(hook, TICK, torch.full((1, 2), 100.0)), torch.full((1, 2), 6.0))
    assert torch.equal(met(Inject(store, place, "replace", 0.5), TICK, torch.zeros(1, 2)), torch.full((1, 2), 1.5))
    assert torch.equal(met(Inject(store, place, "add", 0.5), TICK, torch.ones(1, 2)), torch.full((1, 2), 2.5))


def test_steps_pair_by_interval_kind_and_occurrence() -> None:
    """A Runge-Kutta step of order 4 meets each end once and the middle twice; walking back, ends change places."""
    store, place = FeatureStore(), [Point("single", 0, "v")]
    record = Record(store, place)
    for value, t in enumerate((0.4, 0.45, 0.45, 0.5)):
        met(record, Tick(t, 0.4, 0.5), torch.tensor([float(value)]))
    for value, t in enumerate((0.5, 0.55, 0.6)):
        met(record, Tick(t, 0.5, 0.6), torch.tensor([10.0 + value]))
    hook = Inject(store, place, missing="keep")
    back = [met(hook, Tick(t, 0.6, 0.5), torch.tensor([-1.0])).item() for t in (0.6, 0.55, 0.55, 0.5)]
    assert back == [10.0, 11.0, -1.0, 12.0]
    assert (hook.hits, hook.misses) == (3, 1)
    back = [met(hook, Tick(t, 0.5, 0.4), torch.tensor([-1.0])).item() for t in (0.5, 0.45, 0.45, 0.4)]
    assert back == [0.0, 1.0, 2.0, 3.0]
    assert (hook.hits, hook.misses) == (7, 1)
    assert met(Inject(store, place), Tick(0.5, 0.5, 0.4), torch.tensor([-1.0])).item() == 0.0  # a new run counts anew
    with pytest.raises(LookupError, match="no feature was recorded for"):
        met(Inject(store, place), Tick(0.3, 0.3, 0.2), torch.tensor([-1.0]))


def test_unfit_features_are_refused() -> None:
    store, place = FeatureStore(), [Point("single", 0, "v")]
    met(Record(store, place), TICK, torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) does not fit a value of shape \(2, 2\)"):
        met(Inject(store, place), TICK, torch.ones(2, 2))
    with pytest.raises(ValueError, match="feature of 4 rows was expected here, got 3"):
        met(Share(place, [2, 3, 2, 3]), TICK, torch.ones(3, 2))


def test_no_hook_attaches_nothing(model: FluxModel) -> None:
    with attached(model.points(), None, TICK):
        assert hooks_left(model) == 0
