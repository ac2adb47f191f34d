"""The memory that models take, computed from their shapes: against what torch allocates, what the libraries store, and the
document."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.experiments.footprint import KINDS, MODELS_AT, Allocated, Footprint, Work, footprints, table, weight_bytes
from fe.experiments.names import build_loader, load_model
from fe.models.architectures import ARCHITECTURES
from fe.models.base import Setup
from fe.models.quantising import MODULES, quantise
from torch import nn
from torch.profiler import ProfilerActivity, profile

DOCUMENT = Path(__file__).parent.parent / "docs" / "memory.md"
FLUX, SD3 = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-3.5-medium"


def allocated(work: Callable[[], Any]) -> int:
    """The most that `work` allocates at a time, as torch's own allocator tells its profiler."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLUX and SD3.5 with few and narrow layers."""
    heads = {"num_attention_heads": 2}
    for name, few in (
        (FLUX, heads | {"num_layers": 1, "num_single_layers": 2}),
        (SD3, heads | {"num_layers": 2, "caption_projection_dim": 128, "dual_attention_layers": (0,)}),
    ):
        networks = dict(ARCHITECTURES[name].networks)
        networks["transformer"] = replace(networks["transformer"], config={**networks["transformer"].config, **few})
        networks["vae"] = replace(networks["vae"], config={**networks["vae"].config, "block_out_channels": (32,) * 4})
        monkeypatch.setitem(ARCHITECTURES, name, replace(ARCHITECTURES[name], networks=networks))


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("name", ["flux-dev", "sd3.5-medium"])
@torch.inference_mode()
def test_shapes_alone_tell_what_torch_allocates(name: str) -> None:
    real, shapes = (build_loader(name).load(None, Setup(device=device, weights="random")) for device in ("cpu", "meta"))
    x, words = torch.randn(2, 16, 32, 48), ["a cat", "a dog"]
    x_shape = x.to("meta")
    condition, condition_shape = real.condition(words, 5.0), shapes.condition(words, 5.0)
    with Allocated() as evaluating:
        shapes.velocity(0.5, x_shape, condition_shape)
    with Allocated() as drawing:
        shapes.decode(x_shape)
    assert evaluating.peak == pytest.approx(allocated(lambda: real.velocity(0.5, x, condition)), rel=1e-3)
    assert drawing.peak == pytest.approx(allocated(lambda: real.decode(x)), rel=1e-3)


def test_what_is_freed_is_not_counted_twice() -> None:
    with Allocated() as counted:
        for _ in range(3):
            x = torch.zeros(1000)
            y = x.view(10, 100).add_(1.0)  # the same memory
            del x, y
    assert counted.peak == 4000


def parts(hub_id: str) -> dict[str, nn.Module]:
    with torch.device("meta"):
        return {name: part.build() for name, part in ARCHITECTURES[hub_id].networks.items()}


def test_weights_in_full_and_in_half() -> None:
    full, half = (weight_bytes(parts(FLUX), kind) for kind in ("float32", "bfloat16"))
    assert full["transformer"] == 2 * half["transformer"] == 4 * 11_901_408_320
    assert full["text_encoder_2"] == 2 * half["text_encoder_2"] == 4 * 4_762_310_656
    assert full["vae"] == half["vae"] == 4 * 83_819_683


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("kind", MODULES)
def test_rounded_weights_take_what_the_library_stores(kind: str) -> None:
    package = MODULES[kind].partition(".")[0]
    pytest.importorskip(package, {"torchao": "0.18"}.get(package))  # earlier ones keep zero points in 8 bytes instead of 1
    pipeline: Any = load_model("flux-dev", Setup(dtype="bfloat16", weights="random")).pipeline  # type: ignore[attr-defined]
    names = ("transformer", "vae", "text_encoder", "text_encoder_2")
    expected = weight_bytes({name: getattr(pipeline, name) for name in names}, kind)
    whole = weight_bytes({name: getattr(pipeline, name) for name in names}, "bfloat16")
    quantise(pipeline, kind, torch.device("cpu"))
    for name in names:
        stored = sum(map(bytes_of, getattr(pipeline, name).parameters()))
        assert stored == expected[name], name
    assert expected["transformer"] < whole["transformer"]


def bytes_of(weight: Any) -> int:
    """As the libraries' own tensors say."""
    if type(weight).__name__ == "Params4bit":
        state = weight.quant_state
        held = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
        return int(weight.nbytes + sum(tensor.nbytes for tensor in held))
    if type(weight).__name__ == "Int8Tensor":
        return int(weight.qdata.nbytes + weight.scale.nbytes + weight.zero_point.nbytes)
    return int(weight.nbytes)


def test_flux_features_are_what_the_literature_says() -> None:
    """28.3 MB a block at 1024x1024 in bfloat16, 38 blocks in the one injected step of FireFlow's preset."""
    work = footprints("flux-dev", 1024)["bfloat16"].work
    assert work.features == pytest.approx(38 * 28.3e6, rel=1e-3)


def test_the_peak_is_of_the_part_that_works() -> None:
    taken = Footprint(network=100, texts=(70, 10), codec=5, work=Work(editing=20, generating=15, drawing=40, features=9))
    assert taken.peak(low_memory=False) == 185 + 40
    assert taken.peak(low_memory=True) == 100 + 24
    assert replace(taken, network=20).peak(low_memory=True) == 70
    assert replace(taken, network=20, texts=(1,)).peak(low_memory=True) == 45


def test_the_document_shows_what_is_computed() -> None:
    shown = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert shown[: 2 + len(MODELS_AT) * len(KINDS)] == table().splitlines()


def test_the_document_names_cards_that_are_large_enough() -> None:
    """Every `fe edit` line that claims a card: its peak is below the card's memory, less what CUDA itself takes."""
    claims = re.findall(r"fe edit .*--model (\S+) (.*)# a card of (\d+) GB", DOCUMENT.read_text(encoding="utf-8"))
    assert len(claims) >= 2
    for name, options, card in claims:
        kind = found[1] if (found := re.search(r"--quantise (\w+)", options)) else "bfloat16"
        peak = footprints(name, MODELS_AT[name])[kind].peak(low_memory="--low-memory" in options)
        assert peak < int(card) * 2**30 - 1.5e9
