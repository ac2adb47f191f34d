"""What only a GPU or the published weights can show. Left out by default: `pytest -m gpu`, `pytest -m weights`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fe.attention_hooks.base import Point
from fe.attention_hooks.host import OnHost
from fe.attention_hooks.store import FeatureStore
from fe.cases.base import Case
from fe.cases.scenes import ScenesCases
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.execute import execute
from fe.experiments.names import load_model
from fe.metrics.base import Result
from fe.metrics.pixels import RMSE
from fe.models.base import Model, Setup
from fe.ode import Tick
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow

EDITS = [(FlowEdit(), Euler()), (Inversion(), Euler()), (Injection(inject=2), FireFlow())]


@pytest.mark.gpu
@pytest.mark.parametrize(("editor", "solver"), EDITS)
def test_a_gpu_makes_the_pictures_that_the_cpu_makes(editor: Any, solver: Any) -> None:
    cases = ScenesCases().take(6)
    here, there = (
        execute(load_model("scenes", Setup(device=device)), editor, solver, 8, cases, seed=0) for device in ("cpu", "cuda")
    )
    assert (here.cost.calls, here.cost.rows) == (there.cost.calls, there.cost.rows)
    assert (here.pictures - there.pictures).abs().mean() < 2e-3
    assert there.latents.is_cuda
    assert there.latents.dtype == torch.float32
    assert there.cost.peak_bytes is not None
    assert there.cost.peak_bytes > 0


@pytest.mark.gpu
def test_a_bfloat16_network_keeps_a_float32_state_on_the_gpu() -> None:
    cases = ScenesCases().take(6)
    fine, coarse = (
        execute(load_model("scenes", Setup(device="cuda", dtype=dtype)), FlowEdit(), Euler(), 28, cases, seed=0)
        for dtype in ("float32", "bfloat16")
    )
    assert coarse.latents.dtype == torch.float32
    assert 0 < (fine.pictures - coarse.pictures).abs().mean() < 2e-2


FULL = [("flux-dev", 1024), ("sd3.5-medium", 1024), ("2rf", 512)]


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "side"), FULL)
def test_models_of_full_size_edit_and_say_what_it_costs(name: str, side: int) -> None:
    """With random weights. `pytest -m gpu tests/test_machines.py -k full_size -s` prints the figures."""
    model = load_model(name, Setup(device="cuda", dtype="bfloat16", weights="random"))
    case = Case("noise", torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)), "a cat", "a dog")
    for what, editor, solver, steps in (("FlowEdit", FlowEdit(), Euler(), 28), ("FireFlow", Injection(), FireFlow(), 8)):
        execute(model, editor, solver, 1, [case], seed=0)  # the first calls choose their kernels
        outcome = execute(model, editor, solver, steps, [case], seed=0)
        cost = outcome.cost
        assert torch.isfinite(outcome.pictures).all()
        assert cost.peak_bytes is not None
        print(
            f"\n{name} at {side}x{side}, random weights, bfloat16, {what}, {steps} steps, {torch.cuda.get_device_name()}: ",
            end="",
        )
        print(f"{cost.calls} calls, {cost.rows} rows, {cost.seconds:.2f} s, {cost.peak_bytes / 1e9:.2f} GB at its peak")


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "side"), FULL)
@torch.inference_mode()
def test_models_of_full_size_lose_little_in_bfloat16(name: str, side: int) -> None:
    """The same random weights, in float32 and rounded."""
    fine: Any = load_model(name, Setup(device="cuda", weights="random"))
    x = torch.randn(fine.encode(torch.zeros(1, 3, side, side)).shape, generator=torch.Generator().manual_seed(0)).cuda()
    condition = fine.condition(["a cat"], 1.0)
    expected = {t: fine.velocity(t, x, condition) for t in (0.1, 0.5, 0.9)}
    fine.network.to(torch.bfloat16)
    coarse = type(fine)(fine.pipeline)
    for t, velocity in expected.items():
        error = float((coarse.velocity(t, x, condition) - velocity).square().mean().sqrt() / velocity.square().mean().sqrt())
        print(f"\n{name}: the velocity in bfloat16 is {error:.2%} off at t = {t}")
        assert 0.0 < error < 0.1


@pytest.fixture(scope="module", params=["flux-dev", "flux-schnell"])
def published(request: pytest.FixtureRequest) -> Model[Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(request.param, Setup(device=device, dtype="bfloat16"))


@pytest.mark.weights
def test_published_weights_edit_and_come_back(published: Model[Any]) -> None:
    """A drawn picture, enlarged to 256x256: the codec holds it, the round trip is worse than the codec and better than grey."""
    drawn = ScenesCases(kinds="colour").take(1)[0]
    large = torch.nn.functional.interpolate(drawn.picture[None], size=256, mode="nearest")[0]
    case = type(drawn)(drawn.id, large, drawn.source, drawn.target)
    back = type(drawn)(drawn.id, large, drawn.source, drawn.source)
    edited = execute(published, FlowEdit(), Euler(), 4, [case], seed=0)
    assert (edited.cost.calls, edited.cost.rows) == (3, 6)
    codec = published.decode(published.encode(large[None]))[0].cpu()
    trip = execute(published, Inversion.reconstruction(), FireFlow(), 8, [back], seed=0)
    errors = [
        RMSE()(case, Result(picture, trip.latents[0], trip.source_latents[0]))
        for picture in (codec, trip.pictures[0], torch.full_like(large, 0.5))
    ]
    assert errors == sorted(errors)


def scenes_edit(editor: Any, setup: Setup, change: Any = lambda pipeline: None, count: int = 6) -> Any:
    """Cases of scenes, edited by a model that was loaded with `setup` and then changed."""
    model: Any = load_model("scenes", setup)
    change(model.pipeline)
    return execute(model, editor, FireFlow(), 4, ScenesCases().take(count), seed=0)


def check_near(one: Any, other: Any, tolerance: float) -> None:
    assert (one.cost.calls, one.cost.rows, one.edit.counts) == (other.cost.calls, other.cost.rows, other.edit.counts)
    assert (one.pictures - other.pictures).abs().mean() < tolerance
    assert other.latents.is_cuda


def in_streams(pipeline: Any) -> None:
    there, here = torch.device("cuda"), torch.device("cpu")
    pipeline.enable_group_offload(there, here, offload_type="block_level", num_blocks_per_group=1, use_stream=True)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "offload",
    [
        lambda pipeline: pipeline.enable_model_cpu_offload(),
        lambda pipeline: pipeline.enable_sequential_cpu_offload(),
        in_streams,
    ],
)
@pytest.mark.parametrize("editor", [FlowEdit(), Injection(inject=2)])
def test_offloaded_parts_work_on_the_gpu(editor: Any, offload: Any) -> None:
    plain = scenes_edit(editor, Setup(device="cuda"))
    check_near(plain, scenes_edit(editor, Setup(), offload), 1e-4)


@pytest.mark.gpu
def test_low_memory_takes_less_of_it() -> None:
    plain, low = (scenes_edit(FlowEdit(), Setup(device="cuda", low_memory=low)) for low in (False, True))
    check_near(plain, low, 1e-4)
    assert low.cost.peak_bytes < plain.cost.peak_bytes


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["replace_v", "replace_v+add_v+add_k"])
def test_features_come_back_from_the_host_as_they_went(strategy: str) -> None:
    """Many small copies beside the network's work: one that came too late or too soon would change the result."""
    editor = Injection(inject=4, strategy=strategy)
    kept, moved = (scenes_edit(editor, Setup(device="cuda", features=place), count=96) for place in ("device", "host"))
    assert kept.edit.counts == moved.edit.counts
    assert torch.equal(kept.latents, moved.latents)
    assert moved.cost.peak_bytes < kept.cost.peak_bytes


