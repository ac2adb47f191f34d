"""Compiled networks give the rows and results of eager ones, with hooks and without, whoever compiled them and how.

What hooks do to a compiled network is decided while it is traced, so most of this takes the quickest backend, which only
traces; the usual one needs a C++ compiler and half a minute a network.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fe.attention_hooks.store import FeatureStore, Inject, Record
from fe.experiments.meter import Meter, metered
from fe.experiments.names import load_model
from fe.models.base import Setup
from fe.models.flux import FluxModel
from fe.models.instaflow import UNetModel
from fe.models.preparing import COMPILERS, compile_blocks, repeated_blocks
from fe.models.sd3 import SD3Model
from fe.ode import Tick
from torch import Tensor, nn

TRACED, LOWERED = "eager", "aot_eager"
UP, DOWN = Tick(0.45, 0.4, 0.5), Tick(0.45, 0.5, 0.4)
SOURCE, TARGET = "a large red star at the left", "a small blue ring at the right"
Pipelines = Callable[..., Any]
Build = Callable[[], Any]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield
    torch._dynamo.reset()  # type: ignore[attr-defined]


@pytest.fixture
def builders(tiny_pipeline: Pipelines, tiny_sd3: Pipelines, tiny_unet: Pipelines) -> dict[str, Build]:
    return {
        "flux": lambda: FluxModel(tiny_pipeline(guided=True)),
        "sd3": lambda: SD3Model(tiny_sd3(dual=True)),
        "unet": lambda: UNetModel(tiny_unet()),
    }


def latent(seed: int) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def walked(model: Any) -> tuple[list[Tensor], Meter]:
    """Every kind of evaluation by turns: plain, recording, plain, injecting, plain."""
    source, target, places = model.condition([SOURCE] * 2, 1.0), model.condition([TARGET] * 2, 3.0), list(model.points())
    own, store = model.calls(target)[0], FeatureStore()
    with metered(model.network) as meter:
        results = [model.velocity(0.45, latent(0), target)]
        results.append(model.field(source, Record(store, places))(UP, latent(1)))
        results.append(model.velocity(0.3, latent(1), target))
        results.append(model.field(target, Inject(store, places, rows=own))(DOWN, latent(0)))
        results.append(model.velocity(0.45, latent(0), target))
    return [*results, *store.values()], meter


def check_same(compiled: tuple[list[Tensor], Meter], eager: tuple[list[Tensor], Meter]) -> None:
    (ours, count), (theirs, expected) = compiled, eager
    assert (count.calls, count.rows) == (expected.calls, expected.rows)
    assert len(ours) == len(theirs) > 5
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert (ours[3] - ours[4]).abs().max() > 1e-3  # the injection acted, and was gone afterwards
    assert torch.equal(ours[0], ours[4])


@pytest.mark.parametrize(("name", "blocks"), [("flux", 3), ("sd3", 2), ("unet", 4)])
def test_compiled_blocks_give_the_rows_and_results_of_eager_ones(name: str, blocks: int, builders: dict[str, Build]) -> None:
    eager, compiled = walked(builders[name]()), builders[name]()
    assert len(repeated_blocks(compiled.network)) == blocks
    compile_blocks(compiled.network, LOWERED)
    assert compiled.network._compiled_call_impl is None  # hooks of the meter are met outside compiled code
    check_same(walked(compiled), eager)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # type: ignore[attr-defined]


def around(network: Any) -> Any:
    return torch.compile(network, backend=TRACED)


def in_place(network: Any) -> Any:
    network.compile(backend=TRACED)
    return network


def in_one_graph(network: Any) -> Any:
    network.compile(backend=TRACED, fullgraph=True)
    return network


def its_blocks(network: Any) -> Any:
    network.compile_repeated_blocks(backend=TRACED, fullgraph=True)
    return network


@pytest.mark.parametrize("compiling", [around, in_place, in_one_graph, its_blocks])
def test_a_pipeline_may_be_compiled_and_called_by_its_owner(
    compiling: Callable[[Any], Any], builders: dict[str, Build]
) -> None:
    eager, pipeline = walked(builders["flux"]()), builders["flux"]().pipeline
    pipeline.transformer = compiling(pipeline.transformer)
    model = FluxModel(pipeline)
    model.velocity(0.45, latent(0), model.condition([TARGET] * 2, 3.0))
    check_same(walked(FluxModel(pipeline)), eager)


def test_the_meter_leaves_a_compiled_network_as_it_was(builders: dict[str, Build]) -> None:
    network = in_place(builders["flux"]().network)
    before = network._compiled_call_impl
    with pytest.raises(ZeroDivisionError), metered(network):
        raise ZeroDivisionError
    assert network._compiled_call_impl is before
    assert not network._forward_hooks


def test_exact_time_reaches_a_bfloat16_network_with_compiled_blocks(tiny_pipeline: Pipelines) -> None:
    x, models = latent(0), [FluxModel(tiny_pipeline(guided=True, dtype=torch.bfloat16)) for _ in range(2)]
    compile_blocks(models[1].network, TRACED)
    condition = models[0].condition([SOURCE] * 2, 2.0)
    rounded = FluxModel(models[0].pipeline, exact_time=False).velocity(0.9813, x, condition)
    eager, compiled = (model.velocity(0.9813, x, condition) for model in models)
    noise = (compiled - eager).abs().max()
    assert noise < 0.1 * (rounded - eager).abs().max()


@pytest.mark.parametrize("compiling", [around, in_place])
def test_exact_time_is_refused_where_it_would_be_left_out(compiling: Callable[[Any], Any], tiny_pipeline: Pipelines) -> None:
    pipeline, x = tiny_pipeline(guided=True, dtype=torch.bfloat16), latent(0)
    pipeline.transformer = compiling(pipeline.transformer)
    model = FluxModel(pipeline)
    condition = model.condition([SOURCE] * 2, 2.0)
    with pytest.raises(ValueError, match=r"compile its blocks .* or pass exact_time=False"):
        model.velocity(0.5, x, condition)


def test_what_has_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear repeats no blocks that could be compiled"):
        compile_blocks(nn.Linear(2, 2), TRACED)


def test_compiling_without_a_compiler_is_refused(builders: dict[str, Build], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    network = builders["flux"]().network
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        compile_blocks(network)
    assert not any(module._compiled_call_impl for module in network.modules())


def test_a_setup_compiles_the_blocks_and_nothing_else(tiny_scenes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    model = load_model(tiny_scenes, Setup(compiled=True))
    compiled = [module for module in model.network.modules() if module._compiled_call_impl is not None]
    assert compiled == repeated_blocks(model.network)
    assert model.setup == Setup(compiled=True)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler here")
@pytest.mark.parametrize("name", ["flux", "sd3", "unet"])
def test_the_usual_backend_too(name: str, builders: dict[str, Build]) -> None:
    eager, compiled = walked(builders[name]()), builders[name]()
    compile_blocks(compiled.network)
    check_same(walked(compiled), eager)
    assert math.isfinite(walked(compiled)[1].seconds)