@pytest.mark.gpu
def test_features_wait_in_page_locked_memory() -> None:
    store, value = FeatureStore(host=True), torch.randn(1, 4096, 3072, device="cuda")
    expected = value.clone()
    store.record(Tick(0.5, 0.5, 0.4), Point("single", 0, "v"), value)
    value.zero_()  # what the network does afterwards changes nothing
    (slot,) = store
    kept = store._features[slot]
    assert isinstance(kept, OnHost)
    assert kept.copy.is_pinned()
    assert torch.equal(store[slot], expected)
    assert store.bytes == expected.nbytes


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
@pytest.mark.parametrize("low", [False, True])
def test_quantised_weights_edit_on_the_gpu(kind: str, package: str, low: bool) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    plain = scenes_edit(Injection(inject=2), Setup(device="cuda", dtype="bfloat16"))
    rounded = scenes_edit(Injection(inject=2), Setup(device="cuda", dtype="bfloat16", quantise=kind, low_memory=low))
    check_near(plain, rounded, 5e-2)


@pytest.mark.gpu
def test_compiled_blocks_edit_on_the_gpu() -> None:
    plain, compiled = (scenes_edit(Injection(inject=2), Setup(device="cuda", compiled=compiled)) for compiled in (False, True))
    check_near(plain, compiled, 1e-3)


@pytest.mark.gpu
def test_a_full_gpu_says_what_may_fit() -> None:
    model: Any = load_model("scenes", Setup(device="cuda"))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(ValueError, match=r"^out of GPU memory: [\d.]+ of [\d.]+ GB were in use; try --dtype bfloat16"):
            execute(model, FlowEdit(), Euler(), 4, ScenesCases().take(96), seed=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.isfinite(execute(model, FlowEdit(), Euler(), 4, ScenesCases().take(6), seed=0).latents).all()
